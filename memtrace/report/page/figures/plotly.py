"""What all figures share, and the plotly that draws them. The only file that imports plotly.

A figure is traces and layout as plain dictionaries: JSON for `Plotly.react`. Colours may be `var(--name)`: the page
resolves them, so that one figure serves both themes. The dictionaries are checked against plotly's own validators in
tests/report/test_html.py; building them through plotly.graph_objects would cost half a second a report.
"""

from __future__ import annotations

from typing import Any

import plotly.offline

Figure = dict[str, Any]
Reference = dict[str, int]
"""Stands for an array of the payload, so that an array is written once a page however many traces use it."""


def plotly_script() -> str:
    """Return plotly.js as the installed plotly ships it, with plain line ends."""
    return str(plotly.offline.get_plotlyjs()).replace("\r\n", "\n")


def base_layout() -> Figure:
    """Return what the layouts of all figures share."""
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "var(--font)", "size": 12, "color": "var(--ink)"},
        "showlegend": False,
        "autosize": True,
    }
