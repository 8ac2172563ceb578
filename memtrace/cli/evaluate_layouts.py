"""`memtrace plan --evaluate`: layouts from a file, each with what it needs and takes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtrace.cli.options.model_options import named_model, names_a_model
from memtrace.errors import MemtraceError

if TYPE_CHECKING:
    from memtrace.forecast.results import Agreement, Calibration, EvaluatedLayout

_DEFAULTS = (
    "gpu",
    "sequence",
    "gpus_per_node",
    "intra_gbs",
    "inter_gbs",
    "precision",
    "optimizer",
    "attention",
    "framework",
)
"""Options that stand in for empty cells."""
_OF_THE_PLAN = ("gpu", "sequence", "gpus_per_node", "intra_gbs", "inter_gbs")
"""Those that a recorded run need not share."""


def evaluated(table: Path, options: dict[str, Any]) -> tuple[tuple[EvaluatedLayout, ...], dict[str, Agreement]]:
    """Return what the layouts of a file need and take, and how that agrees with what the file says was measured.

    Options of the command stand in for empty cells.

    Raises:
        MemtraceError: the file cannot be read, or a row of it cannot be.
    """
    from memtrace.forecast.evaluation.evaluate import evaluate_table
    from memtrace.forecast.evaluation.measured import agreements

    rows = evaluate_table(_text(table), _defaults(options), calibrated(options))
    return rows, agreements(rows)


def calibrated(options: dict[str, Any]) -> Calibration | None:
    """Return what the measured runs of `--calibrate` say, a table or a recording; `None` without them.

    Raises:
        MemtraceError: the file cannot be read, or a row of it cannot be.
    """
    path: Path | None = options["calibrate"]
    if path is None:
        return None
    from memtrace.forecast.evaluation.calibrate import calibration, calibration_of_rows

    if _is_recording(path):
        # A recording says on which GPU and how many it ran: options that are about the plan are not about it.
        asked = {name: value for name, value in _defaults(options).items() if name not in _OF_THE_PLAN}
        return calibration_of_rows([_recorded(path)], asked)
    return calibration(_text(path), _defaults(options))


def _is_recording(path: Path) -> bool:
    """Return whether a path is a trace or a folder of them, and not a table: JSON of memtrace's, or compressed."""
    if str(path) == "-":
        return False
    if path.is_dir():
        return True
    from memtrace.store.opening import open_regular

    try:
        with open_regular(path) as file:
            head = file.read(4096)
    except OSError:
        return False
    return head[:1] in (b"\x1f", b"\x80") or (head.lstrip()[:1] == b"{" and b'"memtrace-trace"' in head)


def _recorded(path: Path) -> dict[str, Any]:
    from memtrace.analysis.report import analyze
    from memtrace.forecast.evaluation.recorded_run import recorded_row
    from memtrace.store.reading.read import read_trace

    trace = read_trace((path,))
    return recorded_row(trace, analyze(trace))


def _text(table: Path) -> str:
    from memtrace.forecast.evaluation.table import MAX_BYTES
    from memtrace.store.opening import NotRegularError, open_regular

    try:
        if str(table) == "-":
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open_regular(table) as file:
                raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise MemtraceError(f"{table} is larger than {MAX_BYTES // 1024**2} MiB", hint="evaluate it in parts")
        return raw.decode("utf-8")
    except NotRegularError:
        raise MemtraceError(f"{table}: not a regular file", hint="a pipe is read as `--evaluate -`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MemtraceError(f"{table} is not text that can be read: {error}"[:300]) from None


def _defaults(options: dict[str, Any]) -> dict[str, Any]:
    import click
    from click.core import ParameterSource

    # An option that nobody typed says nothing: the framework of a row decides.
    typed = click.get_current_context().get_parameter_source
    given = {name: options[name] for name in _DEFAULTS if typed(name) is ParameterSource.COMMANDLINE}
    if names_a_model(options):
        given["spec"] = named_model(options).spec
    return given
