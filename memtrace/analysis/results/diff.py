"""What a comparison of two reports says: frozen dataclasses of plain ints. Differences are B less A; bytes are ints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from memtrace.analysis.results.report import IntArray, Peak


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDiff:
    """Peaks of one step in both; a side that has no such step, or did not record it, is `None`."""

    step: int
    a_bytes: int | None
    b_bytes: int | None
    delta_bytes: int | None
    """`None` where a side is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDiff:
    """Bytes live at the peaks under one name."""

    name: str | None
    """Category, or path of a module (`None` outside any)."""
    a_bytes: int
    b_bytes: int
    delta_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StackDiff:
    """Bytes live at the peaks that one stack allocated."""

    frames: tuple[str, ...]
    """As "file:line function", innermost first; the lines are those of B where the code has moved."""
    a_bytes: int
    b_bytes: int
    delta_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepCurve:
    """Memory of one side over its steps: step 2, half way through, is 2.5 on the axis."""

    steps: tuple[float, ...]
    num_bytes: IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankDiff:
    """One rank and device of A beside the same of B."""

    rank: int | None
    device_a: str
    device_b: str
    peak_a: Peak
    peak_b: Peak
    peak_a_bytes: int | None
    """Allocated bytes, requested ones where a side does not know them: the same kind on both sides."""
    peak_b_bytes: int | None
    compares: str
    """requested or allocated."""
    delta_by_category: Mapping[str, int]
    """Requested bytes at the two peaks; only categories that differ."""
    categories: tuple[NamedDiff, ...]
    """Every category of either side, largest difference first."""
    modules: tuple[NamedDiff, ...]
    """Those that differ, largest difference first."""
    stacks: tuple[StackDiff, ...]
    """Those that differ, largest difference first."""
    steps: tuple[StepDiff, ...]
    reserved_a_bytes: int | None
    reserved_b_bytes: int | None
    curve_a: StepCurve | None
    """`None` without steps or a history."""
    curve_b: StepCurve | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Diff:
    """Two reports side by side."""

    title_a: str
    title_b: str
    verdict: str
    """What changed, in one sentence."""
    ranks: tuple[RankDiff, ...]
    """The main one first."""
    only_in_a: tuple[str, ...]
    """Ranks and devices, as "rank 3 cuda:0", that B does not have."""
    only_in_b: tuple[str, ...]
