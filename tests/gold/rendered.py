"""What the gold files hold: the whole text, JSON and page payload of each committed recording, as text to compare.

In: the recordings in `traces/`. Out: the content of each gold file by its name. Nothing here needs torch.

What may vary without a change of the code is taken out here and nowhere else: the version of memtrace is written as
`VERSION`, and recordings are read from inside their folder, so that no absolute path is shown. Packed arrays and
columns are unpacked; a long one is given by its length, bounds, sum, some values and a hash of all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import IO, Any
from unittest import mock

import numpy as np
import orjson

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Report
from memtrace.forecast.gpus import gpu_named, gpus_named
from memtrace.forecast.prediction.judge import judge_all, placed_trace, prediction_of
from memtrace.parallel.run import report_of
from memtrace.report.answers.predict import predict_json, predict_text
from memtrace.report.json.report import report_json
from memtrace.report.page.data.packed_map import PackedMap
from memtrace.report.page.data.payload import report_payload
from memtrace.report.page.report import packed_maps
from memtrace.report.terminal.report import print_report, render_text
from memtrace.store.reading.read import read_trace

FOLDER = Path(__file__).parent
TRACES = FOLDER / "traces"
ANSWERS = "answers"
"""The folder of gold files that are not of a report."""
ACTUAL = FOLDER / "actual"
"""Where a failing test leaves what came out instead; git ignores it."""
VERSION = "VERSION"
MIB = 1 << 20
PREDICTED_ON = "a100-40gb"
NUM_STEPS = 3
LONGEST = 24
"""A list of more numbers than this is summed up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One recording and how its report is asked for."""

    trace: str
    """File in `traces/`."""
    capacity_bytes: int | None = None
    """Memory of the device, in place of what the trace says."""


CASES = {
    "gpt": Case(trace="gpt.json.gz"),
    "accumulation-checkpointing": Case(trace="accumulation-checkpointing.json.gz"),
    # What samples/README.md judges this sample against.
    "oom": Case(trace="oom.json.gz", capacity_bytes=75 * MIB),
    "leak": Case(trace="leak.json.gz"),
    "snapshot": Case(trace="snapshot.pickle"),
    "oom-snapshot": Case(trace="oom-snapshot.pickle"),
    "ddp": Case(trace="ddp.json.gz"),
    "prediction": Case(trace="prediction.json.gz"),
}
"""Every recording by the name of its gold files."""
PREDICT_FILES = ("prediction.command.txt", "prediction.command.json")
"""What `memtrace predict` itself says, beside the reports."""


def names_of(case: str) -> tuple[str, ...]:
    """Return the names of a case's gold files."""
    own = tuple(f"{case}.{kind}" for kind in ("txt", "terminal.txt", "json", "page.json"))
    return (*own, *PREDICT_FILES) if case == "prediction" else own


def rendered(case: str) -> dict[str, str]:
    """Return the content of each gold file of a case by its name."""
    asked = CASES[case]
    with inside(TRACES):
        contents = _predicted(asked.trace) if case == "prediction" else _reported(_report_of(asked))
    return dict(zip(names_of(case), contents, strict=True))


def _report_of(asked: Case) -> Report:
    return report_of([asked.trace], capacity_bytes=asked.capacity_bytes, with_map=True)


def _reported(report: Report) -> list[str]:
    """Return the text, the JSON and the page of a report."""
    maps = packed_maps(report)
    page = report_payload(report, version=VERSION, maps=maps)
    return [
        render_text(report),
        in_terminal(lambda file: print_report(report, file=file)),
        pretty(json.loads(report_json(report))),
        pretty(unpacked(page, maps)),
    ]


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def in_terminal(show: Callable[[IO[str]], None]) -> str:
    """Return what is written to a terminal of 80 columns and 256 colours, a change of style as `‹1;31›`."""
    file = _Terminal()
    with mock.patch.dict(os.environ, TERM="xterm-256color", COLUMNS="80", LINES="50"):
        for name in ("COLORTERM", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            os.environ.pop(name, None)
        show(file)
    # Spaces have a style too, which nobody sees.
    text = _STYLE.sub(r"‹\1›", _STYLED_SPACES.sub(r"\1", file.getvalue()))
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


_STYLED_SPACES = re.compile(r"\x1b\[[0-9;]*m( +)\x1b\[0m")
_STYLE = re.compile(r"\x1b\[([0-9;]*)m")


def _predicted(trace: str) -> list[str]:
    """Return the report of a run on the fake device, and what `memtrace predict` prints of it as text and as JSON."""
    raw, gpu = read_trace([trace]), gpu_named(PREDICTED_ON)
    placed, verdict = placed_trace(raw, gpu)
    others = judge_all(raw, [one for one in gpus_named("all") if one.capability == gpu.capability], gpu)
    result = prediction_of(placed, verdict, others, refused=(), num_steps=NUM_STEPS, world_size=1)
    return [*_reported(analyze(placed, with_map=True)), predict_text(result), pretty(json.loads(predict_json(result)))]


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work from inside a folder for a while, so that no absolute path is shown."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def unpacked(page: Mapping[str, Any], maps: Mapping[int, PackedMap]) -> dict[str, Any]:
    """Return a payload with its arrays in the places that refer to them, and the columns of its maps beside it."""
    arrays = [np.frombuffer(base64.b64decode(one), "<f8") for one in page["arrays"]]
    # orjson turns tuples and numpy's numbers into what JSON holds, as the page does.
    rest = orjson.loads(orjson.dumps({key: value for key, value in page.items() if key != "arrays"}))
    unpacked: dict[str, Any] = _filled(rest, arrays)
    return {**unpacked, "map_columns": {str(index): _columns(packed) for index, packed in maps.items()}}


def _filled(value: Any, arrays: list[Any]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$array"}:
            return told(arrays[value["$array"]])
        return {key: _filled(one, arrays) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, arrays) for one in value]
    return value


def _columns(packed: PackedMap) -> dict[str, Any]:
    """Return the columns of a map as stored, read as viewers/README.md says."""
    data, start, columns = zlib.decompress(base64.b64decode(packed.data)), 0, {}
    for spec in packed.view["columns"]:
        kind = np.dtype(f"<{spec['type']}")
        end = start + spec["length"] * kind.itemsize
        planes = np.frombuffer(data[start:end], "u1").reshape(kind.itemsize, -1)
        stored = np.ascontiguousarray(planes.T).view(kind).ravel()
        columns[spec["name"]] = told(np.cumsum(stored.astype("f8")) if spec["ascending"] else stored)
        start = end
    assert start == len(data)
    return columns


def told(values: Any) -> Any:
    """Return a column as a list, or a long one as what identifies it: any changed value changes the hash."""
    numbers = [None if np.isnan(one) else int(one) if one == int(one) else float(one) for one in values.astype("f8")]
    if len(numbers) <= LONGEST:
        return numbers
    known = [one for one in numbers if one is not None]
    return {
        "length": len(numbers),
        "not_recorded": len(numbers) - len(known),
        "smallest": min(known, default=None),
        "largest": max(known, default=None),
        # Exact, as `sum` of floats is not the same in every version of Python.
        "sum": math.fsum(known),
        "sample": numbers[:: len(numbers) // (LONGEST // 2)],
        "sha256": hashlib.sha256(json.dumps(numbers).encode()).hexdigest(),
    }


def pretty(value: Any) -> str:
    """Return JSON with sorted keys; a list of numbers stands on one line."""
    return f"{_lines(value, '')}\n"


def _lines(value: Any, indent: str) -> str:
    inner = f"{indent} "
    if isinstance(value, dict) and value:
        return _block("{}", [f"{json.dumps(key)}: {_lines(value[key], inner)}" for key in sorted(value)], indent)
    if isinstance(value, list) and any(not isinstance(one, int | float | None) for one in value):
        return _block("[]", [_lines(one, inner) for one in value], indent)
    return json.dumps(value, ensure_ascii=False)


def _block(ends: str, items: list[str], indent: str) -> str:
    inside = ",\n".join(f"{indent} {item}" for item in items)
    return f"{ends[0]}\n{inside}\n{indent}{ends[1]}"
