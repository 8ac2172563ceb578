"""What `memtrace fix` finds: frozen dataclasses of plain values. Bytes are ints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from memtrace.schema.changes import Changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one run needs."""

    fits: bool
    """Whether no request fails within the budget."""
    peak_bytes: int
    """Largest allocated bytes."""
    reserved_bytes: int
    """Largest reserved bytes; on the CPU, which reserves nothing, the peak."""
    step_s: float | None
    """Seconds of a step: measured, or what the operators would take on the GPU; `None` where no second step was run."""
    by_category: Mapping[str, int]
    """Bytes by category at the peak."""
    losses: tuple[tuple[str, ...], ...] = ()
    """What each backward began from, exactly; empty where nothing was computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A line of the program that makes an optimizer, or fills gradients with zeros."""

    path: str
    """Its file."""
    line: int
    """Its line."""
    class_name: str = ""
    """Class of the optimizer that is made there."""
    root: str | None = None
    """The variable there that holds the model whose modules the changes name; `None` where none is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What of the program tells how the changes are written into it."""

    optimizers: tuple[Place, ...] = ()
    """Where optimizers are made, as far as the program itself makes them."""
    fills: tuple[Place, ...] = ()
    """Where gradients are filled with zeros."""
    has_statistics: bool = False
    """Whether it has batch norms, whose statistics move with each forward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One set of changes that was run."""

    changes: Changes
    """What was changed."""
    title: str
    """The changes in words."""
    needs: Measured
    """What the changed program needs."""
    slowdown: float | None
    """Share by which a step takes longer than of the plain program; below zero it is quicker."""
    losses_equal: bool | None
    """Whether every loss is the plain program's to the last bit; `None` where none was computed."""
    expected_bytes: int | None
    """The peak that the model of the step promised; `None` where it was not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """A set of changes that did not hold when it was run."""

    title: str
    """The changes in words."""
    why: str
    """What happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """The whole answer."""

    command: tuple[str, ...]
    """What was run."""
    budget_bytes: int
    """Memory that torch's allocator may take."""
    target_bytes: int
    """The budget less the margin."""
    device: str
    """What the budget is of: the name of a GPU, or a size."""
    is_predicted: bool
    """Whether the runs were predictions."""
    is_verified: bool
    """Whether what is proposed was run; what a trace alone tells is not."""
    plain: Measured
    """The program as it is."""
    rungs: tuple[Rung, ...]
    """Sets of changes that were run and hold, those that fit first, the cheapest of them first."""
    missed: tuple[Missed, ...]
    """Sets of changes that did not hold."""
    refused: Mapping[str, str]
    """Modules that are left as they are, and why."""
    smallest_bytes: int | None
    """The smallest peak that was reached, where nothing fits."""
    notes: tuple[str, ...]
    """What is assumed, and what was not tried."""
    classes: Mapping[str, str]
    """Class of each module that is changed."""
    program: Program = field(default_factory=Program)
    """Where the changes would be written."""

    @property
    def best(self) -> Rung | None:
        """The cheapest set of changes that fits; `None` if none does."""
        return self.rungs[0] if self.rungs and self.rungs[0].needs.fits else None

    @property
    def front(self) -> tuple[Rung, ...]:
        """The rungs that no other beats in both memory and time, the smallest first."""
        timed = [one for one in self.rungs if one.slowdown is not None]
        found: list[Rung] = []
        for one in sorted(timed, key=lambda rung: (rung.needs.reserved_bytes, rung.slowdown or 0.0)):
            if not found or (one.slowdown or 0.0) < (found[-1].slowdown or 0.0):
                found.append(one)
        return tuple(found)
