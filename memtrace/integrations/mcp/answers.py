"""What the tools answer: one type a tool. Bytes and times (ns) are whole numbers; null is "not recorded", never 0.

The line under a field goes to the agent, as the description of the field in the tool's schema.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True, extra="forbid")


class Bounded(Answer):
    """An answer that says what it leaves out."""

    left_out: list[str] = []
    """What was left out to keep the answer short, and how to ask for it; empty if nothing was."""


class Memory(Answer):
    """Memory of a device at a moment."""

    allocated_bytes: int | None
    """Whole blocks in use, as torch.cuda.memory_allocated; null where it cannot be known."""
    requested_bytes: int | None
    """Bytes that the program asked for, over blocks in use."""
    reserved_bytes: int | None
    """Bytes that the allocator has taken from the device; null on the CPU."""
    by_category: dict[str, int]
    """Requested bytes by what they are for; "unknown" is unattributed."""
    exact_by_category: dict[str, int]
    """Of by_category, what an owner or a hook told; the rest is inferred."""
    step: int | None = None
    """Step of the moment; 0 is before training began."""
    phase: str | None = None
    module: str | None = None
    predicted: bool = False
    """Whether the moment was computed rather than recorded."""


class Note(Answer):
    """Something that was not seen, or that went wrong while recording or reading."""

    slug: str
    """Its entry in docs/messages.md."""
    message: str
    count: int


class OutOfMemory(Answer):
    """Where and why the run ran out of memory."""

    step: int | None
    phase: str | None
    module: str | None
    request_bytes: int | None
    free_bytes: int | None
    """Free on the device at that moment."""
    cause: str | None
    """capacity or fragmentation."""
    predicted: bool
    """Whether the run went on, and a device of the capacity asked about would have failed."""
    explanation: list[str]


class RankSummary(Answer):
    """One rank on one device."""

    rank: int | None
    """null outside a distributed run."""
    device: str
    source: str
    """recorded, snapshot, kineto or predicted."""
    complete: bool
    """Whether the recording ended in order."""
    capacity_bytes: int | None
    """Total memory of the device."""
    num_events: int
    num_steps: int
    peak: Memory
    first_step_peak: Memory | None
    steady_state_peak: Memory | None
    """From step 2 on."""
    end: Memory
    """After the last event."""
    max_reserved_bytes: int | None
    oom: OutOfMemory | None


class FindingLine(Answer):
    """A finding in one line."""

    slug: str
    severity: str
    title: str
    saves_bytes: int | None


class Summary(Bounded):
    """A whole run."""

    title: str
    verdict: str
    """The run in one sentence."""
    ranks: list[RankSummary]
    """The one that the verdict is about first."""
    findings: list[FindingLine]
    """What to change, the most important first."""
    not_seen: list[Note]
    """What the figures lack."""
    next_commands: list[str]
    """Commands for a shell that show more."""


class Where(Answer):
    """A place in the program."""

    file: str | None = None
    line: int | None = None
    function: str | None = None
    module: str | None = None


class Finding(Answer):
    """Advice, with numbers of this very run."""

    slug: str
    """Its entry in docs/messages.md."""
    severity: str
    """error (ends the run), warning (waste) or info (a trade)."""
    title: str
    change: str
    """What to change."""
    cost: str
    """What the change costs."""
    saves_bytes: int | None
    saves_ns: int | None
    new_peak_bytes: int | None
    """The peak with this change alone."""
    rank: int | None
    where: Where | None
    evidence: dict[str, Any]


class Findings(Bounded):
    """What to change in a run."""

    num_findings: int
    findings: list[Finding]
    """The most important first."""


class Module(Answer):
    """Bytes that were allocated inside one module, and not inside a module of it."""

    module: str | None
    """Path of the module; null for bytes allocated outside any."""
    num_bytes: int
    num_allocations: int
    by_category: dict[str, int]


class Stack(Answer):
    """Bytes that one stack allocated."""

    frames: list[str]
    """The program's own frames as "file:line function", innermost first; empty where none was recorded."""
    num_bytes: int
    num_allocations: int
    category: str
    """What most of its bytes are for."""
    by_category: dict[str, int]


class Peak(Bounded):
    """What a device held at one moment, largest first."""

    moment: str
    rank: int | None
    device: str
    memory: Memory
    modules: list[Module]
    stacks: list[Stack]
    remark: str | None
    """Why modules or stacks are missing, where they are."""


class Change(Answer):
    """Bytes at the peaks of two runs under one name."""

    name: str | None
    """Category, module (null outside any) or number of a step."""
    a_bytes: int | None
    b_bytes: int | None
    delta_bytes: int | None
    """B less A; null where a side is missing."""


class StackChange(Answer):
    """Bytes that one stack allocated, at the peaks of two runs."""

    frames: list[str]
    a_bytes: int
    b_bytes: int
    delta_bytes: int


class Diff(Bounded):
    """Two runs side by side; differences are B less A, the largest first."""

    verdict: str
    rank: int | None
    device_a: str
    device_b: str
    compares: str
    """Whether the peaks are allocated or requested bytes."""
    peak: Change
    categories: list[Change]
    modules: list[Change]
    stacks: list[StackChange]
    steps: list[Change]
    """Peaks of steps."""
    only_in_a: list[str]
    """Ranks that B does not have."""
    only_in_b: list[str]


class WhatIfRow(Answer):
    """One configuration."""

    name: str
    peak_allocated_bytes: int
    max_reserved_bytes: int
    wasted_bytes: int
    """Largest reserved less largest allocated bytes."""
    num_device_mallocs: int
    num_alloc_retries: int
    fits: bool
    capacity_bytes: int | None
    oom: str | None
    """Which request fails, where one does."""
    is_model: bool
    """false for the recording itself."""


class WhatIfOfDevice(Answer):
    """One device under several configurations."""

    rank: int | None
    device: str
    reproduced: str
    """How far the model reproduces the recording: how much to trust the rows."""
    rows: list[WhatIfRow]
    """The first is the recording itself."""
    advice: str | None


class WhatIf(Bounded):
    """A recording under other settings, capacities and sizes."""

    as_cuda: bool
    """Whether a recording of the CPU was put through the model of a GPU's allocator."""
    devices: list[WhatIfOfDevice]


class FixRung(Answer):
    """A set of changes, and what the run would need with it."""

    title: str
    """The changes in words."""
    recompute: list[str]
    """Modules whose activations are computed again in backward, by path."""
    peak_bytes: int
    reserved_bytes: int
    slowdown: float | None
    """Share by which a step takes longer; null where times were not recorded."""
    fits: bool


class Fix(Bounded):
    """What would make a recorded run fit, as far as its trace tells; nothing was run."""

    verdict: str
    budget_bytes: int
    fits: bool
    """Whether one of the rungs fits."""
    rungs: list[FixRung]
    """The run as it is, and the cheapest choice of modules."""
    code: str | None
    """What to write into the program."""
    left_as_they_are: dict[str, str]
    """Modules that cannot be computed again, and why."""
    notes: list[str]


class Budget(Answer):
    """One limit, held against every rank; the figures are those of the rank that needs most."""

    expression: str
    passed: bool
    value_bytes: int
    limit_bytes: int
    exact_bytes: int | None
    """Of a category: the bytes that are not inferred."""
    rank: int | None
    device: str
    num_over: int
    """Ranks that break it."""
    predicted: bool


class Check(Bounded):
    """Whether a run keeps its budgets, and what a baseline needed."""

    passed: bool
    verdict: str
    budgets: list[Budget]
    baseline: list[Change]
    """Peak and categories of the baseline (a) and of the run (b); those that grew too much first."""
    grew_too_much: list[str]
    """Names of the changes beyond the tolerance."""
    problems: list[str]
    not_seen: list[Note]
