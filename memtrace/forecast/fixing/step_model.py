"""The memory of one step over its moments, and what it would be if some modules were computed again in backward.

`StepModel` holds the level, and for each module what it takes off the level, and adds to it, from when until when;
`build_model.py` makes it.

    forward of a module     |f0 ... f1|                                     backward of it
    plain                    takes a b c, keeps a b  .......................  frees b, a
    computed again           takes a b c             (only what it was given)  takes a b c', frees b, a
    … but for what made b    takes a b c, keeps b    .......................  takes a c', frees b, a

    waits on the host       takes a b c, sends a b   .......................  fetches b, frees b, fetches a, frees a

Between the end of its forward and the moment before its backward, what it kept is not there. What it was given stays
until then, also where plain autograd would not keep it. Its backward then begins with the temporaries of a forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from memtrace.forecast.fixing.step import Span
from memtrace.store.columns import IntArray

HOST_BYTES_S = 2.0e10
"""Bytes a second that PCIe 4 reaches between a GPU and pinned memory of its host."""
_HOST = "host:"
"""Before the name of a module whose activations wait on the host: no path of a module has a colon."""
_SAVED = "saved:"
"""Before the name of a result that is kept of a module which is computed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One module that could be computed again, or wait on the host, over all its calls of the step.

    Or what an operator gives back in a module that is computed again, which could be kept.
    """

    name: str
    """Its path, after `_HOST` where it would wait on the host; `by_way` tells them apart."""
    class_name: str
    """Its class."""
    cost_s: float
    """Seconds that a step takes longer; below zero of what is kept, which is not computed again."""
    cuts: tuple[Span, ...]
    """What is away, and when."""
    adds: tuple[Span, ...]
    """What stays longer, and when."""
    spikes: tuple[Span, ...]
    """What the second forward needs beside what it keeps, just before its backward."""
    around: tuple[str, ...]
    """The candidates that hold it: one of them and it are not both chosen."""
    within: str | None = None
    """Of a result that is kept: the candidate without which it is not chosen."""

    @property
    def kept_bytes(self) -> int:
        """Bytes that it keeps for backward."""
        return sum(cut.size_bytes for cut in self.cuts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepModel:
    """One step."""

    level: IntArray
    """Bytes after each moment of the step."""
    candidates: tuple[Candidate, ...]
    """Modules that could be computed again, by their first forward. Moments count from the step's first."""
    step_s: float | None
    """Seconds of the step."""
    other_peak_bytes: int
    """The largest level outside the step, which its candidates say nothing of."""

    @property
    def modules(self) -> StepModel:
        """The model without the results that could be kept: what reaches the smallest peak."""
        return replace(self, candidates=tuple(one for one in self.candidates if one.within is None))

    @property
    def peak_bytes(self) -> int:
        """The largest level of the step."""
        return int(self.level.max())

    def level_with(self, chosen: Sequence[str]) -> IntArray:
        """Return the level if these candidates are computed again."""
        level = self.level.astype(np.int64, copy=True)
        for one in self.candidates:
            if one.name in chosen:
                for span, sign in [*((cut, -1) for cut in one.cuts), *((add, 1) for add in (*one.adds, *one.spikes))]:
                    level[span.start : span.end] += sign * span.size_bytes
        return level

    def cost_of(self, chosen: Sequence[str]) -> float:
        """Return the seconds that a step takes longer if these candidates are computed again."""
        return sum(one.cost_s for one in self.candidates if one.name in chosen)


def with_host(model: StepModel) -> StepModel:
    """Return a model in which what modules keep may also wait on the host."""
    both = [
        replace(one, around=(*one.around, *(_HOST + outer for outer in (one.name, *one.around))))
        for one in model.candidates
        if one.within is None
    ]  # fmt: skip
    return replace(model, candidates=(*both, *map(_on_host, model.modules.candidates)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """The candidates of a choice, told apart."""

    recompute: tuple[str, ...]
    """Modules that are computed again."""
    saved: tuple[str, ...]
    """Results that are kept in them, as `Changes.saved` names them."""
    offload: tuple[str, ...]
    """Modules whose activations wait on the host."""


def by_way(chosen: Sequence[str]) -> Ways:
    """Return what a choice of candidates is in changes.

    >>> by_way(("blocks.0", "host:blocks.1", "saved:blocks.0:aten.mm"))
    Ways(recompute=('blocks.0',), saved=('blocks.0:aten.mm',), offload=('blocks.1',))
    """
    return Ways(
        recompute=tuple(name for name in chosen if ":" not in name),
        saved=tuple(name.removeprefix(_SAVED) for name in chosen if name.startswith(_SAVED)),
        offload=tuple(name.removeprefix(_HOST) for name in chosen if name.startswith(_HOST)),
    )


def saved_name(module: str, operator: str) -> str:
    """Return the name of the candidate that keeps what an operator gives back in a module."""
    return f"{_SAVED}{module}:{operator}"


def _on_host(one: Candidate) -> Candidate:
    """Return a module whose activations wait on the host: there and back, and nothing is computed.

    They are fetched one by one as backward asks for them; here they are all counted from the moment of the first.
    """
    return replace(
        one,
        name=_HOST + one.name,
        cost_s=2 * one.kept_bytes / HOST_BYTES_S,
        adds=(),
        spikes=(),
        around=(one.name, *one.around, *(_HOST + outer for outer in one.around)),
    )
