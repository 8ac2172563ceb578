"""Predictions as text and as a JSON document (`memtrace-predict`, version 1).

In: `Prediction`. Out: text, or JSON. Every number shown is a field of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

import orjson

from memtrace.forecast.prediction.results import Doubt, GpuVerdict, Interval, Prediction, Range, RankVerdict, StepPeak
from memtrace.report.drawing.markup import visible
from memtrace.report.terminal.columns import aligned
from memtrace.schema.predicted import DRIVERLESS
from memtrace.units import format_bytes

FORMAT = "memtrace-predict"
VERSION = 1


def predict_json(prediction: Prediction) -> bytes:
    """Return the document as indented UTF-8 JSON with a newline at its end."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "command": list(prediction.command),
        "trace": prediction.trace_path,
        "torch": prediction.torch_version,
        "engine": prediction.engine.name,
        "engine_reason": prediction.engine.why,
        "num_steps": prediction.num_steps,
        "world_size": prediction.world_size,
        "rank": prediction.rank,
        "ranks": [_rank_document(one) for one in prediction.ranks],
        **_gpu_document(prediction.chosen),
        **_interval_document(prediction.chosen.interval),
        "convolutions": [asdict(one) for one in prediction.convolutions],
        "first_step_peak": _peak_document(prediction.first_step),
        "steady_state_peak": _peak_document(prediction.steady_state),
        "gpus": [_listed_document(one) for one in prediction.others],
        "not_predicted": [{"gpu": name, "reason": reason} for name, reason in prediction.refused],
        "warnings": [{"slug": slug, "message": message} for slug, message in prediction.warnings],
    }
    return orjson.dumps(visible(document), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _gpu_document(verdict: GpuVerdict) -> dict[str, Any]:
    failed = verdict.failed
    return {
        "gpu": verdict.gpu.name,
        "capability": list(verdict.gpu.capability),
        "memory_bytes": verdict.gpu.memory_bytes,
        "ran_as": verdict.ran_as.name,
        "fits": verdict.fits,
        "is_close": verdict.is_close,
        "capacity_bytes": verdict.capacity_bytes,
        "peak_allocated_bytes": verdict.peak_allocated_bytes,
        "max_reserved_bytes": verdict.max_reserved_bytes,
        "context_bytes": verdict.context_bytes,
        "headroom_bytes": verdict.headroom_bytes,
        "num_alloc_retries": verdict.num_retries,
        "failed": None
        if failed is None
        else {
            "step": verdict.failed_step,
            "request_bytes": failed.size_bytes,
            "allocated_bytes": failed.allocated_bytes,
            "reserved_bytes": failed.reserved_bytes,
        },
    }


def _listed_document(verdict: GpuVerdict) -> dict[str, Any]:
    return {**_gpu_document(verdict), "interval": _ranges(verdict.interval)}


def _rank_document(rank: RankVerdict) -> dict[str, Any]:
    return {"rank": rank.rank, "trace": rank.trace_path, **_listed_document(rank.verdict)}


def _interval_document(interval: Interval) -> dict[str, Any]:
    return {"interval": _ranges(interval), "doubts": [asdict(one) for one in interval.doubts]}


def _ranges(interval: Interval) -> dict[str, Any]:
    return {
        "allocated": asdict(interval.allocated),
        "reserved": asdict(interval.reserved),
        "context": asdict(interval.context),
        "device": asdict(interval.device),
    }


def _peak_document(peak: StepPeak | None) -> dict[str, Any] | None:
    return None if peak is None else {**asdict(peak), "by_category": dict(peak.by_category)}


def predict_text(prediction: Prediction) -> str:
    """Return what is predicted as text for a terminal."""
    interval = prediction.chosen.interval
    lines = [verdict_sentence(prediction.chosen), *_rank_lines(prediction), engine_sentence(prediction), ""]
    lines += _range_lines(interval)
    lines += ["", "What may make it more or less:", *map(_doubt_line, interval.doubts)]
    lines += _convolution_lines(prediction)
    own = {one.slug for one in interval.doubts} | {"predicted-interval"}
    lines += [f"  - {message}" for slug, message in prediction.warnings if slug not in own or slug in _WITH_PLACES]
    if prediction.others:
        lines += ["", *_table(prediction.others)]
    lines += [f"  {name}: {reason}" for name, reason in prediction.refused]
    return "\n".join(str(visible(line)).rstrip() for line in lines) + "\n"


_WITH_PLACES = frozenset({"predicted-bound", "predicted-values", "predicted-operator"})
"""Notes that name file and line, beside the doubt that sums them up."""


def verdict_sentence(verdict: GpuVerdict) -> str:
    """Return whether it fits, and what it needs, in words."""
    needs = f"allocates {format_bytes(verdict.peak_allocated_bytes)} and reserves "
    needs += format_bytes(verdict.max_reserved_bytes)
    name, capacity = verdict.gpu.name, format_bytes(verdict.capacity_bytes)
    close = " It is close: the range holds both answers." if verdict.is_close else ""
    if verdict.failed is None:
        return f"Fits on {name}: it {needs} at most, of {capacity} beside the context.{_by_retries(verdict)}{close}"
    request = format_bytes(verdict.failed.size_bytes)
    return (
        f"Does not fit on {name}: in step {verdict.failed_step} a request of {request} fails, with "
        f"{format_bytes(verdict.failed.allocated_bytes)} allocated of {capacity} beside the context; "
        f"with memory without end it {needs}.{close}"
    )


def _by_retries(verdict: GpuVerdict) -> str:
    """Return by what it fits, where cached memory had to be given back."""
    if not verdict.num_retries:
        return ""
    times = "once" if verdict.num_retries == 1 else f"{verdict.num_retries} times"
    return f" It only just does: {times} the allocator gave cached memory back to make room, which takes time."


def engine_sentence(prediction: Prediction) -> str:
    """Return what stood for the GPU, and why, in words."""
    engine, version = prediction.engine, prediction.torch_version
    torch = "torch" if version is None else f"torch {version}"
    if engine.name == DRIVERLESS:
        return f"Engine driverless: {torch}'s own CUDA code asked for and reserved this memory ({engine.why})."
    return f"Engine meta: the operators of {torch}, rules, and a model of its allocator say so ({engine.why})."


def _range_lines(interval: Interval) -> list[str]:
    rows = [("", "at least", "predicted", "at most")]
    named = (("allocated", interval.allocated), ("reserved", interval.reserved), ("context", interval.context))
    rows += [(name, *_cells(one)) for name, one in (*named, ("the GPU must have", interval.device))]
    return aligned(rows)


def _cells(one: Range) -> tuple[str, str, str]:
    return format_bytes(one.low_bytes), format_bytes(one.predicted_bytes), format_bytes(one.high_bytes)


def _doubt_line(doubt: Doubt) -> str:
    sides = ((doubt.less_bytes, "less"), (doubt.more_bytes, "more"))
    known = [f"{format_bytes(size)} {word}" for size, word in sides if size]
    if doubt.less_bytes is None and doubt.more_bytes is None:
        known = ["not in the range"]
    how_much = f" ({', '.join(known)})" if known else ""
    return f"  - {doubt.message}{how_much}"


def _rank_lines(prediction: Prediction) -> Iterator[str]:
    """Yield which of several ranks that is, and a line a rank where there is more than one."""
    if prediction.world_size == 1:
        return
    if not prediction.ranks:
        yield f"It ran as rank {prediction.rank} of {prediction.world_size}."
        return
    yield f"That is rank {prediction.rank}, the fullest of the {len(prediction.ranks)} that ran:"
    yield ""
    rows = [
        (
            f"rank {one.rank}",
            _answer(one.verdict),
            format_bytes(one.verdict.peak_allocated_bytes),
            format_bytes(one.verdict.max_reserved_bytes),
            _headroom(one.verdict.headroom_bytes),
        )
        for one in prediction.ranks
    ]
    yield from aligned([("", "", "allocated", "reserved", "head room"), *rows], text_columns=(0, 1))
    yield ""


_MOST_LAYERS = 8


def _convolution_lines(prediction: Prediction) -> Iterator[str]:
    """Yield which convolutions may raise the peak by their scratch, and by how much."""
    layers = [one for one in prediction.convolutions if one.more_bytes]
    if not prediction.convolutions:
        return
    num_others = len(prediction.convolutions) - len(layers)
    if not layers:
        least = "the convolution" if num_others == 1 else f"any of the {num_others} convolutions"
        yield f"    the scratch of {least} fits under the peak: it may raise what is reserved, not what is allocated"
        return
    rows = [
        (
            f"  {one.module or '?'}",
            "" if one.file is None else f"{PurePath(one.file).name}:{one.line}",
            format_bytes(one.workspace_bytes),
            f"{format_bytes(one.more_bytes)} more",
        )
        for one in layers[:_MOST_LAYERS]
    ]
    yield from aligned([("  scratch of", "", "at most", "at the peak"), *rows], text_columns=(0, 1))
    more = [f"and {len(layers) - _MOST_LAYERS} more"] if len(layers) > _MOST_LAYERS else []
    more += [f"{num_others} of which none raises the peak"] if num_others else []
    if more:
        yield f"    {', '.join(more)}"


def _table(verdicts: Sequence[GpuVerdict]) -> Iterator[str]:
    """Yield a line a GPU, and whose kernels each has."""
    head = ("GPU", "memory", "", "allocated", "reserved", "context", "head room", "kernels of")
    rows = [
        (
            one.gpu.name,
            format_bytes(one.gpu.memory_bytes),
            _answer(one),
            format_bytes(one.peak_allocated_bytes),
            format_bytes(one.max_reserved_bytes),
            format_bytes(one.context_bytes),
            _headroom(one.headroom_bytes),
            f"capability {'.'.join(map(str, one.gpu.capability))}",
        )
        for one in verdicts
    ]
    yield from aligned([head, *rows], text_columns=(0, 2, 7))
    told = sorted({(one.gpu.capability, one.ran_as.name) for one in verdicts})
    yield ""
    names = ", ".join(name for _, name in told)
    yield f"The program ran once for each compute capability, and was told that its GPU is: {names}."


def _answer(verdict: GpuVerdict) -> str:
    words = "fits" if verdict.fits else "too small"
    return f"{words}, close" if verdict.is_close else words


def _headroom(num_bytes: int) -> str:
    return format_bytes(num_bytes) if num_bytes >= 0 else f"-{format_bytes(-num_bytes)}"
