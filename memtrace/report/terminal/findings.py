"""What is wrong and what to do about it, in a terminal: the out-of-memory, the findings, the commands to type next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memtrace.analysis.results.report import Finding, OomResult
from memtrace.printable import clean
from memtrace.report.drawing.facts import evidence_rows, replayed_words
from memtrace.report.terminal.cells import DASH, pairs, size
from memtrace.schema.frames import short_place
from memtrace.units import format_bytes, format_ns

MAX_FINDINGS = 5
MAX_SHORT = 3
_MAX_EVIDENCE = 6
_MAX_RANKS = 8
_SEVERITY_STYLES = {"error": "bold red", "warning": "bold yellow"}


def out_of_memory(oom: OomResult) -> Group:
    """Return what failed, and why."""
    step = None if oom.step is None else f"step {oom.step}"
    figures = (
        ("asked for", oom.request_bytes),
        ("free on the device", oom.free_bytes),
        ("reserved but unallocated", oom.reserved_unallocated_bytes),
        ("largest free block", oom.largest_free_block_bytes),
    )
    table = pairs(
        [
            ("when", clean(", ".join(part for part in (step, oom.phase, oom.module) if part)) or DASH),
            *((name, size(num_bytes)) for name, num_bytes in figures if num_bytes is not None),
            ("cause", clean(oom.cause or "not known")),
        ]
    )
    return Group(table, *(Text(clean(sentence)) for sentence in oom.explanation))


def findings(found: Sequence[Finding]) -> Group:
    """Return the first few findings, and how many more there are."""
    parts: list[RenderableType] = []
    groups = list(_alike(found))
    for number, group in enumerate(groups[:MAX_FINDINGS], 1):
        parts += [*([""] if parts else []), _finding(number, group)]
    if len(groups) > MAX_FINDINGS:
        parts += ["", Text(f"… and {len(groups) - MAX_FINDINGS} more: --html and --json hold all of them", style="dim")]
    return Group(*parts)


def in_short(found: Sequence[Finding]) -> Group:
    """Return the first few findings in two or three lines each: what, where and what to do about it."""
    parts: list[RenderableType] = []
    groups = list(_alike(found))
    for number, (finding, *_others) in enumerate(groups[:MAX_SHORT], 1):
        title = Text(f"{number}. ").append(clean(finding.title), _SEVERITY_STYLES.get(finding.severity, "bold"))
        place = _place(finding.where)
        parts += [
            title.append(f"  {place}" if place else "", style="dim"),
            Padding(clean(finding.change), (0, 0, 0, 3)),
        ]
    if len(groups) > MAX_SHORT:
        parts.append(Text(f"… and {len(groups) - MAX_SHORT} more: --section changes", style="dim"))
    return Group(*parts)


def _alike(found: Sequence[Finding]) -> Iterable[list[Finding]]:
    """Return the findings, those of several ranks about one place together: all ranks run the same program."""
    groups: dict[tuple[Any, ...], list[Finding]] = {}
    told: Counter[tuple[Any, ...]] = Counter()
    for number, finding in enumerate(found):
        where = finding.where or {}
        # Several findings of one rank are never one: the second of a rank goes with the second of another.
        place = (finding.slug, where.get("file"), where.get("line"))
        of_rank = (*place, finding.rank)
        groups.setdefault((number,) if finding.rank is None else (*place, told[of_rank]), []).append(finding)
        told[of_rank] += 1
    return groups.values()


def _finding(number: int, group: Sequence[Finding]) -> Table:
    """Return a finding with its number beside it, however many lines it takes; of several ranks the worst."""
    finding = group[0]
    title = Text(clean(finding.title), style=_SEVERITY_STYLES.get(finding.severity, "bold"))
    title.append(f"  [{clean(finding.slug)}]", style="dim")
    rows: list[tuple[str, RenderableType]] = []
    if len(group) > 1:
        rows.append(("ranks", ", ".join(str(one.rank) for one in group[:_MAX_RANKS]) + _more(len(group))))
    effect, place, evidence = _effect(finding), _place(finding.where), ", ".join(_evidence(finding.evidence))
    if effect:
        rows.append(("saves", Text(effect, style="green")))
    if place:
        rows.append(("where", place))
    if evidence:
        rows.append(("evidence", evidence))
    rows += [("change", clean(finding.change)), ("cost", clean(finding.cost))]
    table = Table.grid(padding=(0, 1))
    table.add_row(f"{number}.", Group(title, pairs(rows)))
    return table


def _more(num_ranks: int) -> str:
    return "" if num_ranks <= _MAX_RANKS else f" and {num_ranks - _MAX_RANKS} more; the figures are of the first"


def _effect(finding: Finding) -> str:
    parts = [format_bytes(finding.saves_bytes)] if finding.saves_bytes is not None else []
    if finding.saves_ns is not None:
        parts.append(format_ns(finding.saves_ns))
    if finding.new_peak_bytes is not None:
        parts.append(f"new peak {format_bytes(finding.new_peak_bytes)}{replayed_words(finding)}")
    return ", ".join(parts)


def _place(where: Mapping[str, Any] | None) -> str:
    """Return line, function and module of a finding; empty where nothing of it is known."""
    if where is None:
        return ""
    file, line, function = (where.get(name) for name in ("file", "line", "function"))
    place = "" if file is None else short_place(f"{file}:{line}") + (f" {function}" if function else "")
    return clean(", ".join(part for part in (place, f"in {where['module']}" if where.get("module") else "") if part))


def _evidence(evidence: Mapping[str, Any]) -> Iterator[str]:
    """Yield the single figures of the evidence in words, the first few of them."""
    single = {name: value for name, value in evidence.items() if isinstance(value, (bool, int, float, str))}
    for name, value in evidence_rows(single)[:_MAX_EVIDENCE]:
        yield clean(f"{name} {value}")


def commands(found: Sequence[str]) -> Group:
    """Return commands, a line each, so that they can be copied."""
    return Group(*(Text(clean(command), overflow="fold") for command in found))
