"""`memtrace inspect`: what a trace holds, record by record, before any analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from memtrace.cli.options.redaction import redaction_options
from memtrace.schema.redaction import Redaction


@click.command()
@click.argument("traces", nargs=-1, required=True, metavar="TRACE…", type=click.Path(exists=True, path_type=Path))
@click.option("--table", default="events", show_default=True, metavar="NAME", help="The table whose records to show.")
@click.option(
    "--head",
    default=10,
    show_default=True,
    metavar="N",
    type=click.IntRange(0, 10**9),
    help="How many records to show.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@redaction_options
def inspect(traces: tuple[Path, ...], table: str, head: int, as_json: bool, redaction: Redaction) -> None:
    """Show the raw records of a trace.

    Prints the header, how many records each table holds, and the first records of one table. TRACE is what
    `memtrace report` takes.

    \b
    Example:
      memtrace inspect trace.json --table owners --head 3
    """
    import json

    from memtrace.cli.left_out import say_left_out
    from memtrace.store.reading.inspection import inspect_document
    from memtrace.store.reading.read import read_trace
    from memtrace.store.redaction.redact import shareable

    trace = shareable(read_trace(traces), redaction)
    say_left_out(trace.warnings)
    document = inspect_document(trace, table=table, head=head)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    for line in _lines(document):
        click.echo(line)


def _lines(document: dict[str, Any]) -> list[str]:
    """Return the document as text; JSON quoting keeps escapes in names away from the terminal."""
    import json

    ranks = document["header"]["ranks"]
    counts = {name: count for name, count in document["num_records"].items() if count}
    lines = ["header"]
    for rank in ranks:
        lines += [
            f"  {json.dumps(name)[1:-1]}: {json.dumps(value)}"
            for name, value in rank.items()
            if value not in (None, [], {})
        ]
    lines += ["records", *(f"  {name:<15} {count:>12,}" for name, count in counts.items())]
    lines += [document["table"], *(f"  {json.dumps(record)}" for record in document["records"])]
    return lines
