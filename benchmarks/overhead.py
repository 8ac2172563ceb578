"""What a recording costs: step time recorded against bare, and the start-up of a process without torch.

Bare and recorded processes are all started first and then take turns, one training step each, while the others wait.
So every ratio is between steps that ran within seconds of each other, and nothing that a recording leaves behind in
its process can flatter the bare step. A recorded process is one as `memtrace record` would start it.

Beside a GPT stand the two programs that a recording costs most: a model of very many tiny parameters, and a step that
allocates very often and computes nothing.

    python benchmarks/overhead.py                  # about ten minutes on two cores
    python benchmarks/overhead.py --seconds 40     # shorter, noisier
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path[:0] = [str(ROOT), str(ROOT / "samples")]

WARM_UP_STEPS = 3
NUM_IDENTITIES = 2000
MIN_ROUNDS = 5
NUM_PARAMETERS = 10_000
NUM_ALLOCATIONS = 300_000
_NUM_ALIVE = 1000


@dataclass(frozen=True, kw_only=True)
class Model:
    """The GPT of samples/train_gpt.py that is trained."""

    layers: int
    hidden: int
    heads: int
    batch: int
    sequence: int


MODELS = {
    "cpu": Model(layers=6, hidden=384, heads=6, batch=8, sequence=128),
    "cuda": Model(layers=16, hidden=768, heads=12, batch=8, sequence=512),
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One process: how it is recorded, or by which profiler, and what its steps may cost."""

    name: str
    label: str
    steps: str | None = None
    """Steps that memtrace keeps; None for a process without memtrace."""
    stacks: str = "none"
    events: bool = True
    profiler: bool = False
    """Whether torch.profiler takes a profile of each step instead."""
    against: str = "bare"
    """Variant that the target compares with."""
    target: float | None = None


VARIANTS = (
    Variant(name="bare", label="bare"),
    Variant(name="control", label="bare, a second process (shows the noise)"),
    Variant(name="hooks", label="hooks alone, no event source", steps="1-", events=False, target=1.05),
    Variant(
        name="idle", label="idle: steps outside the window (`--steps 1-2`)", steps="1-2", stacks="python", target=1.02
    ),
    Variant(name="rolling", label="events, rolling window (`last2`, stacks=python)", steps="1,last2", stacks="python"),
    Variant(name="events", label="events, kept steps, stacks=none", steps="1-", against="profiler", target=1.0),
    Variant(
        name="frames",
        label="events, kept steps, stacks=python",
        steps="1-",
        stacks="python",
        against="profiler-stack",
        target=1.0,
    ),
    Variant(name="profiler", label="torch.profiler, profile_memory", profiler=True),
    Variant(name="profiler-stack", label="torch.profiler, profile_memory, with_stack", stacks="python", profiler=True),
)

EXTREMES = {"parameters": 1.15, "allocations": 2.0}
"""Programs that a recording costs most, and the target for what their recorded step may cost, over the bare one."""


def variants_of(program: str) -> tuple[Variant, ...]:
    """Return the processes that are compared for a program."""
    if program not in EXTREMES:
        return VARIANTS
    # With frames, torch's own profiler takes minutes for such a step.
    chosen = ("bare", "control", "hooks", "idle", "rolling", "events", "frames", "profiler")
    target = EXTREMES[program]
    return tuple(
        replace(variant, against="bare", target=target if variant.steps else None)
        for variant in VARIANTS
        if variant.name in chosen
    )


PARTS_OF_OURS = {"drain_s": "of that drain ms", "marks_s": "marks ms", "keepers_s": "keepers ms"}
"""What is timed within memtrace's own code, and its heading: what marks and keepers cost is in every ratio, too."""


# The process that trains


class Stopwatch:
    """Time spent in memtrace's own code, found by wrapping it before the recorder is made."""

    def __init__(self) -> None:
        self.inside_s = 0.0
        self.drain_s = 0.0
        self.marks_s = 0.0
        self.keepers_s = 0.0
        self._depth = 0

    def install(self) -> None:
        """Time every callback that memtrace registers, and every drain."""
        from memtrace.hooks.loop.training_loop import TrainingLoop
        from memtrace.hooks.loop.window import Window
        from memtrace.hooks.torch_side.guard import Guard

        wrap = Guard.wrap

        def timed_wrap(guard: Any, function: Callable[..., object], *, name: str) -> Callable[..., None]:
            return wrap(guard, self._timed(function, "inside_s"), name=name)

        Guard.wrap = timed_wrap  # type: ignore[method-assign]
        # Taking events is the first half of a drain, done earlier at some of them.
        for name in ("drain", "take_events"):
            setattr(Window, name, self._timed(getattr(Window, name), "drain_s"))
        for name, total in (("_take_mark", "marks_s"), ("_find_keepers", "keepers_s")):
            setattr(TrainingLoop, name, self._timed(getattr(TrainingLoop, name), total))

    def _timed(self, function: Callable[..., object], total: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> object:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                setattr(self, total, getattr(self, total) + time.perf_counter() - began)

        return timed

    def take(self) -> dict[str, float]:
        """Return what was measured since the last call."""
        taken = {name: getattr(self, name) for name in ("inside_s", *PARTS_OF_OURS)}
        for name in taken:
            setattr(self, name, 0.0)
        return taken


class Trainer:
    """A training loop, one step at a time."""

    def __init__(self, device: str, variant: Variant) -> None:
        import torch

        self._torch = torch
        self._device = torch.device(device)
        self._variant = variant
        torch.manual_seed(0)
        self.model: Any = None
        self._identities = torch.nn.Sequential(*(torch.nn.Identity() for _ in range(NUM_IDENTITIES)))

    def facts(self) -> dict[str, Any]:
        """Return what the table says about the model and machine."""
        torch = self._torch
        on_gpu = self._device.type == "cuda"
        parameters = list(self.model.parameters())
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "tensors": len(parameters),
            "parameters": sum(parameter.numel() for parameter in parameters),
            "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {os.cpu_count()} cores ({platform.machine()})",
        }

    def step(self) -> None:
        """Train one step, with the variant's profiler round it."""
        if not self._variant.profiler:
            self.train()
            return
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._device.type == "cuda" else [])]
        with_stack = self._variant.stacks != "none"
        with profile(activities=activities, profile_memory=True, with_stack=with_stack) as profiler:
            self.train()
        with tempfile.TemporaryDirectory() as folder:
            profiler.export_chrome_trace(os.path.join(folder, "trace.json"))

    def train(self) -> None:
        """Train one step."""
        raise NotImplementedError

    def call_modules(self) -> None:
        """Call a module that calls many modules which do nothing."""
        self._identities(self._torch.ones(1))

    def synchronize(self) -> None:
        """Wait for the device."""
        if self._device.type == "cuda":
            self._torch.cuda.synchronize()


class GptTrainer(Trainer):
    """The training loop of samples/train_gpt.py."""

    def __init__(self, device: str, variant: Variant) -> None:
        super().__init__(device, variant)
        import train_gpt

        model = MODELS[device]
        self._sample = train_gpt
        self._args = argparse.Namespace(
            **vars(model), micro_batch=model.batch, dropout=0.0, attention="sdpa", checkpointing=False
        )
        self.model = train_gpt.GPT(65, self._args).to(self._device)
        self._optimizer = self._torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self._data = self._torch.randint(65, (100_000,))

    def train(self) -> None:
        """Train one step."""
        inputs, targets = self._sample.draw_batch(self._data, self._args, self._device)
        logits = self.model(inputs)
        loss = self._torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        loss.item()
        self._optimizer.step()
        self._optimizer.zero_grad()


class ManyParameters(Trainer):
    """A model of 10,000 parameters of four numbers, each of which an optimizer's loop steps by itself."""

    def __init__(self, device: str, variant: Variant) -> None:
        super().__init__(device, variant)
        nn = self._torch.nn
        tensors = nn.ParameterList([nn.Parameter(self._torch.randn(4)) for _ in range(NUM_PARAMETERS)])
        self.model = nn.Module()
        self.model.tensors = tensors
        self.model.forward = lambda: self._torch.stack(list(tensors)).square().sum()
        self._optimizer = self._torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def train(self) -> None:
        """Train one step."""
        self._optimizer.zero_grad()
        self.model().backward()
        self._optimizer.step()


class ManyAllocations(Trainer):
    """A tiny model, and 300,000 allocations in a step that compute nothing."""

    def __init__(self, device: str, variant: Variant) -> None:
        super().__init__(device, variant)
        self.model = self._torch.nn.Linear(8, 4)
        self._optimizer = self._torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def train(self) -> None:
        """Train one step."""
        empty = self._torch.empty
        for _ in range(NUM_ALLOCATIONS // _NUM_ALIVE):
            kept = [empty(1) for _ in range(_NUM_ALIVE)]
            kept.clear()
        self._optimizer.zero_grad()
        self.model(self._torch.ones(4, 8)).sum().backward()
        self._optimizer.step()


TRAINERS: dict[str, type[Trainer]] = {
    "gpt": GptTrainer,
    "parameters": ManyParameters,
    "allocations": ManyAllocations,
}


def work(program: str, device: str, variant: Variant, threads: int) -> None:
    """Serve one variant: a line on stdin asks for a step, an answer on stdout tells what it took."""
    stopwatch = Stopwatch()
    if variant.steps is not None:
        stopwatch.install()
        if not variant.events:
            from memtrace.hooks.sources.choose import Sources

            Sources._make = lambda *_: None  # type: ignore[method-assign]
    import torch

    torch.set_num_threads(threads)
    trainer = TRAINERS[program](device, variant)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    print(json.dumps(trainer.facts()), file=answers)
    actions = {"step": trainer.step, "modules": trainer.call_modules}
    for line in sys.stdin:
        action = actions[line.strip()]
        trainer.synchronize()
        stopwatch.take()
        began, began_cpu = time.perf_counter(), time.process_time()
        action()
        trainer.synchronize()
        taken = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - began_cpu}
        print(json.dumps({**taken, **stopwatch.take(), "peak_bytes": _peak_bytes()}), file=answers)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# The process that measures


class Worker:
    """A process that trains when it is told to."""

    def __init__(self, program: str, variant: Variant, device: str, threads: int, folder: Path) -> None:
        self.variant = variant
        self._errors = folder / f"{variant.name}.stderr"
        command = [sys.executable, __file__, "--worker", variant.name, "--program", program]
        command += ["--device", device, "--threads", str(threads)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors.open("w", encoding="utf-8"),
            text=True,
            env=_environment(variant, device, folder / variant.name),
        )
        self.facts: dict[str, Any] = {}

    def await_facts(self) -> None:
        """Wait until the process is ready."""
        self.facts = self._answer()

    def ask(self, action: str) -> None:
        """Start an action."""
        assert self._process.stdin is not None
        self._process.stdin.write(action + "\n")
        self._process.stdin.flush()

    def run(self, action: str) -> dict[str, float]:
        """Do an action and return what it took."""
        self.ask(action)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.variant.name} failed:\n{self.errors()}")
        return json.loads(line)  # type: ignore[no-any-return]

    def errors(self) -> str:
        """Return the end of what the process wrote to stderr."""
        return self._errors.read_text(encoding="utf-8")[-3000:]

    def await_answer(self) -> None:
        """Wait for the end of an action that was asked for."""
        self._answer()

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()


def _environment(variant: Variant, device: str, parts: Path) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if name != "MEMTRACE_RECORD"}
    if variant.steps is None:
        return environ
    parts.mkdir()
    return recorded_environment(environ, parts, steps=variant.steps, stacks=variant.stacks, device=device)


def recorded_environment(environ: dict[str, str], parts: Path, **options: str) -> dict[str, str]:
    """Return the environment that `memtrace record` would give its program."""
    from memtrace.launch.command import PACKAGE_DIR, build_environment
    from memtrace.launch.watch_library import watch_library
    from memtrace.schema.options import RecordOptions

    watch = watch_library()
    recording = RecordOptions(parts_dir=str(parts), package_dir=str(PACKAGE_DIR), watch_library=watch, **options)  # type: ignore[arg-type]
    return build_environment(recording, environ)


@contextmanager
def all_workers(program: str, device: str, threads: int) -> Iterator[dict[str, Worker]]:
    """Yield one warm process a variant."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = {}
        for variant in variants_of(program):
            workers[variant.name] = worker = Worker(program, variant, device, threads, Path(folder))
            stack.callback(worker.close)
        for worker in workers.values():
            worker.await_facts()
        for _ in range(WARM_UP_STEPS):
            for worker in workers.values():
                worker.ask("step")
            for worker in workers.values():
                worker.await_answer()
        _check_recorded(workers)
        yield workers


def _check_recorded(workers: dict[str, Worker]) -> None:
    """Fail where a process that should be recorded is not: its ratios would be flattering and meaningless."""
    for worker in workers.values():
        if worker.variant.steps is not None and not worker.run("step")["inside_s"]:
            raise SystemExit(f"{worker.variant.name} is not recorded: {worker.errors()}")


Rounds = list[dict[str, dict[str, float]]]


def take_turns(workers: dict[str, Worker], action: str, *, seconds: float, at_least: int, at_most: int) -> Rounds:
    """Return what the action took, a round in which each process had one turn, in an order that changes."""
    rounds: Rounds = []
    order = list(workers)
    shuffler = random.Random(0)
    deadline = time.monotonic() + seconds
    while len(rounds) < at_least or (time.monotonic() < deadline and len(rounds) < at_most):
        shuffler.shuffle(order)
        rounds.append({name: workers[name].run(action) for name in order})
    return rounds


@dataclass(frozen=True)
class Estimate:
    """A median of paired values, and how far off it may be."""

    value: float
    error: float
    """Half of the 95% interval of the median, as box plots draw it in their notches."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Return the estimate from one value a round."""
        low, _, high = statistics.quantiles(values, n=4)
        return cls(statistics.median(values), 1.57 * (high - low) / len(values) ** 0.5)

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}"

    def verdict(self, target: float) -> str:
        """Return whether the value is below a target, as far as the noise lets one say."""
        if abs(self.value - target) < self.error:
            return f"{'met' if self.value <= target else 'missed'}, but within the noise"
        return "met" if self.value <= target else "**missed**"


def paired(rounds: Rounds, what: str, name: str, against: str) -> Estimate:
    """Return the ratio of two variants, taken round by round."""
    return Estimate.of([one[name][what] / one[against][what] for one in rounds])


def step_table(rounds: Rounds, variants: Sequence[Variant]) -> list[str]:
    """Return the table of step times."""
    lines = [
        "| variant | step ms | ratio to bare, wall | ratio to bare, CPU time | memtrace's code ms "
        f"| {' | '.join(PARTS_OF_OURS.values())} | peak RSS MiB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for variant in variants:
        median = {key: statistics.median(one[variant.name][key] for one in rounds) for key in rounds[0]["bare"]}
        ratios = (
            ["1", "1"] if variant.name == "bare" else [str(paired(rounds, w, variant.name, "bare")) for w in CLOCKS]
        )
        ours = [f"{1e3 * median[key]:.2f}" if variant.steps else "–" for key in ("inside_s", *PARTS_OF_OURS)]
        cells = [f"{1e3 * median['wall_s']:.0f}", *ratios, *ours, f"{median['peak_bytes'] / 2**20:.0f}"]
        lines.append(f"| {variant.label} | {' | '.join(cells)} |")
    return lines


CLOCKS = ("wall_s", "cpu_s")


def target_table(rounds: Rounds, variants: Sequence[Variant]) -> list[str]:
    """Return the table of targets. Events are compared with torch.profiler at the same setting of stacks."""
    lines = ["| target | wall | CPU time | by wall | by CPU time |", "|---|--:|--:|---|---|"]
    for variant in variants:
        if variant.target is None:
            continue
        against = next(other.label for other in variants if other.name == variant.against)
        ratios = [paired(rounds, clock, variant.name, variant.against) for clock in CLOCKS]
        verdicts = " | ".join(ratio.verdict(variant.target) for ratio in ratios)
        lines.append(f"| {variant.label} ≤ {variant.target:.2f} × {against} | {ratios[0]} | {ratios[1]} | {verdicts} |")
    return lines


def module_call_us(workers: dict[str, Worker]) -> str:
    """Return what the hooks add to one call of a module that does nothing."""
    two = {name: workers[name] for name in ("bare", "hooks")}
    rounds = take_turns(two, "modules", seconds=5, at_least=MIN_ROUNDS, at_most=40)[1:]
    differences = [1e6 * (one["hooks"]["wall_s"] - one["bare"]["wall_s"]) / NUM_IDENTITIES for one in rounds]
    timer = 1e6 * timer_cost_s()
    found = Estimate.of(differences)
    return (
        f"A module call costs {found.value:.1f} ± {found.error:.1f} µs more, of which about {timer:.1f} µs are this "
        "benchmark's own timers."
    )


def timer_cost_s() -> float:
    """Return what the stopwatch adds to one module call, which has two callbacks."""
    timed = Stopwatch()._timed(lambda: None, "inside_s")

    def seconds(function: Callable[[], object]) -> float:
        began = time.perf_counter()
        for _ in range(20_000):
            function()
        return time.perf_counter() - began

    return 2 * statistics.median(seconds(timed) - seconds(lambda: None) for _ in range(5)) / 20_000


def measure_steps(device: str, threads: int, seconds: float) -> list[str]:
    """Return the section of one device."""
    with all_workers("gpt", device, threads) as workers:
        facts = workers["bare"].facts
        rounds = take_turns(workers, "step", seconds=seconds, at_least=MIN_ROUNDS, at_most=200)
        modules = module_call_us(workers)
    model = MODELS[device]
    return [
        f"## Steps on {facts['device']}",
        "",
        f"GPT of {facts['parameters'] / 1e6:.1f} M parameters ({model.layers} layers × {model.hidden}), batch "
        f"{model.batch} × {model.sequence}, fp32, AdamW; torch {facts['torch']}, {facts['threads']} thread(s), "
        f"Python {platform.python_version()}. Medians of {len(rounds)} rounds, in each of which every process trained "
        "one step in turn; ± is the 95% interval of the median.",
        "",
        *step_table(rounds, VARIANTS),
        "",
        *target_table(rounds, VARIANTS),
        "",
        "torch.profiler starts, stops and exports a Chrome trace at each step, as memtrace drains and writes at each "
        "kept step; that is in the step's time. What `memtrace record` does after the program ended is in neither.",
        "",
        modules,
        "",
    ]


def measure_extreme(program: str, threads: int, seconds: float) -> list[str]:
    """Return the section of a program that a recording costs most, on the CPU."""
    with all_workers(program, "cpu", threads) as workers:
        facts = workers["bare"].facts
        rounds = take_turns(workers, "step", seconds=seconds, at_least=MIN_ROUNDS, at_most=50)
    return [
        f"## Steps with very many {program}, on {facts['device']}",
        "",
        f"{TRAINERS[program].__doc__} {facts['tensors']:,} parameter tensors; torch {facts['torch']}, "
        f"{facts['threads']} thread(s). Medians of {len(rounds)} rounds.",
        "",
        *step_table(rounds, variants_of(program)),
        "",
        *target_table(rounds, variants_of(program)),
        "",
    ]


def measure_start_up(num_runs: int) -> list[str]:
    """Return the section about a Python that never imports torch."""
    with tempfile.TemporaryDirectory() as folder:
        bare = {name: value for name, value in os.environ.items() if name != "MEMTRACE_RECORD"}
        environs = {"bare": bare, "recorded": recorded_environment(bare, Path(folder))}
        pairs: list[dict[str, tuple[float, float]]] = []
        for number in range(num_runs + 1):
            order = ("bare", "recorded") if number % 2 else ("recorded", "bare")
            pairs.append({name: _start_up(environs[name]) for name in order})
    # The first pair fills the caches.
    wall, cpu = (Estimate.of([1e3 * (pair["recorded"][i] - pair["bare"][i]) for pair in pairs[1:]]) for i in (0, 1))
    base = 1e3 * statistics.median(pair["bare"][0] for pair in pairs[1:])
    return [
        "## Start-up of a process without torch",
        "",
        f"`python -c pass`, {num_runs} pairs, bare {base:.1f} ms.",
        "",
        "| target | wall | CPU time | by wall | by CPU time |",
        "|---|--:|--:|---|---|",
        f"| ≤ 5 ms more | {wall} ms | {cpu} ms | {wall.verdict(5)} | {cpu.verdict(5)} |",
        "",
    ]


def _start_up(environ: dict[str, str]) -> tuple[float, float]:
    began = time.perf_counter()
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", "pass"], environ)
    _, _, usage = os.wait4(pid, 0)
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: CPU, and CUDA if there"
    )
    parser.add_argument("--seconds", type=float, default=150, help="how long the processes take turns, a device")
    parser.add_argument("--start-ups", type=int, default=40, help="pairs of processes without torch; 0 for none")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; more are noisy on shared cores")
    parser.add_argument(
        "--output", type=Path, help="file for the results instead of benchmarks/results/overhead-DATE.md"
    )
    parser.add_argument(
        "--programs", nargs="*", choices=list(TRAINERS), default=list(TRAINERS), help="programs that are trained"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--program", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        variant = next(one for one in variants_of(args.program) if one.name == args.worker)
        work(args.program, args.device, variant, args.threads)
        return
    lines = [f"# Overhead of recording, {date.today()}", "", *_explanation()]
    if "gpt" in args.programs:
        for device in _devices(args.device):
            lines += measure_steps(device, args.threads, args.seconds)
    for program in EXTREMES:
        if program in args.programs:
            lines += measure_extreme(program, args.threads, args.seconds)
    if args.start_ups:
        lines += measure_start_up(args.start_ups)
    text = "\n".join(lines).rstrip() + "\n"
    output = args.output or RESULTS / f"overhead-{date.today()}.md"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    print(text)


def _explanation() -> list[str]:
    return [
        "Made by `benchmarks/overhead.py`. One process a variant; they take turns, so that each ratio pairs steps that "
        "ran within seconds of each other. CPU time does not count what other programs on the machine take; it is "
        'the better clock with one thread, and says nothing of a GPU. "memtrace\'s code" is timed inside the recorded '
        "process (drains included); events that torch records while the program runs are not in it.",
        "",
    ]


def _devices(wanted: str) -> list[str]:
    if wanted != "auto":
        return [wanted]
    check = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    has_gpu = subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    return ["cpu", "cuda"] if has_gpu else ["cpu"]


if __name__ == "__main__":
    main()
