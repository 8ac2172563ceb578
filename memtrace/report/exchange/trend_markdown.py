"""Several runs in a row as Markdown, for a comment on a pull request.

In: `Trend`. Out: text. Names out of files stand in code spans.
"""

from __future__ import annotations

from memtrace.analysis.results.trend import Trend
from memtrace.report.answers.trend import cells, remark
from memtrace.report.exchange.markdown import code, table


def trend_markdown(trend: Trend) -> str:
    """Return the runs as a block of Markdown."""
    rows = [(code(name), *rest, code(remark(run))) for run in trend.runs for name, *rest in [cells(run)]]
    heading = ("run", "recorded", f"peak ({trend.compares})", "change", "steady", "reserved", "")
    lines = [f"### memtrace: {code(trend.verdict)}", "", *table(heading, rows)]
    lines += ["", *(f"- not read: {code(one)}" for one in trend.unread)] if trend.unread else []
    return "\n".join(lines) + "\n"
