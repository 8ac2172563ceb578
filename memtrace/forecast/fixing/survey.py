"""The survey that a program left beside its recording, checked: its calls of modules, and what is known of each.

In: plain values of `hooks/changes/survey.py`, or a trace that has none beside it. Out: `Survey`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from memtrace.errors import MemtraceError
from memtrace.forecast.fixing.results import Place, Program
from memtrace.schema.names import Phase
from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One training forward of a module."""

    name: str
    """Path of the module."""
    class_name: str
    """Its class."""
    start_ns: int
    """When it began, by the clock of the trace."""
    end_ns: int
    """When it ended."""
    cost_s: float
    """How long it takes, with all inside it."""
    inputs: tuple[int, ...] | None
    """Addresses of the storages that it was given; `None` where that is not known."""
    outputs: tuple[int, ...] | None
    """Addresses of those that it gave back; `None` where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One operator of a training forward."""

    name: str
    """Its name, as aten.mm."""
    time_ns: int
    """When it had run, by the clock of the trace."""
    cost_s: float
    """How long it takes."""
    results: tuple[int, ...]
    """Addresses of the storages that it gave back."""
    can_be_kept: bool
    """Whether its result can stand for a second run of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What one process did."""

    calls: tuple[Call, ...]
    """In the order in which they ended."""
    refused: Mapping[str, str]
    """Modules that are to be left as they are, and why."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Modules that were changed and could not be run again, and why."""
    losses: tuple[tuple[str, ...], ...] = ()
    """What each backward began from, as exact texts."""
    step_ends: tuple[tuple[int, float | None], ...] = ()
    """When each step of an optimizer ended, and how long all until then would have taken on the GPU."""
    last_again: str | None = None
    """The module that was last run again in backward."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is known of the program."""
    operators: tuple[Operator, ...] = ()
    """In the order in which they ran; empty where none were watched."""

    @property
    def rank(self) -> int:
        """Its rank; 0 where it has none."""
        rank = self.facts.get("rank")
        return rank if isinstance(rank, int) else 0

    @property
    def optimizers(self) -> list[Mapping[str, Any]]:
        """What is known of each optimizer."""
        return [one for one in self.facts.get("optimizers") or () if isinstance(one, dict)]

    @property
    def step_s(self) -> float | None:
        """Seconds of a step after the first; `None` where there was none."""
        ends = [(time_ns / 1e9 if cost is None else cost) for time_ns, cost in self.step_ends]
        steps = [later - earlier for earlier, later in pairwise(ends) if later > earlier]
        return min(steps) if steps else None


def survey_of(documents: Sequence[Any]) -> Survey:
    """Return what the process that trained wrote; the one with most calls, of several.

    Raises:
        MemtraceError: none of them is a survey, or none trained.
    """
    return max(surveys_of(documents), key=lambda one: len(one.calls))


def surveys_of(documents: Sequence[Any]) -> list[Survey]:
    """Return what each process that trained wrote, by rank.

    Raises:
        MemtraceError: none of them is a survey, or none trained.
    """
    found: list[Survey] = []
    for document in documents:
        try:
            found.append(_survey(document))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise MemtraceError(f"what the program did cannot be read: {type(error).__name__}") from None
    found = [one for one in found if one.calls]
    if not found:
        raise MemtraceError(
            "no module of the program ran a training forward, so nothing of it can be changed",
            hint="the command after -- has to train with modules of torch.nn",
            slug="fix-nothing",
        )
    return sorted(found, key=lambda one: one.rank)


def _survey(document: Any) -> Survey:
    return Survey(
        calls=tuple(_call(row) for row in document["calls"]),
        refused={str(name): str(why) for name, why in document["refused"].items()},
        failed={str(name): str(why) for name, why in document["failed"].items()},
        losses=tuple(tuple(map(str, one)) for one in document["losses"]),
        step_ends=tuple((int(at), None if cost is None else float(cost)) for at, cost in document["steps"]),
        last_again=document["last_again"],
        facts=dict(document["facts"]),
        operators=tuple(map(_operator, document["operators"])),
    )


def _call(row: Any) -> Call:
    name, kind, start_ns, end_ns, cost, inputs, outputs = row
    return Call(
        name=str(name),
        class_name=str(kind),
        start_ns=int(start_ns),
        end_ns=int(end_ns),
        cost_s=float(cost),
        inputs=tuple(map(int, inputs)),
        outputs=tuple(map(int, outputs)),
    )


def _operator(row: Any) -> Operator:
    name, time_ns, cost, results, can_be_kept = row
    return Operator(
        name=str(name),
        time_ns=int(time_ns),
        cost_s=float(cost),
        results=tuple(map(int, results)),
        can_be_kept=bool(can_be_kept),
    )


def with_costs_of(survey: Survey, other: Survey) -> Survey:
    """Return a survey in which each call costs what it did in another run; as it is where that made other calls."""
    if [one.name for one in survey.calls] != [one.name for one in other.calls]:
        return survey
    pairs = zip(survey.calls, other.calls, strict=True)
    calls = tuple(replace(one, cost_s=theirs.cost_s) for one, theirs in pairs)
    return replace(survey, calls=calls, step_ends=other.step_ends)


def program_of(survey: Survey) -> Program:
    """Return where the changes would be written into a program; what cannot be read of it is left out."""
    places = survey.facts.get("places")
    if not isinstance(places, dict):
        return Program()
    return Program(
        optimizers=tuple(
            Place(path=str(path), line=int(line), class_name=str(kind), root=None if root is None else str(root))
            for path, line, kind, root in places.get("optimizers", ())
        ),
        fills=tuple(Place(path=str(path), line=int(line)) for path, line in places.get("fills", ())),
        has_statistics=bool(survey.facts.get("has_statistics")),
    )


def without_compiled(survey: Survey) -> Survey:
    """Return the survey of a program that compiles its model and was run without that: nothing of it is changed."""
    why = "the program compiles its model, so that its forward cannot be run in parts"
    return replace(survey, refused={**dict.fromkeys((one.name for one in survey.calls), why), **survey.refused})


def survey_of_trace(rank: RankTrace) -> Survey:
    """Return what a trace alone tells: the scopes of modules, and how long each took.

    Raises:
        MemtraceError: it knows no modules.
    """
    scopes = rank.table("scopes")
    calls = tuple(
        Call(
            name=str(rank.text(row["module"])),
            class_name=str(rank.text(row["class_name"])),
            start_ns=row["start_ns"],
            end_ns=row["end_ns"],
            cost_s=(row["end_ns"] - row["start_ns"]) / 1e9,
            inputs=None,
            outputs=None,
        )
        for row in scopes.rows()
        if row["end_ns"] is not None and not row["recompute"] and _is_training(rank, row["start_ns"])
    )
    if not calls:
        raise MemtraceError(
            "the trace knows no modules, so none can be recomputed",
            hint="record the run with `memtrace record`, or give the command itself: memtrace fix … -- python train.py",
            slug="fix-nothing",
        )
    steps = rank.table("steps")
    ends = tuple(
        (int(end), None) for end, step in zip(steps["end_ns"], steps["step"], strict=True) if end != NULL and step
    )
    return Survey(calls=calls, refused=_checkpointed(rank), step_ends=ends)


def _is_training(rank: RankTrace, time_ns: int) -> bool:
    phases = rank.table("phases")
    inside = (phases["start_ns"] <= time_ns) & ((phases["end_ns"] == NULL) | (phases["end_ns"] > time_ns))
    return bool((inside & (phases["phase"] == rank.string_id(Phase.FORWARD.value))).any())


def _checkpointed(rank: RankTrace) -> dict[str, str]:
    scopes = rank.table("scopes")
    again = {str(rank.text(one)) for one in scopes["module"][scopes["recompute"] != 0].tolist()}
    return dict.fromkeys(again, "it is computed again in backward already")
