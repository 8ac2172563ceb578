"""Loops of well-known programs in a few lines each, which count for themselves what they hold at the end of each step.

`python loops_of_strangers.py FOLDER`, from the repository root, writes FOLDER/NAME.json, the recording, and
FOLDER/NAME.ledger.json, the program's own account, for each of `LOOPS`. All run in one process, since starting torch
takes longer than training the models.
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

LOOPS: dict[str, Callable[[Any, Ledger], None]] = {}
PASS = ("forward", "backward")
STEP = (*PASS, "optimizer")


class Ledger:
    """What a program holds at the end of each of its steps: distinct storages, counted by plain torch."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def end_step(
        self,
        models: Iterable[Any],
        optimizers: Iterable[Any],
        *,
        phases: Sequence[str] = STEP,
        samples: int | None = None,
        microbatches: int = 1,
        hung: Iterable[Any] = (),
        called: Sequence[Any] | None = None,
    ) -> None:
        """Count; `phases` are those that the step went through, `hung` what hangs on parameters as their gradients.

        `called` are the models that were called by now, if not all: the buffers of others are not counted.
        """
        models, optimizers = list(models), list(optimizers)
        parameters = [one for model in models for one in model.parameters()]
        gradients = [one.grad for one in parameters if one.grad is not None]
        states = [one for optimizer in optimizers for state in optimizer.state.values() for one in _flat(state)]
        held = {
            "parameter": parameters,
            "buffer": [one for model in (models if called is None else called) for one in model.buffers()],
            "gradient": [*gradients, *hung],
            "optimizer_state": [one for one in states if hasattr(one, "untyped_storage")],
        }
        owned = {name: _storage_bytes(tensors) for name, tensors in held.items()}
        self.steps.append(
            {
                "owned": {name: num_bytes for name, num_bytes in owned.items() if num_bytes},
                "phases": list(phases),
                "samples": samples,
                "microbatches": microbatches,
            }
        )


def _flat(state: Any) -> Iterable[Any]:
    for value in state.values():
        yield from value if isinstance(value, list) else [value]


def _storage_bytes(tensors: Iterable[Any]) -> int:
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())


def loop(program: Callable[[Any, Ledger], None]) -> Callable[[Any, Ledger], None]:
    """List a program under its name."""
    LOOPS[program.__name__] = program
    return program


def main(folder: Path) -> None:
    """Record every program."""
    import torch

    import memtrace

    torch.set_num_threads(1)
    for name, program in LOOPS.items():
        # What a loop before left in circles is none of the next one's.
        gc.collect()
        torch.manual_seed(0)
        ledger = Ledger()
        with memtrace.record(folder / f"{name}.json", steps="1-"):
            program(torch, ledger)
        (folder / f"{name}.ledger.json").write_text(json.dumps(ledger.steps))


def mlp(torch: Any, *sizes: int) -> Any:
    """Return a small network with a batch norm, so that there are buffers."""
    nn = torch.nn
    inner = [nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in itertools.pairwise(sizes[:-1])]
    return nn.Sequential(*inner, nn.Linear(sizes[-2], sizes[-1]))


def batches(torch: Any, number: int, size: int, width: int = 16) -> Any:
    """Return a loader of batches and labels."""
    data = torch.utils.data.TensorDataset(torch.randn(number * size, width), torch.randint(0, 4, (number * size,)))
    return torch.utils.data.DataLoader(data, batch_size=size)


@loop
def dcgan(torch: Any, ledger: Ledger) -> None:
    """pytorch/examples dcgan: two passes for the discriminator, one for the generator, an optimizer each."""
    generator, critic = mlp(torch, 8, 32, 16), mlp(torch, 16, 24, 1)
    of_critic, of_generator = (torch.optim.Adam(one.parameters()) for one in (critic, generator))
    criterion = torch.nn.BCEWithLogitsLoss()
    for _ in range(4):
        critic.zero_grad()
        label = torch.full((12, 1), 1.0)
        criterion(critic(torch.randn(12, 16)), label).backward()
        fake = generator(torch.randn(12, 8))
        label.fill_(0.0)
        criterion(critic(fake.detach()), label).backward()
        of_critic.step()
        generator.zero_grad()
        criterion(critic(fake), label).backward()
        of_generator.step()
        ledger.end_step(
            [generator, critic], [of_critic, of_generator], phases=PASS * 2 + ("optimizer",) + STEP, samples=12
        )


@loop
def wgan_gp(torch: Any, ledger: Ledger) -> None:
    """WGAN-GP: the critic with a gradient penalty each time, the generator each third time."""
    generator, critic = (
        mlp(torch, 8, 32, 16),
        torch.nn.Sequential(torch.nn.Linear(16, 24), torch.nn.Tanh(), torch.nn.Linear(24, 1)),
    )
    of_critic = torch.optim.Adam(critic.parameters(), betas=(0.5, 0.9))
    of_generator = torch.optim.Adam(generator.parameters(), betas=(0.5, 0.9))
    for number in range(7):
        of_critic.zero_grad()
        real, fake = torch.randn(10, 16), generator(torch.randn(10, 8)).detach()
        mixed = (real + fake).div(2).requires_grad_()
        (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
        (critic(fake).mean() - critic(real).mean() + (slope.norm(dim=1) - 1).square().mean()).backward()
        of_critic.step()
        turns: tuple[str, ...] = (*PASS, *STEP)
        if number % 3 == 0:
            of_generator.zero_grad()
            (-critic(generator(torch.randn(10, 8))).mean()).backward()
            of_generator.step()
            turns += STEP
        ledger.end_step([generator, critic], [of_critic, of_generator], phases=turns, samples=10)


@loop
def td3(torch: Any, ledger: Ledger) -> None:
    """TD3: two critics, target networks without gradients, and an actor that is updated each second time."""
    actor, critic = mlp(torch, 6, 32, 2), torch.nn.ModuleList(mlp(torch, 8, 32, 1) for _ in range(2))
    target_actor, target_critic = mlp(torch, 6, 32, 2), torch.nn.ModuleList(mlp(torch, 8, 32, 1) for _ in range(2))
    of_actor, of_critic = torch.optim.Adam(actor.parameters()), torch.optim.Adam(critic.parameters())
    loader = iter(batches(torch, 6, 20, width=6))
    for number in range(1, 7):
        state, _ = next(loader)
        action = torch.randn(20, 2)
        with torch.no_grad():
            following = torch.cat([state, target_actor(state)], 1)
            wanted = torch.min(*(one(following) for one in target_critic))
        both = torch.cat([state, action], 1)
        loss = sum(torch.nn.functional.mse_loss(one(both), wanted) for one in critic)
        of_critic.zero_grad()
        loss.backward()
        of_critic.step()
        turns: tuple[str, ...] = STEP
        if number % 2 == 0:
            of_actor.zero_grad()
            (-critic[0](torch.cat([state, actor(state)], 1)).mean()).backward()
            of_actor.step()
            turns += STEP
            with torch.no_grad():
                for ours, target in zip(critic.parameters(), target_critic.parameters(), strict=True):
                    target.lerp_(ours, 0.01)
        models = [actor, critic, target_actor, target_critic]
        # A loader is asked for a batch before training begins, too.
        turns = ("data",) * (number > 1) + turns
        called = models[number < 2 :]
        ledger.end_step(models, [of_actor, of_critic], phases=turns, samples=20, called=called)


@loop
def optimizer_a_layer(torch: Any, ledger: Ledger) -> None:
    """An optimizer a parameter, stepped in backward as each gradient is there, as torchtune and torchtitan do."""
    model = mlp(torch, 16, 32, 32, 4)
    optimizers = {one: torch.optim.AdamW([one]) for one in model.parameters()}

    def step(parameter: Any) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    handles = [one.register_post_accumulate_grad_hook(step) for one in model.parameters()]
    for _ in range(4):
        model(torch.randn(9, 16)).square().mean().backward()
        ledger.end_step([model], optimizers.values(), phases=(*PASS, *["optimizer"] * len(optimizers)), samples=9)
    for handle in handles:
        handle.remove()


@loop
def optimizers_at_two_rhythms(torch: Any, ledger: Ledger) -> None:
    """A sparse embedding whose own optimizer steps each fourth time only, after the dense one."""
    embedding, head = torch.nn.Embedding(50, 8), mlp(torch, 8, 16, 4)
    often, seldom = torch.optim.AdamW(head.parameters()), torch.optim.SGD(embedding.parameters(), lr=0.1, momentum=0.9)
    for number in range(1, 9):
        head(embedding(torch.randint(0, 50, (6,)))).square().mean().backward()
        often.step()
        turns: tuple[str, ...] = STEP
        if number % 4 == 0:
            seldom.step()
            turns += ("optimizer",)
        ledger.end_step([embedding, head], [often, seldom], phases=turns, samples=6)
        often.zero_grad()
        if number % 4 == 0:
            seldom.zero_grad()


@loop
def lbfgs(torch: Any, ledger: Ledger) -> None:
    """pytorch/examples time_sequence_prediction: L-BFGS, which calls its closure several times a step."""
    model, data = mlp(torch, 16, 24, 1), torch.randn(30, 16)
    optimizer, calls = torch.optim.LBFGS(model.parameters(), lr=0.05, max_iter=4), list[int]()

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (model(data) - 1).square().mean()
        loss.backward()
        calls.append(1)
        return loss

    for _ in range(3):
        calls.clear()
        optimizer.step(closure)
        ledger.end_step([model], [optimizer], phases=("optimizer", *PASS * len(calls)), samples=30)


@loop
def closure(torch: Any, ledger: Ledger) -> None:
    """A loop whose forward and backward run inside `optimizer.step(closure)`."""
    model = mlp(torch, 16, 24, 4)
    optimizer = torch.optim.Adam(model.parameters())

    def closure() -> Any:
        optimizer.zero_grad()
        loss = model(torch.randn(8, 16)).square().mean()
        loss.backward()
        return loss

    for _ in range(4):
        optimizer.step(closure)
        ledger.end_step([model], [optimizer], phases=("optimizer", *PASS), samples=8)


@loop
def opacus(torch: Any, ledger: Ledger) -> None:
    """Differentially private SGD as opacus does it: gradients of each sample hang on the parameters."""
    model = torch.nn.Sequential(torch.nn.Linear(16, 24), torch.nn.Tanh(), torch.nn.Linear(24, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(4):
        data = torch.randn(7, 16)
        model(data).square().sum().backward()
        for parameter in model.parameters():
            parameter.grad_sample = torch.randn(7, *parameter.shape)
            parameter.summed_grad = parameter.grad_sample.clamp(-1, 1).sum(0)
            parameter.grad = parameter.summed_grad + torch.randn_like(parameter.summed_grad)
        optimizer.step()
        hung = [one for parameter in model.parameters() for one in (parameter.grad_sample, parameter.summed_grad)]
        ledger.end_step([model], [optimizer], samples=7, hung=hung)
        optimizer.zero_grad()
        for parameter in model.parameters():
            parameter.grad_sample = parameter.summed_grad = None


@loop
def ignite(torch: Any, ledger: Ledger) -> None:
    """An engine as ignite's: an update function over a loader, and an evaluator after each epoch, in larger batches."""
    model, criterion = mlp(torch, 16, 32, 4), torch.nn.CrossEntropyLoss()
    training, validation = batches(torch, 3, 5), batches(torch, 2, 15)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before: tuple[str, ...] = ()
    for epoch in range(2):
        model.train()
        for number, (data, labels) in enumerate(training):
            optimizer.zero_grad()
            criterion(model(data), labels).backward()
            optimizer.step()
            # The first batch is drawn before training begins.
            drawn = ("data",) * (epoch + number > 0)
            ledger.end_step([model], [optimizer], phases=(*before, *drawn, *STEP), samples=5)
            before = ()
        model.eval()
        with torch.no_grad():
            for data, labels in validation:
                criterion(model(data), labels)
        # Both loaders are asked once more, and say that there is nothing left.
        before = ("data", *("data", "evaluation", "evaluation") * 2, "data")


@loop
def diffusers(torch: Any, ledger: Ledger) -> None:
    """A frozen encoder, a network that learns the noise, an average of it, and samples that are drawn now and then."""
    encoder, net = mlp(torch, 16, 12, 8).requires_grad_(False).eval(), mlp(torch, 8, 32, 8)
    average = torch.optim.swa_utils.AveragedModel(net)
    optimizer = torch.optim.AdamW(net.parameters())
    before: tuple[str, ...] = ()
    for number in range(1, 6):
        with torch.no_grad():
            latents = encoder(torch.randn(11, 16))
        noise = torch.randn(11, 8)
        (net(latents + noise) - noise).square().mean().backward()
        optimizer.step()
        average.update_parameters(net)
        ledger.end_step([encoder, net, average], [optimizer], phases=(*before, *STEP), samples=11)
        optimizer.zero_grad()
        before = ()
        if number in (2, 4):
            net.eval()
            with torch.no_grad():
                sample = torch.randn(3, 8)
                for _ in range(3):
                    sample = sample - 0.1 * net(sample)
            net.train()
            before = ("evaluation",) * 3


@loop
def hogwild(torch: Any, ledger: Ledger) -> None:
    """Threads that train one model, each with an optimizer of its own; the first is followed until it has ended."""
    model = mlp(torch, 16, 24, 4)

    def train(optimizer: Any) -> None:
        optimizer.zero_grad()
        model(torch.randn(6, 16)).square().mean().backward()
        optimizer.step()

    ours, theirs = (torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for _ in range(2))
    for number in range(4):
        other = threading.Thread(target=train, args=(theirs,))
        other.start()
        other.join()
        train(ours)
        ledger.end_step([model], [ours, theirs], phases=STEP * 2 if number == 0 else STEP, samples=6)


@loop
def full_graph(torch: Any, ledger: Ledger) -> None:
    """A graph network on one whole graph each epoch, evaluated after each, as PyG's examples do."""

    class Net(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(16, 24), torch.nn.Linear(24, 4)

        def forward(self, nodes: Any, edges: Any) -> Any:
            hidden = torch.relu(self.first(nodes))
            return self.second(torch.zeros_like(hidden).index_add(0, edges[1], hidden[edges[0]]))

    model, nodes, edges = Net(), torch.randn(70, 16), torch.randint(0, 70, (2, 200))
    labels = torch.randint(0, 4, (70,))
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=5e-4)
    for epoch in range(4):
        model.train()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(nodes, edges), labels).backward()
        optimizer.step()
        ledger.end_step([model], [optimizer], phases=("evaluation",) * (epoch > 0) + STEP, samples=70)
        model.eval()
        with torch.no_grad():
            model(nodes, edges).argmax(1)


@loop
def ppo(torch: Any, ledger: Ledger) -> None:
    """PPO as in cleanrl: rollouts without gradients into buffers, then epochs of minibatches over them."""
    agent = torch.nn.Sequential(torch.nn.Linear(5, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
    optimizer = torch.optim.Adam(agent.parameters(), eps=1e-5)
    seen, rewards = torch.zeros(8, 4, 5), torch.zeros(8, 4)
    before: tuple[str, ...] = ()
    for _ in range(2):
        with torch.no_grad():
            for at in range(8):
                seen[at] = torch.randn(4, 5)
                rewards[at] = agent(seen[at])[:, 0]
        advantages = rewards.flip(0).cumsum(0)
        for start in range(0, 32, 8):
            chosen = torch.arange(start, start + 8)
            picked = advantages.reshape(-1)[chosen]
            loss = (agent(seen.reshape(-1, 5)[chosen])[:, 0] * picked).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
            ledger.end_step([agent], [optimizer], phases=(*before, *STEP), samples=8)
            before = ()
        before = ("evaluation",) * 8


@loop
def encoder_decoder(torch: Any, ledger: Ledger) -> None:
    """Two modules called one after another, and a loss that is a module."""
    encoder, decoder = mlp(torch, 16, 12, 8), mlp(torch, 8, 12, 40)
    optimizer, criterion = torch.optim.RMSprop([*encoder.parameters(), *decoder.parameters()]), torch.nn.NLLLoss()
    for _ in range(4):
        words = torch.log_softmax(decoder(torch.tanh(encoder(torch.randn(13, 16)))), -1)
        criterion(words.repeat(3, 1), torch.randint(0, 40, (39,))).backward()
        optimizer.step()
        ledger.end_step([encoder, decoder], [optimizer], samples=13)
        optimizer.zero_grad()


@loop
def accelerate(torch: Any, ledger: Ledger) -> None:
    """Hugging Face accelerate with gradient accumulation."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = mlp(torch, 16, 32, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model, optimizer, loader = accelerator.prepare(model, optimizer, batches(torch, 8, 6))
    for number, (data, labels) in enumerate(loader):
        with accelerator.accumulate(model):
            accelerator.backward(torch.nn.functional.cross_entropy(model(data), labels))
            optimizer.step()
            if accelerator.sync_gradients:
                # A batch ahead is drawn before each forward, and before training begins.
                drawn = ("data",) * (number > 1)
                turns = (*drawn, *PASS, "data", *STEP)
                ledger.end_step([model], [optimizer.optimizer], phases=turns, samples=12, microbatches=2)
            optimizer.zero_grad()


def _trainer(torch: Any, module: Any, number: int, size: int) -> None:
    """Let Lightning fit a module."""
    import lightning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, batches(torch, number, size))


@loop
def lightning_automatic(torch: Any, ledger: Ledger) -> None:
    """Lightning's automatic optimization, which steps the optimizer with a closure."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(torch, 16, 32, 4)

        def training_step(self, batch: Any, _number: int) -> Any:
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.net.parameters())

        def optimizer_step(self, epoch: int, number: int, optimizer: Any, *args: Any, **kwargs: Any) -> None:
            super().optimizer_step(epoch, number, optimizer, *args, **kwargs)
            turns = (*["data"] * (number > 0), "optimizer", *PASS)
            ledger.end_step([self.net], [optimizer.optimizer], phases=turns, samples=5)

    _trainer(torch, Module(), 5, 5)


@loop
def lightning_manual(torch: Any, ledger: Ledger) -> None:
    """Lightning's manual optimization of two models, one of them each second time."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.one, self.other = mlp(torch, 16, 32, 4), mlp(torch, 16, 24, 4)

        def training_step(self, batch: Any, number: int) -> None:
            turns: tuple[str, ...] = ("data",) * (number > 0)
            optimizers = self.optimizers()
            for net, optimizer in list(zip((self.one, self.other), optimizers, strict=True))[: 1 + number % 2]:
                optimizer.zero_grad()
                self.manual_backward(torch.nn.functional.cross_entropy(net(batch[0]), batch[1]))
                optimizer.step()
                turns += STEP
            models, stepped = [self.one, self.other], [one.optimizer for one in optimizers]
            ledger.end_step(models, stepped, phases=turns, samples=5, called=models[: 1 + (number > 0)])

        def configure_optimizers(self) -> Any:
            return [torch.optim.Adam(net.parameters()) for net in (self.one, self.other)]

    _trainer(torch, Module(), 6, 5)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
