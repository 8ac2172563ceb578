"""The columns of a table of layouts: which there are, what may stand in them, and what an empty cell means.

In: the cells of one row by column, as text (CSV) or as JSON has them. Out: checked values, or an error that names the
row and the column. A table is from outside: nothing in it is believed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from memtrace.errors import MemtraceError
from memtrace.forecast.memory.layout import ATTENTION, FRAMEWORKS, LOSSES, RECOMPUTE, SCHEDULES
from memtrace.forecast.memory.optimizers import OPTIMIZERS
from memtrace.forecast.model.precision import PRECISIONS
from memtrace.forecast.model.spec import MAX_LAYERS

MAX_CELL = 200
"""Characters of a cell that are believed: no name is longer."""
_YES, _NO = ("yes", "true", "1"), ("no", "false", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table of layouts."""

    read: Callable[[Any], Any]
    """Makes a value of a cell; raises ValueError with what it must be."""
    meaning: str
    """A line for the documentation."""


def _whole(most: int) -> Callable[[Any], int]:
    def read(cell: Any) -> int:
        text = str(cell).strip()
        is_number = isinstance(cell, (int, float, str)) and not isinstance(cell, bool) and len(text) <= 30
        try:
            number = float(text) if is_number else math.nan
        except ValueError:
            number = math.nan
        if not 1 <= number <= most or number != int(number):
            raise ValueError(f"must be a whole number from 1 to {most:,}")
        return int(number)

    return read


def _zero_stage(cell: Any) -> int:
    try:
        return 0 if str(cell).strip() in ("0", "0.0") else _whole(3)(cell)
    except ValueError:
        raise ValueError("must be 0, 1, 2 or 3") from None


def _speed(cell: Any) -> float:
    try:
        number = math.nan if isinstance(cell, bool) else float(str(cell)[:30])
    except ValueError:
        number = math.nan
    if not 0 < number <= 1e9:
        raise ValueError("must be a number of GB/s above 0")
    return number


def _flag(cell: Any) -> bool:
    text = str(cell).strip().lower()
    if text not in _YES + _NO:
        raise ValueError("must be yes or no")
    return text in _YES


def _text(cell: Any) -> str:
    if not isinstance(cell, str):
        raise ValueError("must be a text")
    return cell.strip()


def _one_of(names: Any) -> Callable[[Any], str]:
    def read(cell: Any) -> str:
        text = _text(cell).lower()
        if text not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return text

    return read


_SIZE, _FEW = _whole(10**9), _whole(10**6)
MODEL_COLUMNS = ("model", "hidden", "layers", "heads", "kv_heads", "ffn", "vocabulary", "gated", "tied")

COLUMNS: dict[str, Column] = {
    "model": Column(read=_text, meaning="name of a preset, as `llama-3-8b`; or else dimensions"),
    "hidden": Column(read=_whole(10**7), meaning="hidden size"),
    "layers": Column(read=_whole(MAX_LAYERS), meaning="layers"),
    "heads": Column(read=_FEW, meaning="attention heads"),
    "kv_heads": Column(read=_FEW, meaning="heads of keys and values; as many as heads"),
    "ffn": Column(read=_whole(10**7), meaning="inner width of the MLP; four times the hidden size"),
    "vocabulary": Column(read=_SIZE, meaning="rows of the embedding; 50257"),
    "gated": Column(
        read=_flag,
        meaning="whether the MLP has a gate; yes with nanotron and torchtitan, or where `ffn` is not 4·`hidden`",
    ),
    "tied": Column(
        read=_flag, meaning="whether the head shares the embedding; yes, but with a gate only below 4 billion"
    ),
    "gpu": Column(read=_text, meaning="a name that `--gpu` takes"),
    "gpus_per_node": Column(read=_FEW, meaning="GPUs that fast links connect; 8, or what the GPU usually has"),
    "intra_gbs": Column(read=_speed, meaning="GB/s between GPUs of a node, one way; the data sheet's"),
    "inter_gbs": Column(read=_speed, meaning="GB/s between nodes, one way and per GPU; that of usual machines"),
    "sequence": Column(read=_SIZE, meaning="tokens of a sequence"),
    "micro_batch": Column(read=_FEW, meaning="sequences of one forward pass on a rank; 1"),
    "accumulation": Column(read=_FEW, meaning="micro-batches of a step; 1"),
    "dp": Column(read=_FEW, meaning="data-parallel ranks; 1"),
    "tp": Column(read=_FEW, meaning="tensor-parallel ranks; 1"),
    "pp": Column(read=_FEW, meaning="pipeline stages; 1"),
    "virtual_stages": Column(read=_FEW, meaning="stages of a rank in an interleaved schedule; 1"),
    "group": Column(
        read=_FEW, meaning="micro-batches that a stage of an interleaved schedule runs in a row; as many as ranks"
    ),
    "schedule": Column(
        read=_one_of(SCHEDULES), meaning="1f1b, zb-h1 or zbv (zero bubble); 1f1b, interleaved with `virtual_stages`"
    ),
    "cp": Column(read=_FEW, meaning="context-parallel ranks; 1"),
    "ep": Column(read=_FEW, meaning="expert-parallel ranks; 1"),
    "zero": Column(read=_zero_stage, meaning="ZeRO stage, 3 is FSDP; 0"),
    "reshard": Column(
        read=_flag, meaning="whether FSDP gives weights back after forward; no in torchtitan's pipelines, else yes"
    ),
    "recompute": Column(read=_one_of(RECOMPUTE), meaning="none, selective or full; none"),
    "precision": Column(
        read=_one_of(PRECISIONS),
        meaning="a recipe, as `--precision`; bf16-mixed, which as fp8-mixed is the framework's own",
    ),
    "loss": Column(
        read=_one_of(LOSSES),
        meaning="plain, parallel, fused or chunked; plain, and parallel with megatron, deepspeed and nanotron",
    ),
    "framework": Column(
        read=_one_of(FRAMEWORKS), meaning="megatron, torchtitan, nanotron, deepspeed (with Megatron) or fsdp; none"
    ),
    "attention": Column(
        read=_one_of(ATTENTION),
        meaning="flash, sdpa or explicit; flash, but explicit with deepspeed and where megatron recomputes selectively",
    ),
    "optimizer": Column(read=_one_of(OPTIMIZERS), meaning="as `--optimizer`; adamw"),
}
"""By name, in the order of the documentation."""


def read_cells(cells: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return the values of one row; an empty cell has none.

    >>> read_cells({"model": "gpt2", "dp": "8", "tp": "", "zero": 1, "reshard": True}, 1)
    {'model': 'gpt2', 'dp': 8, 'zero': 1, 'reshard': True}

    Raises:
        MemtraceError: a cell holds what its column cannot.
    """
    found = {}
    for name, cell in cells.items():
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            continue
        try:
            if len(str(cell)) > MAX_CELL:
                raise ValueError(f"is longer than {MAX_CELL} characters")
            found[name] = COLUMNS[name].read(cell)
        except ValueError as error:
            raise wrong(number, name, f"{error}, not {str(cell)[:60]!r}") from None
    return found


def wrong(number: int, name: str, message: str) -> MemtraceError:
    """Return the error of one cell; rows are counted from 1, without the line of names."""
    return MemtraceError(f"row {number:,}, column {name}: {message}", hint="docs/plan.md lists what each column takes")
