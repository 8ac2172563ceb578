"""`memtrace plan --evaluate`: layouts from a file, each with what it needs and takes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtrace.cli.options.model_options import named_model, names_a_model
from memtrace.errors import MemtraceError

if TYPE_CHECKING:
    from memtrace.forecast.results import Calibration

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


def evaluated(table: Path, options: dict[str, Any], *, as_json: bool) -> bytes | str:
    """Return the answer for the layouts of a file; options of the command stand in for empty cells.

    Raises:
        MemtraceError: the file cannot be read, or a row of it cannot be.
    """
    from memtrace.forecast.evaluation.evaluate import evaluate_table
    from memtrace.report.answers.evaluation import evaluation_json, evaluation_text

    rows = evaluate_table(_text(table), _defaults(options), calibrated(options))
    return evaluation_json(rows) if as_json else evaluation_text(rows)


def calibrated(options: dict[str, Any]) -> Calibration | None:
    """Return what the measured runs of `--calibrate` say; `None` without them.

    Raises:
        MemtraceError: the file cannot be read, or a row of it cannot be.
    """
    if options["calibrate"] is None:
        return None
    from memtrace.forecast.evaluation.calibrate import calibration

    return calibration(_text(options["calibrate"]), _defaults(options))


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
