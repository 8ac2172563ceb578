"""Bytes by module as plotly draws them: an icicle of modules inside modules, and last what they are for."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memtrace.analysis.results.report import ModuleRow
from memtrace.report.drawing.palette import category_ink, stack_order
from memtrace.report.page.figures.plotly import Figure, base_layout
from memtrace.units import format_bytes

MAX_MODULES_SPLIT = 1500
"""Modules up to which the icicle has a column of categories; beyond it plotly would draw for seconds."""


@dataclass(slots=True)
class _Node:
    """One rectangle of the module figure."""

    label: str
    parent: str
    color: str
    own_bytes: int
    total_bytes: int
    own_categories: dict[str, int]
    by_category: dict[str, int]


def _node(label: str, parent: str, color: str) -> _Node:
    return _Node(label=label, parent=parent, color=color, own_bytes=0, total_bytes=0, own_categories={}, by_category={})


def module_figure(rows: Sequence[ModuleRow]) -> Figure | None:
    """Return the bytes at the peak as an icicle: modules inside modules, and in the last column what they are for."""
    if not rows:
        return None
    nodes = _module_tree(rows)
    if len(rows) <= MAX_MODULES_SPLIT:
        _add_categories(nodes)
    icicle = {
        "type": "icicle",
        "ids": list(nodes),
        "labels": [html.escape(node.label, quote=False) for node in nodes.values()],
        "parents": [node.parent for node in nodes.values()],
        "values": [node.total_bytes for node in nodes.values()],
        # One line: most rectangles are too low for two.
        "text": [
            f"{html.escape(node.label, quote=False)}  {format_bytes(node.total_bytes)}" for node in nodes.values()
        ],
        "hovertext": [_module_hover(path, node) for path, node in nodes.items()],
        "branchvalues": "total",
        "textinfo": "text",
        "hoverinfo": "text",
        "sort": False,
        "leaf": {"opacity": 1},
        "tiling": {"orientation": "h", "pad": 0},
        "pathbar": {"visible": False},
        "marker": {
            "colors": [node.color for node in nodes.values()],
            "line": {"width": 1, "color": "var(--panel)"},
        },
        "textfont": {"size": 12},
        "insidetextfont": {"size": 12},
    }
    layout = base_layout() | {"height": 520, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}}
    layout["uniformtext"] = {"mode": "hide", "minsize": 10}
    layout["hoverlabel"] = {"align": "left", "font": {"family": "var(--font)", "size": 12}}
    return {"data": [icicle], "layout": layout}


def _module_tree(rows: Sequence[ModuleRow]) -> dict[str, _Node]:
    """Return the rectangles by id, parents before children, children in the order of the model (2 before 10)."""
    nodes = {"all": _node("all modules", "", "var(--phase-backward)")}
    for row in sorted(rows, key=lambda row: _natural(row.module)):
        parts = ["outside any module"] if row.module is None else row.module.split(".")
        # A module may be called like anything, the root id included: ids are paths under the root.
        paths = [".".join(["all", *parts[:depth]]) for depth in range(len(parts) + 1)]
        for parent, path, part in zip(paths, paths[1:], parts, strict=False):
            nodes.setdefault(path, _node(part, parent, "var(--phase-forward)"))
        nodes[paths[-1]].own_bytes += row.num_bytes
        _count(nodes[paths[-1]].own_categories, row.by_category)
        for path in paths:
            nodes[path].total_bytes += row.num_bytes
            _count(nodes[path].by_category, row.by_category)
    return nodes


def _count(sums: dict[str, int], by_category: Mapping[str, int]) -> None:
    for category, num_bytes in by_category.items():
        sums[category] = sums.get(category, 0) + num_bytes


def _add_categories(nodes: dict[str, _Node]) -> None:
    """Add to each module a rectangle for each category of its own bytes; only they are coloured."""
    for path, node in list(nodes.items()):
        for category in stack_order(list(node.own_categories)):
            ink, num_bytes = category_ink(category), node.own_categories[category]
            leaf = _node(ink.label, path, ink.color)
            leaf.own_bytes = leaf.total_bytes = num_bytes
            leaf.by_category = {category: num_bytes}
            # No module path holds two dots in a row.
            nodes[f"{path}..{category}"] = leaf


def _natural(module: str | None) -> tuple[int, list[tuple[int, str]]]:
    """Return the sort key of a module path: numbers by value; what is outside any module comes last."""
    if module is None:
        return 1, []
    return 0, [(int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in module.split(".")]


def _module_hover(path: str, node: _Node) -> str:
    """Return what the pointer shows: whole and own bytes, and the categories, largest first."""
    name = "all modules" if path == "all" else path.removeprefix("all.").replace("..", ": ")
    lines = [f"<b>{html.escape(name, quote=False)}</b>  {format_bytes(node.total_bytes)}"]
    if 0 < node.own_bytes < node.total_bytes:
        lines.append(f"of its own, without the modules in it: {format_bytes(node.own_bytes)}")
    for category, num_bytes in sorted(node.by_category.items(), key=lambda item: -item[1]):
        lines.append(f"{html.escape(category_ink(category).label, quote=False)}  {format_bytes(num_bytes)}")
    return "<br>".join(lines)
