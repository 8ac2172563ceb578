"""Reports for tests, made without a trace: four steps of a GPT, with every category, every phase and a gap.

The bytes follow from the shape of the model, so that the pictures look like those of a real run: parameters and
optimizer state as floors, gradients that grow in backward as activations shrink, the logits as the spike at the top.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from memtrace.analysis.results.report import (
    Finding,
    ModuleRow,
    Note,
    OomResult,
    Peak,
    PhaseResult,
    RankReport,
    Report,
    StackRow,
    State,
    StepResult,
    Timeline,
)

MIB = 1024**2
GIB = 1024**3
LAYERS, WIDTH, TOKENS, VOCABULARY = 12, 768, 8 * 1024, 50_304
LAYER_PARAMETERS = 4 * 12 * WIDTH**2
EMBEDDING = 4 * VOCABULARY * WIDTH
ACTIVATIONS = 4 * TOKENS * WIDTH * 17
LOGITS = 4 * TOKENS * VOCABULARY
START_NS = 1_760_000_000_000_000_000
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\x1b[31mred\x1b[0m",
    "{{modules}} \u2028 \u202e gnp.exe \ud800 & <b>bold</b>",
)


@dataclass
class _Run:
    """A run that is being made up: live bytes by category, and the curve so far."""

    live: dict[str, int] = field(default_factory=dict)
    time_ns: int = START_NS
    times: list[int] = field(default_factory=list)
    curve: list[dict[str, int]] = field(default_factory=list)
    phases: list[PhaseResult] = field(default_factory=list)
    steps: list[StepResult] = field(default_factory=list)
    places: list[tuple[int, str | None, str | None]] = field(default_factory=list)
    step: int = 0
    phase: str | None = None
    microbatch: int = 0

    def add(self, category: str, num_bytes: int, *, module: str | None = None, takes_ns: int = 1_100_000) -> None:
        """Allocate (or free, below zero) bytes of a category."""
        self.live[category] = self.live.get(category, 0) + num_bytes
        self.time_ns += takes_ns
        self.times.append(self.time_ns)
        self.curve.append(dict(self.live))
        self.places.append((self.step, self.phase, module))

    @contextmanager
    def in_phase(self, name: str) -> Iterator[None]:
        """Record the phase that the block is."""
        outer, start, first = self.phase, self.time_ns, len(self.curve)
        self.phase = name
        yield
        self.time_ns += 400_000
        peak = max((sum(live.values()) for live in self.curve[first:]), default=None)
        self.phases.append(
            PhaseResult(
                phase=name,
                microbatch=self.microbatch,
                start_ns=start,
                end_ns=self.time_ns,
                peak_allocated_bytes=peak,
                peak_requested_bytes=peak,
            )
        )
        self.phase = outer


def _setup(run: _Run) -> None:
    """Build the model: parameters and the causal masks."""
    run.add("parameter", EMBEDDING)
    for _ in range(LAYERS):
        run.add("parameter", LAYER_PARAMETERS)
        run.add("buffer", MIB)
    run.add("workspace", 8 * MIB)


def _microbatch(run: _Run) -> None:
    """Run forward and backward, the first third of the layers recomputed."""
    with run.in_phase("data"):
        run.add("input", TOKENS * 8 * 2, takes_ns=3_000_000)
    with run.in_phase("forward"):
        for layer in range(LAYERS):
            run.add("temporary", ACTIVATIONS // 5, module=f"blocks.{layer}.attn")
            run.add("activation", ACTIVATIONS, module=f"blocks.{layer}.mlp")
            run.add("temporary", -(ACTIVATIONS // 5), module=f"blocks.{layer}")
        run.add("activation", LOGITS, module="head", takes_ns=4_000_000)
        run.add("unknown", 37 * MIB, module="head")
        run.add("temporary", LOGITS // 2, module="head")
    with run.in_phase("backward"):
        run.add("autograd_detail", 24 * MIB)
        run.add("temporary", LOGITS // 2, takes_ns=3_000_000)
        run.add("temporary", -LOGITS)
        run.add("activation", -LOGITS)
        for layer in reversed(range(LAYERS)):
            if layer < LAYERS // 3:
                with run.in_phase("recompute"):
                    run.add("temporary", ACTIVATIONS // 4, takes_ns=2_000_000)
                    run.add("temporary", -(ACTIVATIONS // 4), takes_ns=2_000_000)
            run.add("communication", 25 * MIB)
            if run.live.get("gradient", 0) < LAYERS * LAYER_PARAMETERS:
                run.add("gradient", LAYER_PARAMETERS)
            run.add("activation", -ACTIVATIONS, takes_ns=3_000_000)
            run.add("communication", -25 * MIB)
        if run.live["gradient"] < LAYERS * LAYER_PARAMETERS + EMBEDDING:
            run.add("gradient", EMBEDDING)
        run.add("autograd_detail", -24 * MIB)
    run.add("unknown", -37 * MIB)
    run.add("input", -TOKENS * 8 * 2)


def _optimizer(run: _Run) -> None:
    """Step AdamW, which makes its state in the first step, and drop the gradients."""
    parameters = EMBEDDING + LAYERS * LAYER_PARAMETERS
    with run.in_phase("optimizer"):
        if not run.live.get("optimizer_state"):
            for _ in range(LAYERS):
                run.add("optimizer_state", 2 * LAYER_PARAMETERS)
            run.add("optimizer_state", 2 * EMBEDDING)
        run.add("temporary", parameters // 3, takes_ns=6_000_000)
        run.add("temporary", -(parameters // 3), takes_ns=6_000_000)
    run.add("gradient", -parameters)


def _step(run: _Run, number: int, *, skipped: bool = False) -> None:
    run.step, start, first = number, run.time_ns, len(run.curve)
    run.phases = []
    for run.microbatch in range(2):
        _microbatch(run)
    _optimizer(run)
    peak = max(sum(live.values()) for live in run.curve[first:])
    reserved = max(_reserved([sum(live.values()) for live in run.curve]))
    run.steps.append(
        StepResult(
            step=number,
            skipped=skipped,
            recorded=True,
            num_microbatches=2,
            start_ns=start,
            end_ns=run.time_ns,
            peak_allocated_bytes=peak,
            peak_requested_bytes=peak,
            max_reserved_bytes=reserved,
            num_device_mallocs=62 if number == 1 else 0,
            host_rss_bytes=2 * GIB + number * MIB,
            end=_state(run.live, reserved),
            phases=tuple(run.phases),
        )
    )


def _unrecorded(number: int) -> StepResult:
    return StepResult(
        step=number,
        skipped=number == 7,
        recorded=False,
        num_microbatches=2,
        start_ns=None,
        end_ns=None,
        peak_allocated_bytes=None,
        peak_requested_bytes=None,
        max_reserved_bytes=None,
        num_device_mallocs=None,
        host_rss_bytes=None,
        end=None,
        phases=(),
    )


def _reserved(totals: list[int]) -> list[int]:
    """Return what a caching allocator would hold: never less than before, in pieces of 20 MiB."""
    reserved, most = [], 0
    for total in totals:
        most = max(most, -(-total // (20 * MIB)) * 20 * MIB)
        reserved.append(most)
    return reserved


def _state_fields(live: Mapping[str, int], reserved: int | None) -> dict[str, Any]:
    total = sum(live.values())
    exact = sum(live.get(name, 0) for name in ("parameter", "buffer", "gradient", "optimizer_state", "input"))
    unknown = live.get("unknown", 0)
    return {
        "allocated_bytes": total,
        "requested_bytes": total,
        "pending_free_bytes": 0,
        "reserved_bytes": reserved,
        "device_used_bytes": None if reserved is None else reserved + 512 * MIB,
        "non_torch_bytes": None if reserved is None else 512 * MIB,
        "by_category": {name: size for name, size in live.items() if size} | {"unknown": unknown},
        "by_decision": {"owner": exact, "lifetime_rule": total - exact - unknown, "unknown": unknown},
    }


def _state(live: Mapping[str, int], reserved: int | None) -> State:
    return State(**_state_fields(live, reserved))


def _peak(run: _Run, steps: range, *, events_from: int = 0) -> Peak:
    """Return the largest moment of some steps."""
    totals = [sum(live.values()) for live in run.curve]
    rows = [row for row in range(len(totals)) if run.places[row][0] in steps]
    row = max(rows, key=lambda row: totals[row])
    step, phase, module = run.places[row]
    place = {"time_ns": run.times[row], "step": step, "phase": phase, "module": module, "event": row + events_from}
    return Peak(**_state_fields(run.curve[row], _reserved(totals)[row]), **place)


def _timeline(run: _Run, gaps: tuple[tuple[int, int], ...]) -> Timeline:
    columns = {
        name: np.array([live.get(name, 0) for live in run.curve], dtype=np.int64) for name in run.curve[-1] if run.live
    }
    total = np.sum(list(columns.values()), axis=0, dtype=np.int64)
    return Timeline(
        event=np.arange(len(run.curve), dtype=np.int64),
        time_ns=np.array(run.times, dtype=np.int64),
        by_category=columns,
        requested_bytes=total,
        reserved_bytes=np.array(_reserved(total.tolist()), dtype=np.int64),
        allocated_bytes=total,
        gaps=gaps,
    )


def _modules(peak: Peak) -> tuple[ModuleRow, ...]:
    rows = [
        ModuleRow(
            module=None,
            num_bytes=peak.by_category["optimizer_state"] + peak.by_category["gradient"],
            num_allocations=444,
            by_category={name: peak.by_category[name] for name in ("optimizer_state", "gradient")},
        ),
        ModuleRow(
            module="head",
            num_bytes=LOGITS * 2,
            num_allocations=3,
            by_category={"activation": LOGITS, "temporary": LOGITS},
        ),
        ModuleRow(module="embedding", num_bytes=EMBEDDING, num_allocations=1, by_category={"parameter": EMBEDDING}),
    ]
    for layer in range(LAYERS):
        for part, share in (("attn.qkv", 3), ("attn.proj", 1), ("mlp.up", 4), ("mlp.down", 1), ("norm", 1)):
            activation, parameter = ACTIVATIONS * share // 10, LAYER_PARAMETERS * share // 10
            rows.append(
                ModuleRow(
                    module=f"blocks.{layer}.{part}",
                    num_bytes=activation + parameter,
                    num_allocations=2 + share,
                    by_category={"activation": activation, "parameter": parameter},
                )
            )
    return tuple(sorted(rows, key=lambda row: (-row.num_bytes, row.module or "")))


def _stacks() -> tuple[StackRow, ...]:
    torch = "/home/ada/env/lib/python3.11/site-packages/torch"
    own = "/home/ada/projects/tiny-gpt"
    calls = (
        ("nn/functional.py:3494 cross_entropy", f"{own}/model.py:141 loss", LOGITS * 2, "activation", 3),
        ("nn/modules/linear.py:134 forward", f"{own}/model.py:88 mlp", ACTIVATIONS * 5, "activation", 48),
        (
            "optim/adam.py:177 _init_group",
            f"{own}/train.py:212 main",
            2 * EMBEDDING + 24 * LAYER_PARAMETERS,
            "optimizer_state",
            296,
        ),
        (
            "nn/functional.py:6115 scaled_dot_product_attention",
            f"{own}/model.py:61 attend",
            ACTIVATIONS * 3,
            "activation",
            36,
        ),
        (
            "autograd/graph.py:841 _engine_run_backward",
            f"{own}/train.py:209 main",
            24 * LAYER_PARAMETERS,
            "gradient",
            148,
        ),
        ("nn/modules/module.py:1355 convert", f"{own}/train.py:180 main", 12 * LAYER_PARAMETERS, "parameter", 148),
        ("nn/modules/normalization.py:229 forward", f"{own}/model.py:97 forward", ACTIVATIONS, "activation", 25),
        ("_tensor.py:120 clone", f"{own}/data.py:33 batch", 37 * MIB, "unknown", 2),
    )
    rows = [
        StackRow(
            frames=(
                f"{torch}/{inner}",
                f"{torch}/nn/modules/module.py:1786 _call_impl",
                outer,
                f"{own}/train.py:240 <module>",
            ),
            num_bytes=num_bytes,
            num_allocations=allocations,
            category=category,
            by_category={category: num_bytes},
        )
        for inner, outer, num_bytes, category, allocations in calls
    ]
    return tuple(sorted(rows, key=lambda row: -row.num_bytes))


def gpt_rank(rank: int | None = None, *, device: str = "cuda:0") -> RankReport:
    """Return one rank of the made-up run: steps 1–3 and 500, with what lies between not recorded."""
    run = _Run()
    _setup(run)
    for number in (1, 2, 3):
        _step(run, number, skipped=number == 2)
    gap_start, run.time_ns = run.time_ns, run.time_ns + 300_000_000
    gap = (gap_start, run.time_ns)
    _step(run, 500)
    steps = (*run.steps[:3], *(_unrecorded(number) for number in range(4, 500)), run.steps[3])
    peak = _peak(run, range(1001))
    return RankReport(
        rank=rank,
        device=device,
        source="recorded",
        complete=True,
        num_events=2 * len(run.curve),
        num_allocations=len(run.curve),
        capacity_bytes=12 * GIB,
        peak=peak,
        first_step_peak=_peak(run, range(1, 2)),
        steady_state_peak=_peak(run, range(2, 1001)),
        end=_state(run.live, run.steps[-1].max_reserved_bytes),
        max_reserved_bytes=run.steps[-1].max_reserved_bytes,
        steps=steps,
        oom=None,
        timeline=_timeline(run, (gap,)),
        top_modules=_modules(peak),
        top_stacks=_stacks(),
        warnings=(
            Note(slug="outside-window", message="Steps 4 to 499 were outside the recording windows."),
            Note(
                slug="device-context",
                message="Memory of the CUDA context and of NCCL is not torch's, and is known only as a total.",
            ),
        ),
        facts={
            "command": ["python", "train.py", "--layers", "12"],
            "versions": {"python": "3.11.9", "torch": "2.13.0", "cuda": "13.0"},
            "optimizers": [{"class_name": "AdamW", "lr": 0.0003, "fused": False}],
            "allocator_settings": {"expandable_segments": False},
            "peak_host_rss_bytes": 2 * GIB + 3 * MIB,
        },
    )


def gpt_report() -> Report:
    """Return the made-up run in one process."""
    return Report(
        verdict="Peak 9.77 GiB in step 2, backward: 6.32 GiB of it is activations, kept for the backward pass.",
        ranks=(gpt_rank(),),
        findings=(),
        warnings=(),
        title="train.py · trace.json",
    )


def ranks_report(num_ranks: int = 4) -> Report:
    """Return the made-up run on several ranks, whose peaks differ, one of them incomplete and one without history."""
    ranks = [gpt_rank(rank, device=f"cuda:{rank}") for rank in range(num_ranks)]
    for index, rank in enumerate(ranks):
        extra = index * 120 * MIB
        by_category = dict(rank.peak.by_category) | {
            "communication": rank.peak.by_category.get("communication", 0) + extra
        }
        total = sum(by_category.values())
        peak = replace(rank.peak, allocated_bytes=total, requested_bytes=total, by_category=by_category)
        ranks[index] = replace(rank, peak=peak)
    ranks[-1] = snapshot_rank(ranks[-1])
    ranks[1] = replace(ranks[1], complete=False, oom=out_of_memory())
    missing = Note(
        slug="rank-missing", message="Rank 4 left no part: its process may have been killed before it began."
    )
    return replace(gpt_report(), ranks=tuple(ranks), warnings=(missing,), findings=(finding(),))


def snapshot_rank(rank: RankReport) -> RankReport:
    """Return a rank as a snapshot without history would give it: a state, and nothing over time."""
    fields: dict[str, Any] = {"time_ns": None, "step": None, "phase": None, "module": None, "event": None}
    none: dict[str, Any] = {"first_step_peak": None, "steady_state_peak": None, "timeline": None, "steps": ()}
    return replace(rank, source="snapshot", num_events=0, peak=replace(rank.peak, **fields), **none)


def out_of_memory() -> OomResult:
    """Return an out-of-memory that the recording saw."""
    return OomResult(
        step=500,
        phase="backward",
        module="head",
        time_ns=None,
        request_bytes=LOGITS,
        free_bytes=310 * MIB,
        reserved_unallocated_bytes=1800 * MIB,
        largest_free_block_bytes=900 * MIB,
        cause="fragmentation",
    )


def finding() -> Finding:
    """Return one piece of advice."""
    return Finding(
        slug="logits-in-float32",
        severity="warning",
        title="The loss holds the logits twice in float32",
        evidence={"logits_bytes": LOGITS, "copies": 2},
        change="compute the loss in chunks over the tokens",
        cost="a few lines in the loss",
        saves_bytes=LOGITS,
        saves_ns=None,
        new_peak_bytes=6 * GIB,
        rank=None,
        where={"file": "model.py", "line": 141, "function": "loss", "module": "head"},
    )


def hostile_report() -> Report:
    """Return a report in which every text is an attempt to be run."""
    rank, script = gpt_rank(0), HOSTILE[0]
    modules = tuple(
        ModuleRow(module=name, num_bytes=GIB - index, num_allocations=1, by_category={"activation": GIB - index})
        for index, name in enumerate(HOSTILE)
    )
    stacks = tuple(
        StackRow(
            frames=(f"{name}.py:1 {name}",),
            num_bytes=MIB,
            num_allocations=1,
            category="activation",
            by_category={"activation": MIB},
        )
        for name in HOSTILE
    )
    notes = tuple(Note(slug=name, message=name) for name in HOSTILE)
    rank = replace(
        rank,
        device=script,
        peak=replace(rank.peak, module=script, phase=HOSTILE[1]),
        top_modules=modules,
        top_stacks=stacks,
        warnings=notes,
        facts={name: name for name in HOSTILE},
        oom=replace(out_of_memory(), module=HOSTILE[1], cause=script),
    )
    hostile = replace(finding(), title=script, change=HOSTILE[1], slug=script, evidence={script: HOSTILE[1]})
    return Report(verdict=" ".join(HOSTILE), ranks=(rank, rank), findings=(hostile,), warnings=notes, title=script)
