"""Parts of pages that stand complete in their HTML: sections, tables, cells, and the page around them.

In: texts and bytes. Out: markup, escaped. A content security policy names the one style sheet and the one script (for
most pages it only switches between light and dark) by their hashes, and lets in nothing else.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from memtrace import __version__
from memtrace.report.drawing.markup import filled, source_hash, visible
from memtrace.report.drawing.palette import css_variables
from memtrace.report.page.assets import joined_modules, viewer_text
from memtrace.units import format_bytes


def page(
    *,
    kind: str,
    title: str,
    verdict: str,
    footer: str,
    style: str,
    sections: Sequence[str],
    script: str = "whatif",
    data: str = "",
) -> str:
    """Return a whole page.

    `kind` is what it is ("diff"), `style` the rules beyond those that all pages share, `script` the module to run, and
    `data` what it reads: JSON in which no character could end its element.
    """
    styles = css_variables() + viewer_text("report.css") + style
    code = joined_modules(script)
    return filled(
        viewer_text("page.html"),
        {
            "policy": (
                f"default-src 'none'; script-src {source_hash(code)}; style-src {source_hash(styles)}; "
                "img-src data:; base-uri 'none'; form-action 'none'"
            ),
            "kind": text(kind),
            "title": text(title),
            "verdict": text(verdict),
            "styles": styles,
            "sections": "\n".join(sections),
            "footer": text(f"memtrace {__version__} · {footer}"),
            "data": f'<script type="application/json" id="payload">{data}</script>' if data else "",
            "script": code,
        },
    )


def section(key: str, title: str, body: str) -> str:
    """Return a section with a heading and a panel; `body` is markup."""
    return (
        f'<section aria-labelledby="{key}"><div class="section-head"><h2 id="{key}">{text(title)}</h2></div>'
        f'<div class="panel">{body}</div></section>'
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, number_columns: range) -> str:
    """Return a table; the cells of rows are markup already. A column without a text has no heading."""
    top = "".join(
        f'<th scope="col"{" class=number" if at in number_columns else ""}>{text(head)}</th>' if head else "<td></td>"
        for at, head in enumerate(heads)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=number' if at in number_columns else ''}>{cell}</td>" for at, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="figures"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def size(num_bytes: int | None) -> str:
    """Return bytes as a cell that shows the exact number on hover."""
    if num_bytes is None:
        return "–"
    return f'<span data-bytes="{num_bytes}" title="{num_bytes:,} bytes">{text(format_bytes(num_bytes))}</span>'


def text(value: Any) -> str:
    """Return text that can stand in an element or in a quoted attribute."""
    return html.escape(str(visible(value)))
