"""Names with one meaning each (see the glossary): actions, categories, phases, decisions, sources.

They are stored as their names, never as an index.
"""

from __future__ import annotations

import re
from enum import Enum


class _Name(str, Enum):
    """A string that prints as itself, so that stored and shown names are the same."""

    def __str__(self) -> str:
        return str(self.value)


DEFAULT_POOL = "0,0"
"""The id of the pool of all allocations that are in no private one, as torch writes it."""


class Action(_Name):
    """What the allocator recorded."""

    ALLOC = "alloc"
    FREE_REQUESTED = "free_requested"
    FREE_COMPLETED = "free_completed"
    SEGMENT_ALLOC = "segment_alloc"
    SEGMENT_FREE = "segment_free"
    SEGMENT_MAP = "segment_map"
    SEGMENT_UNMAP = "segment_unmap"
    SNAPSHOT = "snapshot"
    OOM = "oom"
    ANNOTATE = "annotate"


class Category(_Name):
    """What bytes are for. `UNKNOWN` is shown as "unattributed"."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    GRADIENT = "gradient"
    OPTIMIZER_STATE = "optimizer_state"
    ACTIVATION = "activation"
    INPUT = "input"
    TEMPORARY = "temporary"
    AUTOGRAD_DETAIL = "autograd_detail"
    COMMUNICATION = "communication"
    WORKSPACE = "workspace"
    UNKNOWN = "unknown"


CATEGORY_WORDS = {
    Category.PARAMETER: "parameters",
    Category.BUFFER: "buffers",
    Category.GRADIENT: "gradients",
    Category.OPTIMIZER_STATE: "optimizer state",
    Category.ACTIVATION: "activations",
    Category.INPUT: "inputs",
    Category.TEMPORARY: "temporaries",
    Category.AUTOGRAD_DETAIL: "autograd details",
    Category.COMMUNICATION: "communication buffers",
    Category.WORKSPACE: "workspaces",
    Category.UNKNOWN: "unattributed",
}
"""What the bytes of a category are called wherever people read it: in sentences, tables, legends and on the page."""


def category_words(name: str) -> str:
    """Return what a category is called; one that this version does not know under its own name.

    >>> category_words("activation"), category_words("unknown"), category_words("kv_cache")
    ('activations', 'unattributed', 'kv cache')
    """
    known = {one.value: words for one, words in CATEGORY_WORDS.items()}
    return known.get(name) or name.replace("_", " ")


def category_named(text: str) -> Category | None:
    """Return the category of this name, or that is shown in these words; `None` if there is none.

    >>> category_named("optimizer_state") is category_named("Optimizer states") is Category.OPTIMIZER_STATE
    True
    >>> category_named("unattributed"), category_named("weights"), category_named("memory")
    (<Category.UNKNOWN: 'unknown'>, <Category.PARAMETER: 'parameter'>, None)
    """
    return _BY_WORDS.get(_plain(text))


def _plain(text: str) -> str:
    """Return words in small letters, each without the ending of a plural.

    >>> _plain("Autograd-Details"), _plain("temporaries")
    ('autograd detail', 'temporary')
    """
    words = re.split(r"[\s_-]+", text.strip().lower())
    return " ".join(re.sub("ies$", "y", word).removesuffix("s") for word in words)


_BY_WORDS = {
    **{_plain(category.value): category for category in Category},
    **{_plain(words): category for category, words in CATEGORY_WORDS.items()},
    "weight": Category.PARAMETER,
}


class Decision(_Name):
    """How a category was decided, strongest first. Only `OWNER` and `HOOK` are exact."""

    OWNER = "owner"
    HOOK = "hook"
    ANNOTATION = "annotation"
    STACK_RULE = "stack_rule"
    LIFETIME_RULE = "lifetime_rule"
    UNKNOWN = "unknown"


class Role(_Name):
    """Which part an allocation plays within its category."""

    NONE = "none"
    SAVED = "saved"
    """An activation that autograd keeps for the backward pass."""
    OUTPUT = "output"
    """An activation that outlives its forward pass unsaved: logits, loss."""
    RECOMPUTED = "recomputed"
    """An activation that checkpointing computed again in backward."""


class Phase(_Name):
    """What a training loop was doing."""

    FORWARD = "forward"
    BACKWARD = "backward"
    OPTIMIZER = "optimizer"
    RECOMPUTE = "recompute"
    EVALUATION = "evaluation"
    """Forward passes that train nothing: validation, sampling."""
    DATA = "data"
    OTHER = "other"


class Source(_Name):
    """Where a trace came from."""

    RECORDED = "recorded"
    SNAPSHOT = "snapshot"
    KINETO = "kineto"
    PREDICTED = "predicted"


class CpuEvents(_Name):
    """What recorded the CPU's events, as the header's `sources` say it."""

    ALLOCATOR = "cpu_allocator"
    PROFILER = "cpu_profiler"


class BlockState(_Name):
    """State of a block inside a segment, as torch writes it."""

    ACTIVE_ALLOCATED = "active_allocated"
    ACTIVE_PENDING_FREE = "active_pending_free"
    INACTIVE = "inactive"


def module_words(module: str) -> str:
    """Return the name of a module as it can stand in a sentence: those of an `nn.Sequential` are numbers.

    >>> module_words("blocks.3"), module_words("13"), module_words("2.0")
    ('blocks.3', 'module 13', 'module 2.0')
    """
    return module if any(map(str.isalpha, module)) else f"module {module}"
