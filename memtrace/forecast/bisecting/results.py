"""What `memtrace bisect` measures and finds: frozen dataclasses of plain values. Bytes are ints."""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.analysis.results.diff import Diff


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One commit of the range."""

    name: str
    """Its whole hash."""
    subject: str
    """First line of its message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCommit:
    """What was predicted of one commit."""

    commit: str
    """Its whole hash."""
    num_bytes: int | None
    """The figure; `None` where the program could not be predicted at this commit."""
    problem: str | None
    """Why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedLine:
    """A line that the guilty commit changed, in the stack of what grew."""

    path: str
    """File, from the top of the repository."""
    line: int
    """Its number in the guilty commit."""
    function: str
    """Function that it is in."""
    delta_bytes: int
    """By how much what was allocated through it grew at the peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisected:
    """The answer."""

    metric: str
    """The figure that was compared, as `memtrace check` names it."""
    threshold_bytes: int
    """A commit above this is bad."""
    engine: str
    """What predicted: driverless or meta."""
    gpu: str
    """The GPU that the program was told of, with memory without end."""
    good: MeasuredCommit
    """The last commit that is known to be good."""
    bad: MeasuredCommit
    """The first that is known to be bad: the guilty one, if nothing lies between."""
    guilty: Commit
    """The commit of `bad`."""
    suspects: tuple[Commit, ...]
    """Commits between the two that could not be predicted, oldest first: the guilty one may be any of these."""
    measured: tuple[MeasuredCommit, ...]
    """All that was measured, in the order of the history."""
    num_commits: int
    """Commits in the range, the first left out."""
    diff: Diff
    """The two runs side by side: by category, module and stack."""
    lines: tuple[ChangedLine, ...]
    """Lines of the change that what grew was allocated through, the largest growth first."""
