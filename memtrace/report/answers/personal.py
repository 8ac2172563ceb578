"""What a report, and the trace it was made from, say of the person whose run it is, in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from memtrace.analysis.results.report import RankReport, Report

_OPTIONS = "--redact leaves them out, --no-source also files and lines"
_HOME = re.compile(r"(?:^|[/\\])(?:home|Users|users)[/\\]\w")


def personal_line(report: Report) -> str | None:
    """Return what is to be looked at before a report or its trace is shared; `None` where nothing is known of it."""
    held = personal_facts(report)
    if not held:
        return None
    listed = held[0] if len(held) == 1 else f"{', '.join(held[:-1])} and {held[-1]}"
    return f"Before you share it: it holds {listed}; {_OPTIONS}."


def personal_facts(report: Report) -> tuple[str, ...]:
    """Return what there is of a person, in words."""
    return tuple(dict.fromkeys(fact for rank in report.ranks for fact in _facts(rank)))


def _facts(rank: RankReport) -> Iterator[str]:
    facts = rank.facts
    frames = [frame for stack in rank.top_stacks for frame in stack.frames]
    paths = [*frames, str(facts.get("original_path") or ""), *map(str, facts.get("command") or ())]
    if facts.get("host"):
        yield "the host's name"
    if any(map(_HOME.search, paths)):
        yield "the user's name"
    if facts.get("command"):
        yield "arguments"
    if frames or facts.get("original_path"):
        yield "paths and source lines"
    if facts.get("environment"):
        yield "settings of the environment"
    error = facts.get("exception")
    if isinstance(error, Mapping) and error.get("message"):
        yield "the message of an error"
