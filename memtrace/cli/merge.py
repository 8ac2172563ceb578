"""`memtrace merge`: assemble by hand what `memtrace record` assembles at its end."""

from __future__ import annotations

from pathlib import Path

import click

from memtrace.cli.options.redaction import redaction_options
from memtrace.schema.redaction import Redaction


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Trace to write: .json or .json.gz, or a folder for a file a rank. Default: DIR without .parts.",
)
@redaction_options
@click.option("--force", is_flag=True, help="Replace an output that exists.")
def merge(folder: Path, output: Path | None, force: bool, redaction: Redaction) -> None:
    """Assemble the parts of a recording into a trace.

    DIR is a folder of parts that was left behind (`memtrace record` was killed), or a run folder, whose ranks become
    one trace. What is in DIR stays.

    \b
    Example:
      memtrace merge trace.json.parts
      memtrace merge run -o trace.json.gz
      memtrace merge run -o to-share.json.gz --redact
    """
    from memtrace.cli.left_out import say_left_out
    from memtrace.launch.gather import merge_folder
    from memtrace.launch.output import check_free, merged_path
    from memtrace.units import format_bytes

    path = output or merged_path(folder)
    check_free(path, force=force)
    written = merge_folder(folder, path, force=force, redaction=redaction)
    say_left_out(written.warnings)
    click.echo(
        f"Wrote {written.path} ({format_bytes(written.num_bytes)}, "
        f"{written.num_processes} process{'es' if written.num_processes > 1 else ''})",
        err=True,
    )
