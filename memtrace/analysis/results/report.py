"""What analysis returns and reports draw: frozen dataclasses of plain ints and small arrays. Bytes are ints, times ns.

`None` is "not recorded" or "cannot be known without the allocator model"; never 0 and never -1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from memtrace.analysis.results.card import Card
from memtrace.analysis.results.communication import CommunicationResult
from memtrace.analysis.results.diagnosis import FragmentationMoment as FragmentationMoment
from memtrace.analysis.results.diagnosis import FragmentationResult as FragmentationResult
from memtrace.analysis.results.diagnosis import Keeper as Keeper
from memtrace.analysis.results.diagnosis import Leak as Leak
from memtrace.analysis.results.diagnosis import PoolState as PoolState
from memtrace.analysis.results.diagnosis import Resident as Resident
from memtrace.analysis.results.diagnosis import StepNeeds as StepNeeds
from memtrace.analysis.results.ranks import RankFacts, RanksResult
from memtrace.analysis.results.step_times import StepTimes
from memtrace.analysis.results.time import TimeResult, TimeTracks

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Memory of one device at one moment."""

    allocated_bytes: int | None
    """Whole blocks in use; equals requested on the CPU; `None` where it needs the allocator model."""
    requested_bytes: int | None
    """Bytes asked for, over blocks in use; `by_category` and `by_decision` each add up to it."""
    pending_free_bytes: int | None
    """Blocks freed by the program but awaiting another stream; in neither of the two."""
    reserved_bytes: int | None
    """Bytes of all segments; `None` on the CPU, which has none."""
    device_used_bytes: int | None
    """What the driver reports as used on the device."""
    non_torch_bytes: int | None
    """Device used less reserved: context, communication library, other processes."""
    by_category: Mapping[str, int]
    """Requested bytes by category name; `unknown` is always there."""
    by_decision: Mapping[str, int]
    """Requested bytes by how the category was decided."""
    exact_by_category: Mapping[str, int] = field(default_factory=dict)
    """Of `by_category`, the bytes that an owner or a hook decided; the rest is inferred or unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak(State):
    """The moment of largest allocated bytes (requested, where allocated is `None`) in a stated window."""

    time_ns: int | None
    """Unix time; `None` where there is no history."""
    step: int | None
    """Step; 0 is before training began."""
    phase: str | None
    """Phase name."""
    module: str | None
    """Innermost module scope."""
    event: int | None
    """Row of the events table at which it was reached."""
    predicted: bool = False
    """Whether it was computed rather than recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedPeak(Peak):
    """The steady-state peak computed from the first step, where no later step was recorded to its end.

    Its decisions never count as exact: what is repeated may come out differently.
    """

    low_bytes: int
    """The peak if what was assumed turns out in favour."""
    high_bytes: int
    """The peak if it turns out against."""
    assumptions: tuple[str, ...]
    """What was assumed, a sentence each."""
    needed_bytes: int
    """What the device must have for it: the peak, what the allocator held beside it, and memory that is not torch's."""
    capacity_bytes: int | None
    """What the device has."""
    fits: bool | None
    """Whether it fits; `None` where capacity is not known, or lies within the doubt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstStepEffect:
    """Something that makes the first step different from those after it."""

    slug: str
    """Stable name."""
    title: str
    """One line for people."""
    num_bytes: int | None
    """Bytes that it makes a difference of; `None` where it is not measured in bytes."""
    stays: bool | None
    """Whether later steps keep the bytes; `None` where that is not known."""
    evidence: Mapping[str, Any]
    """Numbers of this very trace, and stack or module where known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseResult:
    """One phase of a step."""

    phase: str
    """As "forward"."""
    microbatch: int
    """Its number in the step."""
    start_ns: int
    """When it began."""
    end_ns: int | None
    """When it ended; `None` where it did not."""
    peak_allocated_bytes: int | None
    """Largest allocated bytes within it; requested bytes where allocated cannot be known is not put here."""
    peak_requested_bytes: int | None
    """Largest requested bytes within it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """What evaluation (validation, sampling) needs beside training."""

    peak: Peak
    """The largest moment while the program evaluated."""
    batch: int | None
    """Samples in the forward of that moment; `None` where not known."""
    num_stretches: int
    """How often it was evaluated, as far as that was recorded."""
    training_peak: Peak | None
    """The largest moment outside evaluation since training began; `None` where nothing of that was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedBytes:
    """What the owners of one category hold at the end of a step."""

    category: str
    """parameter, buffer, gradient or optimizer_state."""
    storage_bytes: int
    """Bytes of their storages, each once."""
    tensor_bytes: int
    """Bytes of the tensors themselves (numel × itemsize); the rest is padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One step."""

    step: int
    """Its number."""
    skipped: bool
    """Whether a gradient scaler skipped it."""
    recorded: bool
    """Whether its events are in the trace; without them the memory fields are `None`."""
    num_microbatches: int
    """Forward and backward passes whose gradients are added up for one optimizer step."""
    start_ns: int | None
    """When it began; `None` where not recorded."""
    end_ns: int | None
    """`None` where the step did not end."""
    peak_allocated_bytes: int | None
    """Peak of whole blocks in use; `None` where not known."""
    peak_requested_bytes: int | None
    """Peak of bytes asked for; `None` where not known."""
    max_reserved_bytes: int | None
    """Most that was reserved; `None` where not known."""
    num_device_mallocs: int | None
    """Segments taken from the device in this step."""
    host_rss_bytes: int | None
    """Resident host memory at its end."""
    high_water_bytes: int | None = None
    """The allocator's own mark of the step, recorded or not; `None` where it has none, or where that did not rise."""
    peak_host_rss_bytes: int | None = None
    """The largest resident host memory there ever was, where it rose in the step."""
    end: State | None
    """After its last optimizer step, before the next forward."""
    phases: tuple[PhaseResult, ...]
    """In order of time."""
    owned: tuple[OwnedBytes, ...] = ()
    """What owners hold at its end; empty where nobody looked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrecorded:
    """Steps that were not recorded, and whether one of them needed more than all that were."""

    num_steps: int
    """How many they are."""
    num_marked: int
    """Of these, those with a high-water mark."""
    higher_step: int | None
    """That with the highest mark, if it is higher than any peak that was recorded."""
    higher_bytes: int | None
    """That mark."""
    host_step: int | None
    """Without marks: that in which the host's memory was clearly highest, the process as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackRow:
    """Bytes live at the peak that one stack allocated."""

    frames: tuple[str, ...]
    """Frames as "file:line function", innermost first."""
    num_bytes: int
    """Bytes live."""
    num_allocations: int
    """Allocations live."""
    category: str
    """The category that most of its bytes are of."""
    by_category: Mapping[str, int]
    """Bytes of each category among them: a line may have made parameters and gradients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRow:
    """Bytes live at the peak that were allocated inside one module (and not inside a module of it)."""

    module: str | None
    """Path of the module; `None` for bytes allocated outside any module scope."""
    num_bytes: int
    """Bytes live."""
    num_allocations: int
    """Allocations live."""
    by_category: Mapping[str, int]
    """Bytes of each category among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationPart:
    """A part of the activations."""

    name: str | None
    """Role, path of a module, operation, or number of a microbatch; `None` for those that have none."""
    num_bytes: int
    """Bytes live."""
    exact_bytes: int
    """Those of them that autograd was seen to keep; the rest is inferred."""
    num_allocations: int
    """Allocations live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationSplit:
    """Activations live at one moment, split four ways; each way adds up to `num_bytes`. Largest parts first."""

    num_bytes: int
    """Bytes of all activations."""
    by_role: tuple[ActivationPart, ...]
    """saved (kept for backward), output (logits, loss) or recomputed; `None` where that is not known."""
    by_module: tuple[ActivationPart, ...]
    """Innermost module that made them; `None` outside any."""
    by_op: tuple[ActivationPart, ...]
    """Class of the autograd node that keeps them, as "AddmmBackward0"; `None` where none was seen to."""
    by_microbatch: tuple[ActivationPart, ...]
    """Number of the microbatch in its step, from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedForBackward:
    """What is kept for a backward when it begins, by distinct storage, without parameters, buffers and inputs."""

    step: int
    """Number of the step."""
    microbatch: int
    """Number of the micro-batch in it."""
    start_ns: int
    """Unix time at which the backward began."""
    saved_bytes: int
    """Activations that autograd, or checkpointing, keeps for it."""
    inferred_bytes: int
    """Those of them that were told by their lifetimes only."""
    output_bytes: int
    """Activations that are live although nothing keeps them for backward: logits, loss."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timeline:
    """Memory over time, thinned for drawing so that every minimum and maximum that a pixel would show is kept."""

    event: IntArray
    """Row of the events table after which the values hold, ascending."""
    time_ns: IntArray
    """Unix time of that event."""
    by_category: Mapping[str, IntArray]
    """Requested bytes by category; only categories with bytes."""
    requested_bytes: IntArray
    """Sum of `by_category`."""
    reserved_bytes: IntArray | None
    """Bytes of all segments; `None` on the CPU."""
    allocated_bytes: IntArray | None = None
    """Whole blocks; `None` where it needs the allocator model."""
    gaps: tuple[tuple[int, int], ...] = ()
    """Stretches of time (start, end in ns) in which nothing was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AddressRange:
    """A stretch of addresses without a gap, and where it lies on an axis from which the gaps are taken out."""

    address: int
    """Where it starts."""
    size_bytes: int
    """How long it is."""
    place_bytes: int
    """Position of its first byte on the axis."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentSpans:
    """What was reserved when: one row a segment, or a piece of an expandable one, for as long as it was there."""

    start: IntArray
    """Moment from which it is there."""
    end: IntArray
    """First moment at which it is not; the number of moments if it stays."""
    address: IntArray
    """Where each starts."""
    size_bytes: IntArray
    """Bytes of each."""
    place_bytes: IntArray
    """Position on the address axis."""
    segment: IntArray
    """Row of the final segment that it lies in; -1 where it was given back before the end."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentFact:
    """What a final snapshot says of one segment."""

    stream: int
    """Number of its stream."""
    pool: str
    """small or large, and the id of a private pool."""
    is_expandable: bool
    """Whether it can grow."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AllocationMap:
    """Every allocation of one device, for viewers: when it lived, where, what it is for, and who asked for it.

    Rows are in the order of `start`, then address: the order in which a stack of allocations is built. Moments are
    those of the device: the start of the history, then one after each event.
    """

    num_moments: int
    """Moments of the history."""
    event: IntArray
    """For each moment the row of its event; -1 before the first."""
    time_ns: IntArray | None
    """For each moment its Unix time; `None` where times were not recorded."""
    start: IntArray
    """Moment at which each begins."""
    in_use_end: IntArray
    """First moment at which it is not in use any more; the number of moments if it stays."""
    end: IntArray
    """First moment at which its block is free again."""
    is_initial: npt.NDArray[np.bool_]
    """Whether it was live before the recording."""
    size_bytes: IntArray
    """Requested bytes."""
    block_bytes: IntArray | None
    """Bytes of its whole block; `None` without the allocator model."""
    address: IntArray
    """Where each lies."""
    place_bytes: IntArray
    """Position on the address axis."""
    category: npt.NDArray[np.int8]
    """Index into `categories`."""
    decision: npt.NDArray[np.int8]
    """Index into `decisions`."""
    stack: IntArray
    """Index into `stack_frame`; -1 where it was not recorded."""
    module: IntArray
    """Index into `modules`; -1 outside any."""
    owner: IntArray
    """Index into `owners`; -1 where none is known."""
    saved: IntArray
    """Index into `saved_for`; -1 where autograd did not keep it."""
    step: IntArray
    """Step in which it was allocated, 0 before training; -1 where not known."""
    base_bytes: IntArray
    """For each of `epoch_start`, bytes that were live before and that no known block makes up."""
    epoch_start: IntArray
    """First moment of each stretch without a gap."""
    stack_frame: IntArray
    """For each stack the index of its innermost frame."""
    stack_parent: IntArray
    """For each stack the index of the stack around its innermost frame; -1 for none."""
    frames: tuple[str, ...]
    """As "file:line function"."""
    categories: tuple[str, ...]
    """Names of categories, by number."""
    decisions: tuple[str, ...]
    """Names of decisions, by number."""
    modules: tuple[str, ...]
    """Names of modules, by number."""
    owners: tuple[tuple[str, str | None, str | None], ...]
    """Name, dtype and shape."""
    saved_for: tuple[tuple[str, str | None, str | None], ...]
    """Operation whose backward needs it, dtype and shape."""
    ranges: tuple[AddressRange, ...]
    """The address axis."""
    segments: SegmentSpans
    """Empty on the CPU."""
    segment_facts: tuple[SegmentFact, ...]
    """By `segments.segment`."""
    peaks: Mapping[str, int]
    """Moments of `peak`, `first_step_peak`, `steady_state_peak`, those that exist."""
    spans: tuple[tuple[int, int, str, str], ...]
    """First moment, last moment, lane (step or phase) and name of what was going on, by first moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OomResult:
    """An out-of-memory: recorded, or what would have happened on a device of a given capacity."""

    step: int | None
    """Number of the step; `None` where not known."""
    phase: str | None
    """As "forward"; `None` where not known."""
    module: str | None
    """Path of the module; `None` where not known."""
    time_ns: int | None
    """When it happened; `None` where not known."""
    request_bytes: int | None
    """What was asked for; of a predicted one `None` if more was in use already when the history began."""
    free_bytes: int | None
    """Free on the device; of a predicted one what its capacity leaves, were nothing else on it."""
    reserved_unallocated_bytes: int | None
    """Reserved, in no block in use; `None` where not known."""
    largest_free_block_bytes: int | None
    """Largest free block; `None` where not known."""
    cause: str | None
    """capacity or fragmentation; `None` where it cannot be told."""
    predicted: bool = False
    """Whether the run went on, and a device of `capacity_bytes` would have failed here."""
    capacity_bytes: int | None = None
    """Memory of the device."""
    in_use_bytes: int | None = None
    """Allocated bytes just before, requested bytes where those are not known."""
    high_water_bytes: int | None = None
    """Of a step that was not recorded, its high-water mark: all that is known of it."""
    reserved_bytes: int | None = None
    """Bytes of all segments at the failure."""
    non_torch_bytes: int | None = None
    """What others hold: capacity less free and reserved bytes."""
    where: Mapping[str, Any] | None = None
    """file, line, function and module of the request."""
    needs: StepNeeds | None = None
    """The step before: what it needed, what it left, and what the failed one needs for it."""
    missing_bytes: int | None = None
    """What is too little: of the failed request; of a predicted failure up to the peak of the step that fails."""
    explanation: tuple[str, ...] = ()
    """Why, in sentences that follow from one another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One ordered piece of advice, with numbers from this very trace."""

    slug: str
    """Stable name, as in docs."""
    severity: str
    """error, warning or info."""
    title: str
    """One line for people."""
    evidence: Mapping[str, Any]
    """Figures it rests on, by name."""
    change: str
    """What to do."""
    cost: str
    """What that costs."""
    saves_bytes: int | None
    """Bytes off the peak; `None` where not known."""
    saves_ns: int | None
    """Time off a step; `None` where not known."""
    new_peak_bytes: int | None
    """The peak with the change; `None` where not known."""
    rank: int | None
    """Its number; `None` where the file holds no rank."""
    where: Mapping[str, Any] | None
    """file, line, function, module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A warning or something that was not seen."""

    slug: str
    """Stable name."""
    message: str
    """One line for people."""
    count: int = 1
    """How often it was seen."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankReport:
    """What one rank's trace says about one device."""

    rank: int | None
    """Its number; `None` where the file holds no rank."""
    device: str
    """As "cuda:0"."""
    source: str
    """recorded, snapshot, kineto or predicted."""
    complete: bool
    """Whether the recording ended as it should."""
    num_events: int
    """Events recorded."""
    num_allocations: int
    """Allocations made of them."""
    capacity_bytes: int | None
    """Total memory of the device."""
    peak: Peak
    """The largest moment."""
    first_step_peak: Peak | None
    """The largest moment of the first step; `None` without one."""
    steady_state_peak: Peak | None
    """The largest moment of the steps after it; `None` without one."""
    end: State
    """State after the last event."""
    max_reserved_bytes: int | None
    """Most that was reserved; `None` where not known."""
    steps: tuple[StepResult, ...]
    """In order."""
    unrecorded: Unrecorded | None = None
    """What is known of steps that were not recorded; `None` where all were."""
    oom: OomResult | None
    """The out-of-memory; `None` where there was none."""
    timeline: Timeline | None
    """`None` where there is no history."""
    top_modules: tuple[ModuleRow, ...]
    """By bytes live at the peak, largest first; the whole list."""
    top_stacks: tuple[StackRow, ...]
    """By bytes live at the peak, largest first."""
    warnings: tuple[Note, ...]
    """What was not seen, and what went wrong while recording or reading."""
    program_lines: tuple[str, ...] = ()
    """Lines of the program's own that led to anything recorded, as frames of `top_stacks` are written."""
    evaluation: EvaluationResult | None = None
    """What evaluation needs; `None` where none was recorded."""
    activations: ActivationSplit | None = None
    """Activations at the peak; `None` where nothing is known to be one."""
    saved_for_backward: tuple[SavedForBackward, ...] = ()
    """By backward, in order."""
    steady_minus_first: Mapping[str, int] | None = None
    """Steady-state peak less first-step peak, requested bytes by category; `None` without both."""
    first_step_effects: tuple[FirstStepEffect, ...] = ()
    """What makes the first step different, the largest first."""
    leaks: tuple[Leak, ...] = ()
    """What grows from step to step, the fastest first."""
    fragmentation: FragmentationResult | None = None
    """What could not be used of what was reserved; `None` where nothing tells."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Header facts worth showing: versions, optimizers, world size, exception."""
    allocation_map: AllocationMap | None = None
    """Every allocation; `None` unless asked for, and where nothing is known of any."""
    map_left_out: bool = False
    """Whether every allocation was asked for, and this rank is one of those that there is no room for."""
    time: TimeResult | None = None
    """Where the GPU time of the rank goes, at one of its devices; `None` where no GPU activity was recorded."""
    time_tracks: TimeTracks | None = None
    """When the GPU did what, for viewers; beside `time`, and only where the allocations were asked for too."""
    step_times: StepTimes | None = None
    """Steps by the program's own clock, at one device of a recorded rank."""
    communication: CommunicationResult | None = None
    """What the rank exchanges with others, at one of its devices; `None` where nothing of the kind was recorded."""
    rank_facts: RankFacts | None = None
    """What it holds of each parameter, for comparison with other ranks; `None` where no owner was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """The whole report of one or more traces."""

    verdict: str
    """One sentence: peak, when, what it is made of, or why the run died."""
    ranks: tuple[RankReport, ...]
    """One entry a rank and device."""
    findings: tuple[Finding, ...]
    """Most important first."""
    warnings: tuple[Note, ...]
    """Ranks or files that are missing or could not be read."""
    title: str
    """What was read, for headings."""
    main_rank: int | None = None
    """Position in `ranks` of the one that the verdict is about."""
    next_commands: tuple[str, ...] = ()
    """Commands that show more of this very trace, the most useful first."""
    ranks_overview: RanksResult | None = None
    """The ranks beside each other; `None` where the run had one."""
    card: Card | None = None
    """What ten seconds of reading must tell; `None` only while the report is being put together."""
