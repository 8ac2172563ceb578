"""What a trace alone says of how a run could fit: the choice of modules that the model of its step makes, not verified.

In: a trace and the question. Out: `Fixed` with nothing run. How long a module takes is what its forward took, and what
it gave back is inferred, so that a figure here is a forecast and the run of the changed program its proof.
"""

from __future__ import annotations

from memtrace.analysis.device.device_history import device_names
from memtrace.errors import MemtraceError
from memtrace.forecast.fixing.build_model import build_step_model
from memtrace.forecast.fixing.needs import recorded_needs
from memtrace.forecast.fixing.results import Fixed, Measured, Rung
from memtrace.forecast.fixing.search import KEPT, Question, title_of
from memtrace.forecast.fixing.solve import Solution, cheapest, smallest
from memtrace.forecast.fixing.step_model import StepModel
from memtrace.forecast.fixing.survey import survey_of_trace
from memtrace.schema.changes import Changes
from memtrace.store.trace import RankTrace, Trace

_UNVERIFIED = (
    "nothing was run: give the command, as in memtrace fix … -- python train.py, to have the changes verified, and "
    "those found that need no recomputation"
)


def fix_of_trace(trace: Trace, question: Question) -> Fixed:
    """Return what could be computed again so that the run of a trace fits, as far as the trace tells.

    Raises:
        MemtraceError: it holds no memory, no modules or no whole step.
    """
    rank, device = _largest(trace)
    survey = survey_of_trace(rank)
    model = build_step_model(rank, device, survey, same_costs=True)
    plain = recorded_needs(rank, device, question.target_bytes, survey.step_s)
    rungs = [_rung(Changes(), plain, 0.0, None)]
    if not plain.fits:
        # What is reserved beyond the level stays in the same proportion.
        aim = int(question.target_bytes * model.peak_bytes / max(plain.reserved_bytes, 1))
        choice = cheapest(model, aim) or smallest(model)
        if choice.chosen:
            needs = _scaled(plain, model, choice, question.target_bytes)
            slowdown = choice.cost_s / model.step_s if model.step_s else None
            rungs.append(_rung(Changes(recompute=choice.chosen), needs, slowdown, choice.peak_bytes))
    rungs.sort(key=lambda one: (not one.needs.fits, one.needs.reserved_bytes))
    classes = {one.name: one.class_name for one in model.candidates}
    return Fixed(
        command=tuple(str(word) for word in trace.header.get("command") or ()),
        budget_bytes=question.budget_bytes,
        target_bytes=question.target_bytes,
        device=question.device,
        is_predicted=True,
        is_verified=False,
        plain=plain,
        rungs=tuple(rungs),
        missed=(),
        refused=survey.refused,
        smallest_bytes=None if rungs[0].needs.fits else rungs[0].needs.reserved_bytes,
        notes=(_UNVERIFIED,),
        classes={name: kind for name, kind in classes.items() if any(name in one.changes.recompute for one in rungs)},
    )


def question_of(budget_bytes: int, device: str) -> Question:
    """Return the question whether a run fits into so many bytes of a device, nothing of them left free."""
    return Question(
        command=(),
        budget_bytes=budget_bytes,
        target_bytes=budget_bytes,
        device=device,
        keep=frozenset(KEPT),
        is_predicted=True,
        micro_batch=None,
    )


def _largest(trace: Trace) -> tuple[RankTrace, str]:
    """Return the rank with most events, and its main device."""
    ranks = [rank for rank in trace.ranks if rank.num_events and device_names(rank)]
    if not ranks:
        raise MemtraceError("the trace holds no memory events", slug="fix-nothing")
    rank = max(ranks, key=lambda one: one.num_events)
    return rank, device_names(rank)[0]


def _scaled(plain: Measured, model: StepModel, choice: Solution, target_bytes: int) -> Measured:
    peak = max(choice.peak_bytes, 0)
    reserved = plain.reserved_bytes * peak // max(model.peak_bytes, 1)
    step_s = None if plain.step_s is None else plain.step_s + choice.cost_s
    return Measured(
        fits=reserved <= target_bytes, peak_bytes=peak, reserved_bytes=reserved, step_s=step_s, by_category={}
    )


def _rung(changes: Changes, needs: Measured, slowdown: float | None, expected: int | None) -> Rung:
    return Rung(
        changes=changes,
        title=title_of(changes),
        needs=needs,
        slowdown=slowdown,
        losses_equal=None,
        expected_bytes=expected,
    )
