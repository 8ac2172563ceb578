"""What operators give back in a module that is computed again could be kept: for its memory, their time is saved.

In: the candidate of a module, its calls, and the operators that ran in them. Out: that candidate, with what it costs
now that the operators are known, and one for each operator that is worth it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from memtrace.forecast.fixing.step import Part, Span, Step
from memtrace.forecast.fixing.step_model import Candidate, saved_name
from memtrace.forecast.fixing.survey import Operator

_LEAST_COST = 0.03
"""An operator that takes less than this share of its module is not looked at."""
_MOST = 3
"""So many operators of a module are looked at, those that save most."""
_MOST_SAVED = 0.95
"""No more than this share of what a module costs can be saved: Python and what is not timed remain."""


POLICY_S = 1e-5
"""About what torch's modes take of the processor for each operator of a module of which results are kept, each time."""


@dataclass
class _Result:
    """One operator in a module, over all its calls."""

    seconds: float = 0.0
    """What a second run of it takes."""
    spans: list[Span] = field(default_factory=list)
    """What stays, and when, if it is kept."""
    can_be_kept: bool = True
    """Whether that computes the same."""


def with_results(
    module: Candidate, parts: Sequence[Part], step: Step, unsaved: Collection[str], *, policy_s: float
) -> list[Candidate]:
    """Return a module, and what could be kept of it when it is computed again.

    `policy_s` is what to keep results takes for each operator that runs meanwhile: on a GPU that is not there, nothing.
    """
    found: dict[str, _Result] = defaultdict(_Result)
    # The second run ends when all that backward needs is there again.
    unneeded = policy = 0.0
    for part in parts:
        inside = _inside(step.survey.operators, part)
        policy += 2 * policy_s * len(inside)
        for operator in inside:
            one = found[operator.name]
            one.can_be_kept = one.can_be_kept and operator.can_be_kept and operator.name not in unsaved
            if step.is_run_again(operator.results, part, operator.time_ns):
                one.seconds += operator.cost_s
            else:
                unneeded += operator.cost_s
            one.spans += step.kept_longer(operator.results, part, operator.time_ns)
    module = replace(module, cost_s=max(module.cost_s - unneeded, module.cost_s * (1 - _MOST_SAVED)))
    worth = [
        (name, one)
        for name, one in found.items()
        if one.can_be_kept
        and one.seconds - policy > _LEAST_COST * module.cost_s
        and _bytes(one.spans) < module.kept_bytes
    ]
    worth = sorted(worth, key=lambda pair: -pair[1].seconds)[:_MOST]
    share = min(1.0, _MOST_SAVED * module.cost_s / max(sum(one.seconds for _, one in worth), 1e-12))
    return [module, *(_candidate(module, name, one, policy - one.seconds * share) for name, one in worth)]


def _inside(operators: Sequence[Operator], part: Part) -> Sequence[Operator]:
    """Return the operators that ran during a call; they are in order of time."""
    first = bisect_left(operators, part.call.start_ns, key=lambda one: one.time_ns)
    return operators[first : bisect_right(operators, part.call.end_ns, key=lambda one: one.time_ns)]


def _candidate(module: Candidate, operator: str, result: _Result, cost_s: float) -> Candidate:
    return Candidate(
        name=saved_name(module.name, operator),
        class_name=module.class_name,
        cost_s=cost_s,
        cuts=(),
        adds=tuple(_joined(result.spans)),
        spikes=(),
        around=(),
        within=module.name,
    )


def _bytes(spans: Sequence[Span]) -> int:
    return sum(one.size_bytes for one in spans)


def _joined(spans: Sequence[Span]) -> Iterator[Span]:
    """Yield spans, those of the same moments as one."""
    sizes: dict[tuple[int, int], int] = defaultdict(int)
    for one in spans:
        sizes[one.start, one.end] += one.size_bytes
    for (start, end), size in sizes.items():
        yield Span(start=start, end=end, size_bytes=size)
