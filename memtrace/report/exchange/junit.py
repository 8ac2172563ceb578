"""A check for machines that build and for pull requests: JUnit XML and Markdown.

In: `Check`. Out: text. Names come out of files: in XML they are escaped, in Markdown they stand in code spans, where
neither markup nor a mention of somebody works.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from memtrace.analysis.results.check import BaselineResult, BudgetResult, Check
from memtrace.report.answers.check import against, category, delta, innermost, limit, mark, place, remark, verdict
from memtrace.report.drawing.markup import visible
from memtrace.report.exchange.markdown import code, table
from memtrace.units import format_bytes

# XML 1.0 has no way to write these, escaped or not; controls and surrogates are made visible before.
_NOT_XML = re.compile("[\ufffe\uffff]")


def check_junit(check: Check) -> str:
    """Return the check as JUnit XML: a test case for each budget, each figure of the baseline, and each problem."""
    cases = list(_cases(check))
    num_failed = sum(failure is not None for _, _, failure in cases)
    counts = {"tests": str(len(cases)), "failures": str(num_failed), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(f"memtrace check {check.title}"), **counts})
    for kind, name, failure in cases:
        case = ElementTree.SubElement(suite, "testcase", {"classname": f"memtrace.{kind}", "name": _xml(name)})
        if failure is not None:
            ElementTree.SubElement(case, "failure", {"message": _xml(failure)}).text = _xml(failure)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _cases(check: Check) -> Iterator[tuple[str, str, str | None]]:
    """Yield kind, name and failure (`None` where it passed) of each test case."""
    for problem in check.problems:
        yield "run", problem, problem
    for one in check.budgets:
        yield "budget", limit(one), None if one.passed else _failure(one)
    for change in check.baseline.changes if check.baseline is not None else ():
        name = f"{change.name} {place(change.rank, change.device)}"
        grew = f"{format_bytes(change.baseline_bytes)} to {format_bytes(change.value_bytes)}, {delta(change)}"
        yield (
            "baseline",
            name,
            None if change.passed or not change.gates else f"{grew}; {format_bytes(change.limit_bytes)} are allowed",
        )


def _failure(one: BudgetResult) -> str:
    lines = [f"{format_bytes(one.value_bytes)} {one.measures} on {place(one.rank, one.device)}; {remark(one)}"]
    return "\n".join([*lines, *(f"{format_bytes(row.num_bytes)}  {innermost(row.frames)}" for row in one.largest)])


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", str(visible(text)))


def check_markdown(check: Check) -> str:
    """Return the check as Markdown, for a comment on a pull request."""
    lines = [f"### memtrace check: {verdict(check)}", "", f"Trace: {code(check.title)}"]
    if check.problems:
        lines += ["", *(f"- **{mark(False)}** {code(problem)}" for problem in check.problems)]
    if check.budgets:
        rows = [
            (_mark(one.passed), code(limit(one)), format_bytes(one.value_bytes), code(remark(one)))
            for one in check.budgets
        ]
        lines += ["", *table(("", "budget", "needs", ""), rows)]
        for one in check.budgets:
            largest = [(format_bytes(row.num_bytes), innermost(row.frames)) for row in one.largest]
            lines += _stacks(f"Largest at the peak, {code(one.budget.name)}:", largest)
    if check.baseline is not None:
        lines += ["", *_baseline(check.baseline)]
    if check.notes:
        lines += ["", "Not seen:", "", *(f"- {code(one.message)}" for one in check.notes)]
    return "\n".join(lines) + "\n"


def _baseline(baseline: BaselineResult) -> list[str]:
    rows = [
        (
            _mark(one.passed) if one.gates else "",
            code(f"{category(one.name)}, {place(one.rank, one.device)}"),
            format_bytes(one.baseline_bytes),
            format_bytes(one.value_bytes),
            delta(one),
        )
        for one in baseline.changes
    ]
    grown = [(f"+{format_bytes(one.delta_bytes)}", innermost(one.frames)) for one in baseline.grown]
    return [
        f"**{code(against(baseline))}**",
        "",
        f"Against {code(baseline.title)}; what is marked may grow by {baseline.tolerance_pct:g} %:",
        "",
        *table(("", "", "baseline", "now", "change"), rows),
        *_stacks("Stacks that grew most:", grown),
    ]


def _mark(passed: bool) -> str:
    return mark(passed) if passed else f"**{mark(passed)}**"


def _stacks(heading: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    return ["", heading, "", *(f"- {size} {code(frame)}" for size, frame in rows)] if rows else []
