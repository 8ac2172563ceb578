"""What a comparison of two reports says: frozen dataclasses of plain ints. Differences are B less A; bytes are ints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from memtrace.analysis.results.report import IntArray, Peak


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDiff:
    """Peaks of one step in both; a side that has no such step, or did not record it, is `None`."""

    step: int
    """Its number."""
    a_bytes: int | None
    """Peak in A."""
    b_bytes: int | None
    """Peak in B."""
    delta_bytes: int | None
    """`None` where a side is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDiff:
    """Bytes live at the peaks under one name."""

    name: str | None
    """Category, or path of a module (`None` outside any)."""
    a_bytes: int
    """Bytes in A."""
    b_bytes: int
    """Bytes in B."""
    delta_bytes: int
    """B less A."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackDiff:
    """Bytes live at the peaks that one stack allocated."""

    frames: tuple[str, ...]
    """As "file:line function", innermost first; the lines are those of B where the code has moved."""
    a_bytes: int
    """Bytes in A."""
    b_bytes: int
    """Bytes in B."""
    delta_bytes: int
    """B less A."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepCurve:
    """Memory of one side over its steps: step 2, half way through, is 2.5 on the axis."""

    steps: tuple[float, ...]
    """Places on the axis, ascending."""
    num_bytes: IntArray
    """Bytes at each of them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankDiff:
    """One rank and device of A beside the same of B."""

    rank: int | None
    """Its number; `None` where the file holds no rank."""
    device_a: str
    """Device of A, as "cuda:0"."""
    device_b: str
    """Device of B."""
    peak_a: Peak
    """The peak of A."""
    peak_b: Peak
    """The peak of B."""
    peak_a_bytes: int | None
    """Allocated bytes, requested ones where a side does not know them: the same kind on both sides."""
    peak_b_bytes: int | None
    """The same of B."""
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
    """One entry a step that either has."""
    reserved_a_bytes: int | None
    """Most reserved in A; `None` where not recorded."""
    reserved_b_bytes: int | None
    """Most reserved in B; `None` where not recorded."""
    steady_a_bytes: int | None
    """Recorded peak of the steps after the first in A, of the kind that `compares` says; `None` where there is none."""
    steady_b_bytes: int | None
    """The same of B."""
    leak_a_bytes: int
    """What piles up a step in A; 0 where no leak was found."""
    leak_b_bytes: int
    """The same of B."""
    curve_a: StepCurve | None
    """`None` without steps or a history."""
    curve_b: StepCurve | None
    """The same of B."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Diff:
    """Two reports side by side."""

    title_a: str
    """What A is called."""
    title_b: str
    """What B is called."""
    verdict: str
    """What changed, in one sentence."""
    ranks: tuple[RankDiff, ...]
    """The main one first."""
    only_in_a: tuple[str, ...]
    """Ranks and devices, as "rank 3 cuda:0", that B does not have."""
    only_in_b: tuple[str, ...]
    """The same of B."""
