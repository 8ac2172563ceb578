"""The card: what ten seconds of reading must tell of a run. One type, drawn in the terminal, on the page and in files.

Every figure is one of the report that it is made of. Bytes are ints, what is not known is `None`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How a program ended that did not end as it should."""

    kind: str
    """exception, interrupt (somebody asked it to end), oom, signal, exit, unfinished (nothing says why) or thread (it
    went on when a thread died)."""
    exception: str | None
    """Type of the exception, as "torch.OutOfMemoryError"; `None` where none was seen."""
    message: str | None
    """What the exception said; `None` where that was not recorded."""
    where: Mapping[str, Any] | None
    """file, line and function of the program's own line that raised it."""
    step: int | None
    """The step that was going on, or the last that had ended; `None` where no step was recorded."""
    in_step: bool
    """Whether it was in that step; else after it."""
    rank: int | None
    """The first rank that failed, of several."""
    signal: str | None
    """As "SIGKILL"; `None` where no signal ended it."""
    exit_status: int | None
    """Exit status of the command; negative is a signal."""
    sentence: str
    """All this in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPart:
    """A category at the peak."""

    category: str
    """Its name, as in `Peak.by_category`."""
    num_bytes: int
    """Requested bytes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardChange:
    """One change that would lower the peak: a finding, and whether the run then fits."""

    slug: str
    """The finding."""
    name: str
    """What to do, in three or four words."""
    title: str
    """What is the matter, in one line."""
    change: str
    """What to do."""
    price: str
    """What that costs, in a word or two."""
    cost: str
    """What that costs."""
    saves_bytes: int | None
    """Bytes off the peak, or off what is reserved, as `basis` says; `None` where not known."""
    new_peak_bytes: int | None
    """The peak with the change; `None` where not known."""
    basis: str
    """What the two are bytes of: allocated, requested or reserved."""
    fits: bool | None
    """Whether the run then fits the device; `None` where the capacity is not known, or the answer."""
    where: Mapping[str, Any] | None
    """file, line, function, module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A run in a dozen lines: what happened, what the peak is made of, what limits it, what to change."""

    outcome: str
    """died, would-die (on a device of the given capacity), ended (in order) or unknown (nothing tells)."""
    headline: str
    """What happened, in a sentence."""
    death: Death | None
    """How it died; `None` where it ended in order, or nothing tells."""
    rank: int | None
    """The rank that the figures are of; `None` where the run had one."""
    device: str | None
    """The device that the figures are of; `None` where no memory was recorded."""
    peak_bytes: int | None
    """How high memory went; `None` where no memory was recorded."""
    basis: str
    """What that is bytes of: allocated, or requested where allocated bytes are not known."""
    step: int | None
    """Step of the peak; `None` where not known."""
    phase: str | None
    """Phase of the peak; `None` where not known."""
    module: str | None
    """Innermost module of the peak; `None` where not known."""
    parts: tuple[CardPart, ...]
    """What the peak is made of, requested bytes, the largest first; their sum is `requested_bytes`."""
    requested_bytes: int | None
    """Requested bytes at the peak."""
    reserved_bytes: int | None
    """The most that torch's allocator held of the device; `None` on the CPU."""
    outside_bytes: int | None
    """What others held of the device: context, libraries, other processes; `None` where not known."""
    failed_request_bytes: int | None
    """The request that did not fit; `None` without an out-of-memory."""
    capacity_bytes: int | None
    """What the device has; `None` where not known."""
    limits: str
    """What sets the height of the peak, or what ran out, in a sentence."""
    changes: tuple[CardChange, ...]
    """What would lower the peak, three at most, the most important first."""
    num_more_changes: int
    """Findings beyond these."""
    not_seen: str | None
    """What was not seen, in a line; `None` where nothing is missing."""
    next_command: str | None
    """What to type next."""
