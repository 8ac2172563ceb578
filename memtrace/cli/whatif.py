"""`memtrace whatif`: the requests of a recording under other allocator settings, capacities and sizes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memtrace.cli.report import Progress, Size

if TYPE_CHECKING:
    from memtrace.allocator.results import WhatIf
    from memtrace.store.trace import RankTrace


@click.command()
@click.argument("trace", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--alloc-conf", multiple=True, metavar="CONF", help="Allocator settings, as for PYTORCH_ALLOC_CONF. Repeatable."
)
@click.option("--capacity", multiple=True, type=Size(), help="Memory the allocator can reserve, as 24GiB. Repeatable.")
@click.option("--scale", multiple=True, metavar="CATEGORY=F", help="Make the requests of a category F times as large.")
@click.option("--drop", multiple=True, metavar="CATEGORY", help="Leave out the requests of a category.")
@click.option("--shard", multiple=True, metavar="CATEGORY=N", help="Keep the N-th part of each request of a category.")
@click.option(
    "--recompute",
    type=click.Choice(["selective", "full"]),
    help="Checkpoint the activations: those inside attention, or all of each layer.",
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
@click.option("--force", is_flag=True, help="Overwrite the HTML file if it exists.")
def whatif(trace: tuple[Path, ...], html: Path | None, as_json: bool, force: bool, **options: Any) -> None:
    """Replay a recording under other settings and capacities.

    The first row is the recording itself, with how far the model reproduces its addresses. Sizes that are scaled,
    dropped or sharded, and activations that are recomputed, apply to every other row; each capacity is tried with each
    setting.

    \b
    Example:
      memtrace whatif trace.json --advise
      memtrace whatif snapshot.pickle --alloc-conf expandable_segments:True --capacity 24GiB --html whatif.html
      memtrace whatif trace.json --as cuda --scale activation=0.5 --shard optimizer_state=8
      memtrace whatif trace.json --recompute full --capacity 24GiB
    """
    from memtrace.errors import MemtraceError
    from memtrace.report.output import check_output, write_whatif
    from memtrace.report.whatif import whatif_json, whatif_text
    from memtrace.store.read import read_trace

    if html is not None:
        check_output(html, force=force)
    progress = Progress()
    try:
        read = read_trace(trace, progress=progress)
    finally:
        progress.clear()
    results: list[WhatIf] = []
    refused: MemtraceError | None = None
    for rank in read.ranks:
        for device in _devices(rank, as_cuda=options["as_device"] is not None):
            try:
                results.append(_try(rank, device, options))
            except MemtraceError as error:
                # Of several devices one may hold nothing to replay.
                refused = refused or error
    if not results:
        raise refused or MemtraceError("no memory of a GPU was recorded", hint="for a recording of the CPU, --as cuda")
    if html is not None:
        write_whatif(results, html, title=", ".join(path.name for path in trace), force=force)
    click.echo(whatif_json(results) if as_json else whatif_text(results), nl=False)
    if html is not None:
        click.echo(f"Wrote {html}", err=as_json)


def _devices(rank: RankTrace, *, as_cuda: bool) -> list[str]:
    """Return the devices of a rank that have events: its GPUs, or the CPU where that is asked for."""
    ids = sorted({int(device) for device in rank.table("events")["device"].tolist()})
    names = sorted(name for name in map(rank.text, ids) if name)
    return [name for name in names if (name == "cpu") == as_cuda] or names


def _try(rank: RankTrace, device: str, options: dict[str, Any]) -> WhatIf:
    """Return what the options make of one device."""
    from memtrace.allocator.settings import parse_settings
    from memtrace.allocator.whatif import Change, read_recording, what_if
    from memtrace.analysis.recompute import recomputed
    from memtrace.analysis.request_sizes import Edit, checked_category, edited_sizes
    from memtrace.units import format_bytes

    recording = read_recording(rank, device, as_cuda=options["as_device"] == "cuda")
    edits = [Edit.parse(text) for text in options["scale"]]
    edits += [Edit(category=checked_category(name), factor=0.0) for name in options["drop"]]
    edits += [Edit.parse(text, divide=True) for text in options["shard"]]
    recompute = options["recompute"]
    requests = recomputed(rank, device, recording.requests, recompute) if recompute else recording.requests
    sizes = edited_sizes(rank, device, requests, edits) if edits else None
    names = [f"{name} {text}" for name in ("scale", "drop", "shard") for text in options[name]]
    names += [f"recompute {recompute}"] if recompute else []
    names += ["empty cache each step"] if options["empty_cache_each_step"] else []
    changes = [
        Change(
            name=", ".join([*([conf] if conf else []), *([format_bytes(capacity)] if capacity else []), *names]),
            settings=parse_settings(conf) if conf is not None else None,
            capacity_bytes=capacity,
            sizes=sizes,
            requests=requests,
            empties_cache=options["empty_cache_each_step"],
        )
        for conf in options["alloc_conf"] or (None,)
        for capacity in options["capacity"] or (None,)
        if conf is not None or capacity is not None or names
    ]
    return what_if(recording, changes, advise=options["advise"])
