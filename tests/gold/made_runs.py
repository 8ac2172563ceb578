"""Small training runs that are made up, each from a number: what they do, and when, is drawn at random.

In: a number. Out: the ranks of a run, and a plan that says what was drawn. Many moments of such a run fall together,
most sizes are alike, and much that a recording usually has may be missing: what real recordings seldom have.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memtrace.forecast.prediction.placed import place
from memtrace.store.trace import RankTrace
from tests.builders import rank_trace

MADE_RUNS = range(48)
"""Their numbers."""
START_NS = 1_700_000_000_000_000_000
SIZES = (4, 512, 1000, 4096, 65536)
OPTIMIZERS = ("none", "SGD", "SGD with momentum", "AdamW", "Adafactor", "Unheard")
NUM_STATES = {"none": 0, "SGD": 0, "SGD with momentum": 1, "AdamW": 2, "Adafactor": 1, "Unheard": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does."""

    device: str
    num_steps: int
    num_microbatches: int
    layers: tuple[int, ...]
    """Bytes of the weight of each."""
    optimizer: str
    zeroes: str
    """When gradients are dropped: last, first, before backward, in place or never."""
    keeps_outputs: bool
    leaks: str
    """What stays behind in each step: nothing, an activation or something else."""
    checkpoints: bool
    evaluates: bool
    knows_owners: bool
    knows_saved: bool
    knows_modules: bool
    knows_stacks: bool
    gap_after: int | None
    """The step after which a stretch was not recorded."""
    ends: str
    """well, in backward, in the optimizer, or out of memory."""
    num_ranks: int


def plan_of(number: int) -> Plan:
    """Return the plan of a run."""
    draw = random.Random(number)
    return Plan(
        device=draw.choice(["cpu", "cpu", "cuda:0"]),
        num_steps=draw.randint(1, 7),
        num_microbatches=draw.choice([1, 1, 2, 3]),
        layers=tuple(draw.choice(SIZES) for _ in range(draw.randint(1, 4))),
        optimizer=draw.choice(OPTIMIZERS),
        zeroes=draw.choice(["last", "first", "before backward", "in place", "never"]),
        keeps_outputs=draw.random() < 0.4,
        leaks=draw.choice(["nothing", "nothing", "an activation", "something else"]),
        checkpoints=draw.random() < 0.25,
        evaluates=draw.random() < 0.25,
        knows_owners=draw.random() < 0.8,
        knows_saved=draw.random() < 0.8,
        knows_modules=draw.random() < 0.8,
        knows_stacks=draw.random() < 0.8,
        gap_after=draw.choice([None, None, None, 1, 2, 3]),
        ends=draw.choice(["well", "well", "in backward", "in the optimizer", "out of memory"]),
        num_ranks=draw.choice([1, 1, 1, 2]),
    )


def ranks_of(number: int) -> tuple[Plan, tuple[RankTrace, ...]]:
    """Return the plan of a run and its ranks."""
    plan = plan_of(number)
    return plan, tuple(_Run(plan, rank, random.Random(1000 * number + rank)).made() for rank in range(plan.num_ranks))


class _Broken(Exception):
    """The run breaks off here."""


class _Run:
    """One rank while it is made."""

    def __init__(self, plan: Plan, rank: int, draw: random.Random) -> None:
        self.plan, self.rank, self.draw = plan, rank, draw
        self.device = plan.device if plan.device == "cpu" else f"cuda:{rank}"
        self.now = START_NS
        self.rows: dict[str, list[dict[str, Any]]] = {
            name: []
            for name in ("events", "steps", "phases", "scopes", "owners", "saved", "frames", "stacks", "windows")
        }
        self.rows |= {name: [] for name in ("optimizers", "annotations", "buckets", "replica_forwards", "own_work")}
        self.rows |= {"reducer_timings": [], "initial_blocks": []}
        self.sizes: dict[int, int] = {}
        self.next_address = 1
        self.stacks: dict[tuple[str, ...], int] = {}
        self.weights: list[int] = []
        self.gradients: dict[int, int] = {}
        self.states: dict[tuple[int, int], int] = {}
        self.kept: list[int] = []
        self.step = 0
        self.window_start = 0
        self.is_recorded = True

    def made(self) -> RankTrace:
        """Return the rank."""
        complete = True
        try:
            self.train()
        except _Broken:
            complete = self.plan.ends == "out of memory"
        self.end_window()
        header = {"source": "recorded", "complete": complete, "start_ns": START_NS, "end_ns": self.now}
        header |= {"devices": [{"name": self.device, "capacity_bytes": 1 << 22}]}
        if self.plan.num_ranks > 1:
            header |= {"rank": self.rank, "world_size": self.plan.num_ranks, "local_rank": self.rank, "host": "host"}
        rank = rank_trace(header, **self.rows)
        return place(rank, self.device, capacity_bytes=1 << 22).rank if self.is_placed else rank

    @property
    def is_placed(self) -> bool:
        """Whether the allocator's model gives addresses and segments, and completes what is freed."""
        return self.device != "cpu" and self.plan.gap_after is None

    # Time and memory

    def tick(self) -> int:
        """Let a moment pass, or none."""
        self.now += self.draw.choice((0, 0, 10, 1000))
        return self.now

    def alloc(self, size: int, *functions: str) -> int:
        address, self.next_address = self.next_address, self.next_address + 1
        self.sizes[address] = size
        self.event("alloc", address, functions)
        return address

    def free(self, *addresses: int) -> None:
        for address in addresses:
            if self.device != "cpu":
                self.event("free_requested", address, ())
            if not self.is_placed:
                self.event("free_completed", address, ())
            del self.sizes[address]

    def event(self, action: str, address: int | None, functions: Sequence[str], size: int = 0) -> None:
        if self.is_recorded:
            row = {"time_ns": self.tick(), "action": action, "device": self.device, "address": address}
            bytes_of = size if address is None else self.sizes[address]
            self.rows["events"].append(row | {"size_bytes": bytes_of, "stack": self.stack(functions)})

    def stack(self, functions: Sequence[str]) -> int | None:
        if not functions or not self.plan.knows_stacks:
            return None
        key = ("main", *functions)
        for depth in range(1, len(key) + 1):
            if key[:depth] not in self.stacks:
                frame = {
                    "file": "train.py" if depth == 1 else "model.py",
                    "line": 10 * depth,
                    "function": key[depth - 1],
                }
                self.rows["frames"].append(frame)
                row = {"frame": len(self.rows["frames"]) - 1, "parent": self.stacks.get(key[: depth - 1])}
                self.rows["stacks"].append(row)
                self.stacks[key[:depth]] = len(self.rows["stacks"]) - 1
        return self.stacks[key]

    def end_window(self) -> None:
        """Put down that what was recorded since the last window is one."""
        count = len(self.rows["events"]) - self.window_start
        times = [row["time_ns"] for row in self.rows["events"][self.window_start :]] or [self.now]
        row = {"start_ns": times[0], "end_ns": times[-1], "first_event": self.window_start, "num_events": count}
        initial = sum(row["size_bytes"] for row in self.rows["initial_blocks"]) if self.rows["windows"] else 0
        reason = "resume" if self.rows["windows"] else "start"
        self.rows["windows"].append(row | {"initial_bytes": initial, "num_lost": 0, "reason": reason})
        self.window_start = len(self.rows["events"])

    # The program

    def train(self) -> None:
        self.weights = [self.alloc(size, "make", f"layer{at}") for at, size in enumerate(self.plan.layers)]
        if self.plan.optimizer != "none":
            options = {"lr": 0.1, "momentum": 0.9 if "momentum" in self.plan.optimizer else 0, "foreach": False}
            elements = sum(self.plan.layers) // 4
            group = {"class_name": self.optimizer, "group": 0, "num_parameters": elements}
            self.rows["optimizers"].append(group | {"options": json.dumps(options)})
        self.rows["steps"].append(self.step_row(START_NS, self.tick(), 0))
        while self.step < self.plan.num_steps:
            self.step += 1
            self.one_step()
            if self.plan.gap_after == self.step:
                self.skip_a_step()
        if self.plan.ends == "out of memory":
            self.event("oom", None, ("forward", "layer0"), size=1 << 22)
            raise _Broken

    @property
    def optimizer(self) -> str:
        return self.plan.optimizer.split()[0]

    def step_row(self, start: int, end: int | None, microbatches: int) -> dict[str, Any]:
        row = {"step": self.step, "start_ns": start, "end_ns": end, "recorded": self.is_recorded}
        row |= {"host_rss_bytes": 1 << 20, "recording_ns": 5 * self.step}
        return row | {"num_microbatches": microbatches}

    def one_step(self) -> None:
        start = self.now
        row = self.step_row(start, None, self.plan.num_microbatches)
        self.rows["steps"].append(row)
        if self.plan.zeroes == "first":
            self.zero_grad()
        for microbatch in range(self.plan.num_microbatches):
            self.forward_and_backward(microbatch)
        if self.plan.evaluates and self.step % 2:
            self.evaluate()
        self.optimize()
        row["end_ns"] = self.tick()
        self.own_everything()
        if self.plan.zeroes == "last":
            self.zero_grad()
        if self.plan.leaks == "something else":
            self.alloc(4096, "log")
        self.rows["own_work"].append({"start_ns": self.now, "end_ns": self.tick()})

    def phase(self, name: str, microbatch: int = 0, detail: str | None = None) -> dict[str, Any]:
        row: dict[str, Any] = {"phase": name, "step": self.step, "microbatch": microbatch, "start_ns": self.tick()}
        self.rows["phases"].append(row | {"detail": detail})
        return self.rows["phases"][-1]

    def forward_and_backward(self, microbatch: int) -> None:
        batch = self.alloc(1000, "load")
        forward = self.phase("forward", microbatch)
        if self.plan.num_ranks > 1:
            synchronizes = microbatch == self.plan.num_microbatches - 1
            call = {"time_ns": self.now, "step": self.step, "microbatch": microbatch, "synchronizes": synchronizes}
            self.rows["replica_forwards"].append(call)
        saved = [self.layer(at, recompute=False) for at in range(len(self.weights))]
        output = self.alloc(1000, "forward", "head")
        forward["end_ns"] = self.tick()
        if self.plan.zeroes == "before backward" and not microbatch:
            self.zero_grad()
        backward = self.phase("backward", microbatch)
        self.save(microbatch, saved)
        if self.plan.ends == "in backward" and self.step == self.plan.num_steps:
            raise _Broken
        self.backward(saved, microbatch)
        backward["end_ns"] = self.tick()
        self.free(batch)
        if self.plan.keeps_outputs:
            self.free(*self.kept)
            self.kept = [output]
        else:
            self.free(output)

    def layer(self, at: int, *, recompute: bool) -> list[int]:
        """Run the forward of a layer and return what it keeps."""
        size, start = self.plan.layers[at], self.tick()
        name = f"layer{at}"
        kept = [self.alloc(size, "forward", name) for _ in range(2)]
        if self.plan.checkpoints and not recompute:
            self.free(kept.pop())
        self.free(self.alloc(2 * size, "forward", name, "cast"))
        if self.plan.knows_modules:
            scope = {"module": f"layers.{at}", "class_name": "Linear", "start_ns": start, "end_ns": self.tick()}
            self.rows["scopes"].append(scope | {"step": self.step, "recompute": recompute})
        return kept

    def save(self, microbatch: int, saved: Sequence[Sequence[int]]) -> None:
        """Put down what autograd keeps."""
        rows = [address for kept in saved for address in kept] if self.plan.knows_saved else []
        for address in rows:
            row = {"time_ns": self.now, "step": self.step, "microbatch": microbatch, "device": self.device}
            row |= {"address": address, "size_bytes": self.sizes[address], "dtype": "float32", "op": "AddmmBackward0"}
            self.rows["saved"].append(row | {"shape": f"{self.sizes[address] // 4}x1"})

    def backward(self, saved: Sequence[Sequence[int]], microbatch: int) -> None:
        for at in reversed(range(len(self.weights))):
            size, kept = self.plan.layers[at], list(saved[at])
            if self.plan.checkpoints:
                again = self.phase("recompute", microbatch)
                kept += self.layer(at, recompute=True)
                again["end_ns"] = self.tick()
            passed = self.alloc(size, "backward")
            made = self.alloc(size, "backward")
            if at in self.gradients:
                self.free(made)
            else:
                self.gradients[at] = made
            self.free(passed)
            if self.plan.leaks == "an activation" and at == 0 and microbatch == 0:
                kept.pop()
            self.free(*kept)
        if self.plan.num_ranks > 1:
            self.reduce()

    def reduce(self) -> None:
        if self.step == 1:
            bucket = {"time_ns": self.now, "step": 1, "bucket": 0, "num_parameters": len(self.weights)}
            self.rows["buckets"].append(bucket | {"size_bytes": sum(self.plan.layers), "rebuilt": False})
        timing = {"iteration": self.step, "backward_start_ns": self.now, "backward_ns": 900, "communication_ns": 500}
        self.rows["reducer_timings"].append(timing | {"overlap_ns": 100 * self.rank})

    def evaluate(self) -> None:
        phase = self.phase("forward", 0, "evaluation")
        self.free(*[self.alloc(size, "evaluate") for size in self.plan.layers])
        phase["end_ns"] = self.tick()

    def optimize(self) -> None:
        phase = self.phase("optimizer", 0, self.optimizer)
        name = f"Optimizer.step#{self.optimizer}.step"
        self.rows["annotations"].append({"name": name, "start_ns": self.now, "device": self.device})
        if self.plan.ends == "in the optimizer" and self.step == self.plan.num_steps:
            raise _Broken
        for at in sorted(self.gradients):
            size = self.plan.layers[at] if self.optimizer != "Adafactor" else 4
            for number in range(NUM_STATES[self.plan.optimizer]):
                if (at, number) not in self.states:
                    self.states[at, number] = self.alloc(size, "optimizer", "init")
            if self.optimizer == "AdamW":
                self.free(self.alloc(size, "optimizer", "update"))
        self.rows["annotations"][-1]["end_ns"] = phase["end_ns"] = self.tick()

    def zero_grad(self) -> None:
        start = self.tick()
        if self.plan.zeroes != "in place":
            self.free(*self.gradients.values())
            self.gradients = {}
        name = f"Optimizer.zero_grad#{self.optimizer}.zero_grad"
        self.rows["annotations"].append({"name": name, "start_ns": start, "end_ns": self.now, "device": self.device})

    def own_everything(self) -> None:
        """Put down the owners at the end of a step."""
        held = [("parameter", f"layers.{at}.weight", one) for at, one in enumerate(self.weights)]
        held += [("gradient", f"layers.{at}.weight", one) for at, one in self.gradients.items()]
        names = ("exp_avg", "exp_avg_sq")
        held += [
            ("optimizer_state", f"{names[number]} of layers.{at}.weight", one)
            for (at, number), one in self.states.items()
        ]
        for category, name, address in held if self.plan.knows_owners and self.is_recorded else ():
            size = self.sizes[address]
            row = {"time_ns": self.now, "step": self.step, "device": self.device, "address": address}
            row |= {"size_bytes": size, "tensor_bytes": size, "category": category, "name": name}
            self.rows["owners"].append(row | {"dtype": "float32", "shape": f"{size // 4}x1"})

    def skip_a_step(self) -> None:
        """Let a step pass of which nothing is recorded but that it was; it leaves memory as it found it."""
        self.end_window()
        self.is_recorded = False
        start = self.now
        self.step += 1
        self.now += 10_000
        self.rows["steps"].append(self.step_row(start, self.now, self.plan.num_microbatches))
        self.is_recorded = True
        window = len(self.rows["windows"])
        self.rows["initial_blocks"] += [
            {"window": window, "device": self.device, "address": address, "size_bytes": size}
            for address, size in self.sizes.items()
        ]
