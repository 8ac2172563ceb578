"""What a report says of the person whose run it is: the host, the arguments, paths, and what an error said.

In: a `Report`. Out: what of it there is, in words, and a report or a JSON value without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from memtrace.analysis.results.report import RankReport, Report
from memtrace.report.page.data.hidden_paths import HIDDEN

_FACTS = {"host": "the host's name", "command": "arguments", "original_path": "paths"}


def personal_facts(report: Report) -> tuple[str, ...]:
    """Return what is to be looked at before the report is shared, in words; paths may hold the user's name."""
    found = {words for rank in report.ranks for name, words in _FACTS.items() if rank.facts.get(name)}
    if any(one.top_stacks for one in report.ranks):
        found.add("paths")
    if any(_message(one) for one in report.ranks):
        found.add("the message of an error")
    return tuple(sorted(found, reverse=True))


def without_personal_facts(report: Report) -> Report:
    """Return the report whose facts name no host, no argument and no script, and do not quote an error."""
    return replace(report, ranks=tuple(map(_without, report.ranks)))


def without_words(value: Any, words: Iterable[str]) -> Any:
    """Return a JSON value in which no text has one of these words or sentences.

    >>> without_words({"fact": "host node-7, not node-70", "rank": 7}, ["node-7"])
    {'fact': 'host …, not node-70', 'rank': 7}
    """
    longest_first = sorted(filter(None, set(words)), key=len, reverse=True)
    if not longest_first:
        return value
    return _replaced(value, re.compile(rf"(?<![\w.\-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w\-])"))


def personal_words(report: Report) -> list[str]:
    """Return the names of hosts and the messages of errors, which sentences may quote."""
    found = [rank.facts.get("host") for rank in report.ranks] + [_message(rank) for rank in report.ranks]
    return [one for one in found if isinstance(one, str)]


def _without(rank: RankReport) -> RankReport:
    facts = {name: value for name, value in rank.facts.items() if name not in _FACTS}
    if _message(rank):
        facts["exception"] = {**facts["exception"], "message": None}
    return replace(rank, facts=facts)


def _message(rank: RankReport) -> str | None:
    """Return what an error said; that of an out-of-memory error holds sizes only and tells on nobody."""
    error = rank.facts.get("exception")
    if not isinstance(error, Mapping) or "OutOfMemory" in str(error.get("type")):
        return None
    message = error.get("message")
    return message if isinstance(message, str) else None


def _replaced(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(HIDDEN, value)
    if isinstance(value, Mapping):
        return {key: _replaced(item, pattern) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(item, pattern) for item in value]
    return value
