"""The interactive page of a trace as a notebook draws it.

The page stands in a frame of its own: its scripts see nothing of the notebook, and need no network.
"""

from __future__ import annotations

import dataclasses
import html
from typing import TYPE_CHECKING

from memtrace.errors import MemtraceError

if TYPE_CHECKING:
    from memtrace.store.trace import Trace

MAX_PAGE_CHARS = 24_000_000
"""Most characters of a page in a notebook, which holds it in its own file."""


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Page:
    """A report that a notebook draws."""

    content: str
    """The whole HTML page."""
    height: int
    """Pixels."""
    remark: str | None
    """What is left out, and how to see it."""

    def _repr_html_(self) -> str:
        # The frame may run scripts and save pictures; without same-origin it reaches nothing of the notebook.
        remark = "" if self.remark is None else f"<p>{html.escape(self.remark)}</p>"
        content = self.content.replace("&", "&amp;").replace('"', "&quot;")
        return (
            f'<iframe srcdoc="{content}" sandbox="allow-scripts allow-downloads" title="memtrace report" '
            f'style="width:100%;height:{self.height}px;border:1px solid #8888"></iframe>{remark}'
        )

    def __repr__(self) -> str:
        """Say what it is, where nothing draws HTML."""
        return f"<memtrace report, a page of {len(self.content) / 1e6:.1f} MB>"


def page_of(trace: Trace, *, height: int, capacity: str | None, with_source: bool) -> Page:
    """Return the page of a trace; without every allocation where those would make it too large.

    Raises:
        MemtraceError: it is too large nevertheless.
    """
    from memtrace.analysis.report import analyze
    from memtrace.report.page.report import render_html
    from memtrace.schema.gpu_cards import memory_named
    from memtrace.schema.redaction import Redaction, without_places
    from memtrace.store.redaction.redact import redacted

    capacity_bytes = None if capacity is None else memory_named(capacity)
    redaction = Redaction.NOTHING if with_source else Redaction.SOURCE
    report = analyze(redacted(trace, redaction), capacity_bytes=capacity_bytes, with_map=True)
    report = report if with_source else without_places(report)
    content, remark = render_html(report), None
    if len(content) > MAX_PAGE_CHARS:
        smaller = [dataclasses.replace(rank, allocation_map=None) for rank in report.ranks]
        content = render_html(dataclasses.replace(report, ranks=tuple(smaller)))
        remark = f"The map of every allocation is left out here; it is in the file of: {_as_file(trace)}"
    if len(content) > MAX_PAGE_CHARS:
        raise MemtraceError("the page is too large for a notebook", hint=f"write it to a file: {_as_file(trace)}")
    return Page(content, height, remark)


def _as_file(trace: Trace) -> str:
    return f"memtrace report {trace.path} --html report.html"
