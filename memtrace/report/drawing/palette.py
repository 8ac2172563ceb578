"""Colours, once for Python, CSS and canvas: which colour, label and place in the stack each category and phase has.

The category colours are those of Okabe and Ito (2008), which people with any colour vision tell apart, and four more of
clearly different lightness. Unattributed bytes are grey *and hatched*, so that they are never taken for a category.
"""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.schema.names import CATEGORY_WORDS, Category, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Ink:
    """How one category or phase is drawn."""

    label: str
    """What people read."""
    color: str
    """CSS colour; the same in light and dark."""
    hatched: bool = False
    """Whether it is hatched as well as coloured."""


CATEGORIES: dict[str, Ink] = {
    # In the order of the stack: what stays is at the bottom, so that the band that moves is on top and easy to read.
    Category.PARAMETER.value: Ink(label=CATEGORY_WORDS[Category.PARAMETER], color="#0072B2"),
    Category.BUFFER.value: Ink(label=CATEGORY_WORDS[Category.BUFFER], color="#6A5FC1"),
    Category.OPTIMIZER_STATE.value: Ink(label=CATEGORY_WORDS[Category.OPTIMIZER_STATE], color="#CC79A7"),
    Category.GRADIENT.value: Ink(label=CATEGORY_WORDS[Category.GRADIENT], color="#009E73"),
    Category.ACTIVATION.value: Ink(label=CATEGORY_WORDS[Category.ACTIVATION], color="#E69F00"),
    Category.AUTOGRAD_DETAIL.value: Ink(label=CATEGORY_WORDS[Category.AUTOGRAD_DETAIL], color="#8A5A2B"),
    Category.INPUT.value: Ink(label=CATEGORY_WORDS[Category.INPUT], color="#F0E442"),
    Category.TEMPORARY.value: Ink(label=CATEGORY_WORDS[Category.TEMPORARY], color="#56B4E9"),
    Category.WORKSPACE.value: Ink(label=CATEGORY_WORDS[Category.WORKSPACE], color="#7A8B2D"),
    Category.COMMUNICATION.value: Ink(label=CATEGORY_WORDS[Category.COMMUNICATION], color="#D55E00"),
    Category.UNKNOWN.value: Ink(label=CATEGORY_WORDS[Category.UNKNOWN], color="#8B929C", hatched=True),
}
"""By category name, bottom of the stack first."""

PHASES: dict[str, Ink] = {
    # Slate of different depth: a second rainbow under the first would be read as categories.
    Phase.DATA.value: Ink(label="data", color="var(--phase-data)"),
    Phase.FORWARD.value: Ink(label="forward", color="var(--phase-forward)"),
    Phase.BACKWARD.value: Ink(label="backward", color="var(--phase-backward)"),
    Phase.RECOMPUTE.value: Ink(label="recompute", color="var(--phase-backward)", hatched=True),
    Phase.OPTIMIZER.value: Ink(label="optimizer", color="var(--phase-optimizer)"),
    Phase.EVALUATION.value: Ink(label="evaluation", color="var(--phase-evaluation)"),
    Phase.OTHER.value: Ink(label="other", color="var(--phase-other)"),
}
"""By phase name, in the order in which a step goes through them."""

TIMES: dict[str, Ink] = {
    # Work is slate, as phases are; only what costs time has a colour.
    "compute": Ink(label="compute", color="var(--time-compute)"),
    "hidden": Ink(label="communication under compute", color="var(--time-hidden)"),
    "exposed": Ink(label="communication, nothing computed", color="var(--time-exposed)"),
    "copy": Ink(label="copies and fills", color="var(--time-copy)"),
    "other": Ink(label="work of other steps", color="var(--time-other)"),
    "unseen": Ink(label="not profiled", color="var(--grid)", hatched=True),
    "idle": Ink(label="idle", color="var(--time-idle)"),
    "data": Ink(label="waits for data", color="var(--time-data)"),
    "allocator": Ink(label="device memory calls", color="var(--time-allocator)"),
}
"""What the time of a GPU goes into, in the order of the lanes."""

THEMES: dict[str, dict[str, str]] = {
    "light": {
        "page": "#f7f7f5",
        "panel": "#ffffff",
        "ink": "#191d23",
        "muted": "#5c6570",
        "line": "#e3e5e8",
        "grid": "#eceef0",
        "free": "#e4e7ea",
        "accent": "#0b5cad",
        "good": "#1c7c54",
        "warn": "#8a5200",
        "bad": "#b3261e",
        "bad-soft": "#fdf0ee",
        "phase-data": "#eef1f4",
        "phase-forward": "#d6dde5",
        "phase-backward": "#aab6c3",
        "phase-optimizer": "#7e8c9b",
        "phase-optimizer-ink": "#0b0d10",
        "phase-evaluation": "#c9c3d6",
        "phase-other": "#f3f4f6",
        "time-compute": "#5d6f82",
        "time-hidden": "#eaa67c",
        "time-exposed": "#d55e00",
        "time-copy": "#9fb1c3",
        "time-other": "#cdd5dd",
        "time-idle": "#e4e7ea",
        "time-data": "#b8860b",
        "time-allocator": "#b3261e",
        "hatch": "rgba(255, 255, 255, 0.62)",
    },
    "dark": {
        "page": "#101317",
        "panel": "#171b20",
        "ink": "#e8ebef",
        "muted": "#9ba5b1",
        "line": "#2a3038",
        "grid": "#232930",
        "free": "#2b323a",
        "accent": "#6fb3f2",
        "good": "#5fc79a",
        "warn": "#e3ad5b",
        "bad": "#f2867c",
        "bad-soft": "#2b1a1a",
        "phase-data": "#1f252c",
        "phase-forward": "#2f3842",
        "phase-backward": "#485563",
        "phase-optimizer": "#667586",
        "phase-optimizer-ink": "#ffffff",
        "phase-evaluation": "#544c66",
        "phase-other": "#1b2026",
        "time-compute": "#8ea1b5",
        "time-hidden": "#a9653a",
        "time-exposed": "#f07f2d",
        "time-copy": "#56687a",
        "time-other": "#3a444f",
        "time-idle": "#2b323a",
        "time-data": "#e3ad5b",
        "time-allocator": "#f2867c",
        "hatch": "rgba(16, 19, 23, 0.55)",
    },
}
"""Colours of page and figures by theme; both use them as CSS variables of the same names."""


def category_ink(category: str) -> Ink:
    """Return how a category is drawn; one that this version does not know is drawn as unattributed, under its name."""
    known = CATEGORIES.get(category)
    return known or Ink(label=category.replace("_", " "), color=CATEGORIES[Category.UNKNOWN.value].color, hatched=True)


def phase_ink(phase: str) -> Ink:
    """Return how a phase is drawn."""
    return PHASES.get(phase) or Ink(label=phase, color="var(--phase-other)")


def stack_order(categories: list[str]) -> list[str]:
    """Return category names, bottom of the stack first; unknown names go below *unattributed*."""
    places = {name: place for place, name in enumerate(CATEGORIES)}
    last = places[Category.UNKNOWN.value]
    return sorted(categories, key=lambda name: (places.get(name, last - 0.5), name))


def css_variables() -> str:
    """Return the style rules that set every theme's colours and every category's colour."""
    light, dark = (_declarations(theme) for theme in (THEMES["light"], THEMES["dark"]))
    categories = "".join(f"--category-{name}:{ink.color};" for name, ink in CATEGORIES.items())
    return (
        f":root{{color-scheme:light;{light}{categories}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}\n"
    )


def _declarations(theme: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in theme.items())
