"""Makes the model of a step: its candidates are the modules that keep enough, and what of their results could be kept.

In: a rank, a device and the survey of its modules. Out: `StepModel`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from memtrace.forecast.fixing.kept_results import POLICY_S, with_results
from memtrace.forecast.fixing.step import Part, Step
from memtrace.forecast.fixing.step_model import Candidate, StepModel
from memtrace.forecast.fixing.survey import Call, Survey
from memtrace.store.trace import RankTrace

_LEAST_SHARE = 2000
"""A module that keeps less than this part of the peak is not worth computing again."""


def build_step_model(
    rank: RankTrace,
    device: str,
    survey: Survey,
    *,
    excluded: Sequence[str] = (),
    flat_optimizer: bool = False,
    same_costs: bool = False,
    unsaved: Collection[str] | None = None,
) -> StepModel:
    """Return the step with the largest peak of those that are whole, and what could be changed of it.

    `excluded` are modules that are left as they are; with `flat_optimizer` the optimizer is taken to make no
    temporaries; with `same_costs` modules of one class and place cost the same, as they do where time is measured.
    Where `unsaved` is given, operators are looked at too: their results could be kept, but for these.

    Raises:
        MemtraceError: no step is whole.
    """
    step = Step(rank, device, survey)
    if flat_optimizer:
        step.flatten()
    model = _model(step, set(excluded), None if unsaved is None else set(unsaved), POLICY_S if same_costs else 0.0)
    return replace(model, candidates=_evened(model.candidates)) if same_costs else model


def _model(step: Step, excluded: set[str], unsaved: set[str] | None, policy_s: float) -> StepModel:
    survey, level = step.survey, step.level[step.first : step.last + 1]
    least = int(level.max()) // _LEAST_SHARE
    found: dict[str, list[Part]] = {}
    around: dict[str, set[str]] = defaultdict(set)
    for call, outer in _nested(step.calls()):
        around[call.name].update(outer)
        part = step.part(call)
        if part is not None:
            found.setdefault(call.name, []).append(part)
    candidates = [
        _candidate(parts, around[name])
        for name, parts in found.items()
        if name not in excluded and name not in survey.refused
    ]
    candidates = [one for one in candidates if one.kept_bytes > least]
    names = {one.name for one in candidates}
    candidates = [replace(one, around=tuple(sorted(names.intersection(one.around)))) for one in candidates]
    if unsaved is not None:
        candidates = [
            made for one in candidates for made in with_results(one, found[one.name], step, unsaved, policy_s=policy_s)
        ]
    outside = np.concatenate([step.level[: step.first], step.level[step.last + 1 :], [0]])
    return StepModel(
        level=level,
        candidates=tuple(candidates),
        step_s=survey.step_s,
        other_peak_bytes=int(outside.max()),
    )


def _candidate(parts: Sequence[Part], around: set[str]) -> Candidate:
    return Candidate(
        name=parts[0].call.name,
        class_name=parts[0].call.class_name,
        cost_s=sum(part.call.cost_s for part in parts),
        cuts=tuple(part.cut for part in parts),
        spikes=tuple(part.spike for part in parts if part.spike is not None),
        adds=tuple(add for part in parts for add in part.adds),
        around=tuple(around),
    )


def _nested(calls: Sequence[Call]) -> Iterator[tuple[Call, tuple[str, ...]]]:
    """Yield calls in the order in which they began, each with the names of the calls around it."""
    around: list[Call] = []
    for call in calls:
        while around and around[-1].end_ns <= call.start_ns:
            around.pop()
        yield call, tuple(one.name for one in around)
        around.append(call)


def _evened(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates with the cost of each the median of those like it: what is measured is noisy."""
    groups: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for one in candidates:
        groups[_likeness(one)].append(one.cost_s)
    return tuple(replace(one, cost_s=float(np.median(groups[_likeness(one)]))) for one in candidates)


def _likeness(one: Candidate) -> tuple[str, str, int]:
    return one.class_name, re.sub(r"\d+", "", one.name), one.kept_bytes
