"""One report as one HTML file that needs nothing else: styles, modules and data inside, no network.

In: a `Report`. Out: the text of the page. What comes from a trace reaches the page as JSON in a script that the browser
does not run, and the page turns it into text nodes (title and card stand in the HTML too, escaped). A content
security policy lets only the script run that is named here by its hash, and forbids every connection.
"""

from __future__ import annotations

import orjson

from memtrace import __version__
from memtrace.analysis.results.report import Report
from memtrace.report.drawing.markup import filled, source_hash
from memtrace.report.drawing.palette import css_variables
from memtrace.report.page.assets import joined_modules, viewer_text
from memtrace.report.page.data.packed_map import PackedMap, packed_map
from memtrace.report.page.data.payload import report_payload
from memtrace.report.page.data.ranks import detail_order
from memtrace.report.page.front import description, front, outcome_class, verdict_markup
from memtrace.report.page.parts import text

# These would end the script, start a comment in it, or (the last two) end a line of JavaScript.
_ESCAPES = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    b"\xe2\x80\xa8": b"\\u2028",
    b"\xe2\x80\xa9": b"\\u2029",
}


_STYLES = ("report.css", "front.css", "map.css", "ranks.css", "print.css")

MAX_MAP_CHARS = 24_000_000
"""About the most that the maps of all ranks may add to a page; that of the main rank is always there."""


def render_html(report: Report) -> str:
    """Return the page of a report, complete in itself."""
    modules = joined_modules("main")
    maps = packed_maps(report)
    payload = report_payload(report, version=__version__, maps=maps)
    return filled(
        viewer_text("report.html"),
        {
            "policy": _policy(modules),
            "title": text(report.title),
            "description": text(description(report)),
            "outcome": outcome_class(report),
            "verdict": verdict_markup(report),
            "sentence": text(report.verdict),
            "front": front(report),
            "styles": css_variables() + "".join(map(viewer_text, _STYLES)),
            "data": script_json(payload),
            # Base64 and our own modules: neither holds what would end a script element.
            "maps": "\n".join(
                f'<script type="text/plain" id="map-{index}">{packed.data}</script>' for index, packed in maps.items()
            ),
            "worker": joined_modules("worker"),
            "modules": modules,
        },
    )


def packed_maps(report: Report) -> dict[int, PackedMap]:
    """Return the maps that a page holds, by position of their rank: the main rank's first, then as many as fit."""
    maps: dict[int, PackedMap] = {}
    room = MAX_MAP_CHARS
    for index in detail_order(report):
        found = report.ranks[index].allocation_map
        if found is None or (maps and room <= 0):
            continue
        packed = packed_map(found)
        room -= len(packed.data)
        if not maps or room >= 0:
            maps[index] = packed
    return maps


def script_json(value: object) -> str:
    """Return JSON that can stand inside a script element: no character in it has a meaning in HTML or JavaScript."""
    # NaN would become null, so no payload holds one outside its arrays.
    encoded = orjson.dumps(value)
    for character, escape in _ESCAPES.items():
        encoded = encoded.replace(character, escape)
    return encoded.decode("utf-8")


def _policy(script: str) -> str:
    # Pictures of a figure are saved from blobs; elements have style attributes.
    return (
        f"default-src 'none'; script-src {source_hash(script)}; worker-src blob:; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
