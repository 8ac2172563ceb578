"""The logits: where the vocabulary is large, they and their copies in the loss are the largest tensors of a run.

In: `Case` with saved tensors. Out: a `Finding`. The loss saves the logarithms of the softmax, so their shape is known:
a row a token, a column a word. The logits, a copy of them in another type, and the gradients of both have as many
elements, and are what else of that size is made between forward and the end of backward.
"""

from __future__ import annotations

import math
import re

import numpy as np

from memtrace.analysis.advice.case import Case, Cut
from memtrace.analysis.advice.kept_for_backward import kept_by, parameter_shapes, shapes
from memtrace.analysis.advice.passes import all_passes
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Category, Phase
from memtrace.schema.shapes import parse_shape
from memtrace.store.columns import IntArray
from memtrace.units import format_bytes

_LOSS = re.compile(r"LogSoftmax|NllLoss\w*|CrossEntropyLoss\w*")
_CHOICE = re.compile(r"Gather|Logsumexp")
"""What takes the logarithms of chosen words out of those of all: of these only rows of a vocabulary count."""
_NUM_CHUNKS = 8
_WORTH_REWRITING_SHARE = 0.1
"""Less than this part of the peak is no reason to rewrite a loss: any classifier has logits."""
_ITEM_SIZES = (2, 4)
_CHANGE = (
    f"Compute head and loss for an {_NUM_CHUNKS}th of the tokens at a time, each part under "
    "torch.utils.checkpoint.checkpoint, or use a fused linear cross-entropy (as in liger-kernel)."
)
_CHANGE_OF_CHOICE = (
    f"Only one word of each row is used: compute head, log_softmax and gather for an {_NUM_CHUNKS}th of the tokens at "
    "a time, each part under torch.utils.checkpoint.checkpoint, or logits.gather(…) - logits.logsumexp(-1) row by row "
    "(selective_log_softmax in trl)."
)
_OTHER_OWNER = (Category.PARAMETER, Category.BUFFER, Category.GRADIENT, Category.OPTIMIZER_STATE, Category.INPUT)


def logits_in_chunks(case: Case) -> Finding | None:
    """Return the advice to compute logits and loss in chunks, where all logits at once make the peak."""
    of_loss, of_choice = (_tables(case, pattern) for pattern in (_LOSS, _CHOICE))
    widths = {width for shape in parameter_shapes(case) if len(shape) == 2 for width in shape}
    chosen = [shape for shape in of_choice if shape[-1] in widths]
    if not of_loss and not chosen:
        return None
    shape = max([*of_loss, *chosen], key=math.prod)
    copies = _copies(case, shape)
    sizes = case.lifetimes.size_bytes[copies]
    cut = case.cut(copies, sizes - sizes // _NUM_CHUNKS)
    new_peak = case.new_peak(cut, *_summed_gradient(case, shape))
    if new_peak is None or case.peak_bytes - new_peak < _WORTH_REWRITING_SHARE * case.peak_bytes:
        return None
    at_peak = copies[np.isin(copies, case.live_at_peak)]
    num_bytes = int(case.lifetimes.size_bytes[at_peak].sum())
    return Finding(
        slug="large-logits",
        severity="warning",
        title=f"The logits and their copies in the loss make up {format_bytes(num_bytes)} of the peak",
        evidence={
            "logits_at_peak_bytes": num_bytes,
            "num_copies_at_peak": len(at_peak),
            "num_tokens": math.prod(shape) // shape[-1],
            "vocabulary": shape[-1],
            "one_copy_bytes": int(case.lifetimes.size_bytes[at_peak].max()),
        },
        change=_CHANGE if shape in of_loss else _CHANGE_OF_CHOICE,
        cost="The product of the head is computed twice; a fused kernel does without.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=place_of(case.history, at_peak),
    )


def _tables(case: Case, operators: re.Pattern[str]) -> list[tuple[int, ...]]:
    """Return the shapes, of two dimensions at least, that some operators keep."""
    rows = np.flatnonzero(kept_by(case, lambda name: operators.fullmatch(name) is not None))
    return [shape for shape in shapes(case, rows) if shape is not None and len(shape) >= 2]


def _copies(case: Case, shape: tuple[int, ...]) -> IntArray:
    """Return the allocations that hold logits, in any type and order of dimensions."""
    sizes = np.array([math.prod(shape) * item for item in _ITEM_SIZES], np.int64)
    such = np.isin(case.lifetimes.size_bytes, sizes) & ~case.is_category(*_OTHER_OWNER)
    rows = np.flatnonzero(such & case.in_phase(Phase.FORWARD, Phase.BACKWARD, Phase.RECOMPUTE))
    # What was saved under another shape only happens to be as large.
    of_words = [known is None or shape[-1] in known for known in shapes(case, rows)]
    return rows[np.array(of_words, np.bool_)]


def _summed_gradient(case: Case, shape: tuple[int, ...]) -> list[Cut]:
    """Return the gradient of the head, to which every chunk adds, as bytes that are there in all of backward."""
    rank, owners = case.history.rank, case.history.rank.table("owners")
    of_parameters = owners["category"] == rank.string_id(Category.PARAMETER.value)
    of_words = [
        text
        for text in np.unique(owners["shape"][of_parameters]).tolist()
        if len(known := parse_shape(rank.text(text)) or ()) == 2 and shape[-1] in known
    ]
    num_bytes = int(owners["tensor_bytes"][of_parameters & np.isin(owners["shape"], of_words)].max(initial=0))
    passes = all_passes(case)
    return [
        Cut(
            start=np.array([one.backward for one in passes], np.int64),
            end=np.array([one.end for one in passes], np.int64),
            size_bytes=np.full(len(passes), -num_bytes, np.int64),
        )
    ]
