"""`memtrace whatif`: the requests of a recording under other allocator settings, capacities and sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from memtrace.cli.options.numbers import Size
from memtrace.cli.options.redaction import redaction_options
from memtrace.cli.report import Progress
from memtrace.cli.shell.told import say
from memtrace.schema.redaction import Redaction


@click.command()
@click.argument("trace", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--alloc-conf", multiple=True, metavar="CONF", help="Allocator settings, as for PYTORCH_ALLOC_CONF. Repeatable."
)
@click.option("--capacity", multiple=True, type=Size(), help="What the allocator can reserve, as 24GiB. Repeatable.")
@click.option("--scale", multiple=True, metavar="CATEGORY=F", help="Make the requests of a category F times as large.")
@click.option("--drop", multiple=True, metavar="CATEGORY", help="Leave out the requests of a category.")
@click.option("--shard", multiple=True, metavar="CATEGORY=N", help="Keep the N-th part of each request of a category.")
@click.option(
    "--recompute",
    type=click.Choice(["selective", "full"]),
    help="Checkpoint the activations: those inside attention, or all of each layer.",
)
@click.option(
    "--remedy",
    multiple=True,
    metavar="FINDING",
    help="Do what a finding of the report proposes, by its name as smaller-micro-batch. Repeatable.",
)
@click.option("--empty-cache-each-step", is_flag=True, help="Empty the cache at the end of each step.")
@click.option(
    "--as",
    "as_device",
    type=click.Choice(["cuda"]),
    help="Put a recording without segments (of the CPU) through the model.",
)
@click.option("--advise", is_flag=True, help="Try the standard settings and name the best one.")
@click.option("--html", type=click.Path(path_type=Path), metavar="PATH", help="Write one HTML file that opens offline.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
@redaction_options
@click.option("--force", is_flag=True, help="Overwrite the HTML file if it exists.")
def whatif(
    trace: tuple[Path, ...], html: Path | None, as_json: bool, force: bool, redaction: Redaction, **options: Any
) -> None:
    """Replay a recording under other settings and capacities.

    The first row is the recording itself, with how far the model reproduces its addresses. Sizes that are scaled,
    dropped or sharded, and activations that are recomputed, apply to every other row; each capacity is tried with each
    setting. The remedy of a finding is a row of its own, and has the new peak that the report promises.

    \b
    Example:
      memtrace whatif trace.json --advise
      memtrace whatif snapshot.pickle --alloc-conf expandable_segments:True --capacity 24GiB --html whatif.html
      memtrace whatif trace.json --as cuda --scale activation=0.5 --shard optimizer_state=8
      memtrace whatif trace.json --recompute full --capacity 24GiB
      memtrace whatif trace.json --remedy smaller-micro-batch
    """
    from memtrace.analysis.asked.what_ifs import Asked, try_what_ifs
    from memtrace.cli.left_out import say_left_out
    from memtrace.report.answers.whatif import whatif_json, whatif_text
    from memtrace.report.output import check_output, write_whatif
    from memtrace.schema.redaction import without_places
    from memtrace.store.reading.read import read_trace
    from memtrace.store.redaction.redact import redacted

    if html is not None:
        check_output(html, force=force)
    progress = Progress()
    try:
        read = redacted(read_trace(trace, progress=progress), redaction)
    finally:
        progress.clear()
    asked = Asked(
        alloc_confs=options["alloc_conf"],
        capacities_bytes=options["capacity"],
        scale=options["scale"],
        drop=options["drop"],
        shard=options["shard"],
        recompute=options["recompute"],
        remedies=options["remedy"],
        empties_cache=options["empty_cache_each_step"],
        as_cuda=options["as_device"] is not None,
        advise=options["advise"],
    )
    results, left_out = try_what_ifs(read, asked)
    say_left_out([*read.warnings, *left_out])
    results = without_places(results) if redaction is Redaction.SOURCE else results
    title = ", ".join(path.name for path in trace) if redaction is Redaction.NOTHING else read.path
    if html is not None:
        write_whatif(results, html, title=title, force=force)
    click.echo(whatif_json(results) if as_json else whatif_text(results), nl=False)
    if html is not None:
        say(f"Wrote {html}", err=as_json)
