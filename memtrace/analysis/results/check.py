"""What a check of a report against budgets and a baseline says: frozen dataclasses of plain ints. Bytes are ints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from memtrace.analysis.results.report import Note, StackRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """An upper limit for one figure of a report."""

    name: str
    """What is limited: a moment (`peak`, `end` …), a category, or both as `end.parameter`."""
    is_strict: bool
    """Whether the limit itself is too much (`<`); `=` and `<=` allow it."""
    limit_bytes: int
    """The most that passes."""

    @property
    def expression(self) -> str:
        """The budget in one spelling, with its limit in bytes.

        >>> Budget(name="peak", is_strict=False, limit_bytes=1024).expression
        'peak<=1024'
        """
        return f"{self.name}{'<' if self.is_strict else '<='}{self.limit_bytes}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetResult:
    """One budget held against every rank; the figures are those of the rank that needs most."""

    budget: Budget
    """The limit."""
    passed: bool
    """Whether no rank needs more."""
    value_bytes: int
    """The figure of that rank."""
    exact_bytes: int | None
    """Of a category: the bytes that an owner or a hook decided, the rest is inferred. `None` for a whole moment."""
    measures: str
    """allocated, requested or reserved."""
    rank: int | None
    """Its number; `None` where the file holds no rank."""
    device: str
    """Its device, as "cuda:0"."""
    num_ranks: int
    """Ranks (and devices) that were looked at."""
    num_over: int
    """Those of them that break the budget."""
    predicted: bool
    """Whether the figure was computed rather than recorded."""
    low_bytes: int | None
    """Of a predicted figure: where it lies if what was assumed turns out in favour."""
    high_bytes: int | None
    """The same, if it turns out against."""
    largest: tuple[StackRow, ...]
    """Of a broken budget for the peak, or for a category there: the stacks that hold most, largest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeResult:
    """One figure of one rank beside that of the baseline."""

    name: str
    """peak, reserved, steady_peak, leak (bytes a step), or a category at the peak."""
    rank: int | None
    """Its number; `None` where the file holds no rank."""
    device: str
    """As "cuda:0"."""
    gates: bool
    """Whether the check fails by it; else it informs: a lower peak may be made of more of something."""
    baseline_bytes: int
    """The figure of the baseline."""
    value_bytes: int
    """The figure of this run."""
    delta_bytes: int
    """Value less baseline."""
    limit_bytes: int
    """Growth that the tolerance allows: its share of the baseline's figure, of a category that of its peak."""
    passed: bool
    """Whether it grew by no more than is allowed."""
    fell: bool
    """Whether it fell by more than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrownStack:
    """A stack that holds more at the peak than it did in the baseline."""

    frames: tuple[str, ...]
    """The program's own, as "file:line function", innermost first."""
    delta_bytes: int
    """How much more than in the baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineResult:
    """A report beside that of a baseline."""

    title: str
    """What was read as the baseline."""
    tolerance_pct: float
    """Allowed growth, of the figure of the baseline."""
    verdict: str
    """WORSE where a figure that gates grew too much, else BETTER where the peak fell by more than that, else SAME."""
    changes: tuple[ChangeResult, ...]
    """Of every rank what gates, the peak first, then each category at the peak; the rank that peaks highest first."""
    grown: tuple[GrownStack, ...]
    """Where the check against the baseline failed: what grew most in the first rank that failed, largest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The answer to "does this run keep its budgets?"."""

    title: str
    """What was read."""
    passed: bool
    """Whether everything that was asked passed."""
    budgets: tuple[BudgetResult, ...]
    """In the order asked for."""
    baseline: BaselineResult | None
    """`None` where no baseline was given."""
    problems: tuple[str, ...]
    """Reasons to fail whatever the figures say: the run ended out of memory, ranks are missing. A sentence each."""
    notes: tuple[Note, ...]
    """What was not seen: the figures are as complete as these say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnStack:
    """What one stack holds at the peak of a recording's own allocations."""

    frames: tuple[str, ...]
    """The program's own, as "file:line function", innermost first; empty where no stack was recorded."""
    num_bytes: int
    """Bytes live at that peak."""
    num_allocations: int
    """Allocations live at that peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPeak:
    """The most that a recording's own allocations come to at one moment, without what was there before."""

    num_bytes: int
    """Bytes at the moment when they are most."""
    measures: str
    """allocated (whole blocks) where they are known, else requested."""
    by_category: Mapping[str, int]
    """Bytes at that moment, the largest category first."""
    exact_by_category: Mapping[str, int]
    """Those of them that an owner or a hook decided; the rest is inferred or unknown."""
    stacks: tuple[OwnStack, ...]
    """Bytes at that moment by stack, the largest first."""
