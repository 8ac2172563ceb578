"""What a rank exchanges with others, in a terminal: buckets of replicas, gathers of shards, collectives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memtrace.analysis.results.communication import (
    CollectiveBytes,
    CommunicationResult,
    ReducerTime,
    ReplicaResult,
    ShardGroup,
)
from memtrace.printable import clean
from memtrace.report.terminal.cells import DASH, calm_table, size
from memtrace.units import format_bytes, format_ns

_MAX_ROWS = 8


def communication(found: CommunicationResult) -> Group:
    """Return what is exchanged, one part after the other."""
    parts: list[RenderableType] = []
    for replica in found.replicas:
        parts += _replica(replica)
    if found.shard_groups:
        parts += _shards(found.shard_groups, found.num_shard_steps)
    if found.collectives:
        parts += [_collectives(found.collectives)]
    return Group(*parts)


def _replica(replica: ReplicaResult) -> Iterator[RenderableType]:
    if replica.bucket_bytes:
        yield _buckets(replica)
        yield ""
        order = "" if replica.rebuilt else ", as first laid out"
        number = f"{len(replica.bucket_bytes)} buckets" if len(replica.bucket_bytes) > 1 else "1 bucket"
        yield _said(f"DistributedDataParallel: {number}{order}, {format_bytes(replica.total_bytes)} in all.")
    if replica.num_backwards:
        often = f"{replica.num_reductions} of {replica.num_backwards} backward passes in {replica.num_steps} steps"
        needless = f", {replica.num_needless} of them needlessly" if replica.num_needless else ""
        yield _said(f"Gradients are reduced in {often}{needless}.")
    if replica.unused_bytes:
        yield _said(f"{format_bytes(replica.unused_bytes)} of parameters got no gradient in the first iteration.")
    if replica.time is not None:
        yield _said(_timed(replica.time))


def _buckets(replica: ReplicaResult) -> Table:
    starts = replica.bucket_starts_ns
    columns = ("bucket", "gradients", *(("starts after", "of backward") if starts else ()))
    table = calm_table(*columns)
    for at, num_bytes in enumerate(replica.bucket_bytes[:_MAX_ROWS]):
        cells = [str(at + 1), size(num_bytes)]
        if starts:
            share = DASH if not replica.backward_ns else f"{100 * starts[at] / replica.backward_ns:.0f} %"
            cells += [format_ns(starts[at]), share]
        table.add_row(*cells)
    _add_rest(table, len(replica.bucket_bytes))
    return table


def _timed(time: ReducerTime) -> str:
    often = f"{time.num_timed} iterations" if time.num_timed > 1 else "1 iteration"
    return (
        f"As DDP timed {often}: the first all-reduce begins {format_ns(time.start_ns)} into a backward of "
        f"{format_ns(time.backward_ns)}; {format_ns(time.communication_ns)} of communication, "
        f"{format_ns(time.exposed_ns)} of it after the last gradient."
    )


def _shards(groups: Sequence[ShardGroup], num_steps: int) -> Iterator[RenderableType]:
    table = calm_table("group", "gather", "times", "scatter", "times")
    for one in groups[:_MAX_ROWS]:
        cells = (size(one.gather_bytes), str(one.num_gathers), size(one.scatter_bytes), str(one.num_scatters))
        table.add_row(clean(one.name), *cells)
    _add_rest(table, len(groups))
    yield table
    yield ""
    yield _said(f"FSDP2: parameters that each group gathers and gradients that it scatters, in {num_steps} steps.")


def _collectives(found: Sequence[CollectiveBytes]) -> Table:
    table = calm_table("collective", "ranks", "kernels", "in", "out", "time", wide="group")
    for one in found[:_MAX_ROWS]:
        name = one.name if one.dtype is None else f"{one.name} {one.dtype}"
        ranks = DASH if one.group_size is None else str(one.group_size)
        table.add_row(
            clean(name),
            ranks,
            str(one.num_kernels),
            size(one.input_bytes),
            size(one.output_bytes),
            format_ns(one.time_ns),
            clean(one.group or DASH),
        )
    _add_rest(table, len(found))
    return table


def _add_rest(table: Table, number: int) -> None:
    if number > _MAX_ROWS:
        table.add_row("…", Text(f"{number - _MAX_ROWS} more", style="dim"))


def _said(sentence: str) -> Text:
    return Text(sentence, style="dim")
