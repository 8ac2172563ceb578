"""Facts and evidence in words: the suffix of a name says what unit a number has; no two labels of one list are alike.

In: names and values as results have them. Out: text. Terminal and page say the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from memtrace.analysis.results.report import Finding
from memtrace.units import format_bytes, format_ns

_RESTS = "rests_on_inference"
_REPLAYED = "is_replayed"
_EXTRAPOLATED = "extrapolated_at_peak_bytes"
_KINDS = ((re.compile("^num_"), "number "), (re.compile("_ns$"), "time "))
"""What tells two facts of one name apart: a count and a time, each beside bytes."""


def evidence_rows(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the evidence of a finding as labels and texts, without what says nothing.

    >>> evidence_rows({"kept_at_peak_bytes": 1024, "num_kept_at_peak": 7, "num_layers": 2, "rests_on_inference": False})
    [('kept at peak', '1.00 KiB'), ('number kept at peak', '7'), ('layers', '2')]
    """
    told = {
        str(key): value
        for key, value in evidence.items()
        # What is not so is no evidence; how a new peak was found stands beside it.
        if value not in (None, [], {}, ()) and value is not False and key != _REPLAYED
    }
    labels = _labels(told)
    return [
        ("how sure", "it rests on what was inferred") if key == _RESTS else (labels[key], fact_text(key, value))
        for key, value in told.items()
    ]


def replayed_words(finding: Finding) -> str:
    """Return what is to be said behind a new peak: whether the model of the allocator was given what the remedy leaves,
    or whether a part of what it takes away was made in steps that were not recorded.

    Of the CPU nothing is where all was seen: no allocator stands between requests and levels.
    """
    if finding.evidence.get(_EXTRAPOLATED):
        return " (extrapolated)"
    replayed = finding.evidence.get(_REPLAYED)
    return "" if replayed is None else " (replayed)" if replayed else " (not replayed)"


def _labels(names: Iterable[str]) -> dict[str, str]:
    """Return a label for each name; one that another fact has too says what it counts."""
    labels = {name: fact_name(name.removeprefix("num_")) for name in names}
    times = Counter(labels.values())
    for name, label in labels.items():
        if times[label] > 1:
            labels[name] = next((kind for pattern, kind in _KINDS if pattern.search(name)), "") + label
    return labels


def fact_name(name: str) -> str:
    """Return the name of a fact without its unit.

    >>> fact_name("peak_host_rss_bytes")
    'peak host rss'
    """
    return re.sub(r"_(bytes|ns)$", "", name).replace("_", " ")


def fact_text(name: str, value: Any) -> str:
    """Return a fact for people; the suffix of its name says whether it is bytes or ns."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and (name.endswith("_bytes") or name.startswith("bytes_")):
        return format_bytes(value)
    if isinstance(value, int) and name.endswith("_ns") and value < 10**15:
        return format_ns(value)
    if isinstance(value, Mapping):
        # The unit of a mapping is that of what is in it, as in {"by_category_bytes": {"gradient": 12}}.
        unit = "_bytes" if name.endswith("_bytes") else ""
        return ", ".join(f"{fact_name(str(key))} {fact_text(f'{key}{unit}', item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return (
            " ".join(str(item) for item in value)
            if name.endswith("command")
            else ", ".join(str(item) for item in value)
        )
    return str(value)
