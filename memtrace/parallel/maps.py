"""Which ranks of a large run travel with every allocation, for a page that cannot hold those of all.

In: the report without maps. Out: the files to read once more. The rank that the verdict is about comes first, then
those that findings are about, then the others in order, as far as there is room.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

from memtrace.analysis.rank_analysis import RankAnalysis
from memtrace.analysis.results.report import Report
from memtrace.store.trace import LoadWarning

MAX_FILES = 16
"""Up to so many files are read with their maps at once; of more, at most so many are read again."""
MAX_EVENTS = 2_000_000
"""Events of those that are read again, all together: a map takes about 60 bytes for each. One is read in any case."""

Ranks = Sequence[RankAnalysis]
"""Those of one file."""


def files_with_maps(report: Report, files: Mapping[int, Ranks]) -> list[int]:
    """Return the positions of the files whose ranks shall have a map, ascending; `files` are by position."""
    of_device = {id(device): at for at, ranks in files.items() for rank in ranks for device in rank.devices}
    of_rank = {rank.rank: at for at, ranks in reversed(list(files.items())) for rank in ranks}
    main = [] if report.main_rank is None else [of_device[id(report.ranks[report.main_rank])]]
    told_of = (of_rank[finding.rank] for finding in report.findings if finding.rank in of_rank)
    return sorted(_within_room(dict.fromkeys((*main, *told_of, *files)), files))


def _within_room(order: Iterable[int], files: Mapping[int, Ranks]) -> Iterator[int]:
    num_events = 0
    for num_before, at in enumerate(order):
        num_events += sum(rank.num_events for rank in files[at])
        if num_before and (num_before == MAX_FILES or num_events > MAX_EVENTS):
            return
        yield at


def without_maps(ranks: Ranks) -> tuple[RankAnalysis, ...]:
    """Return ranks whose maps were left out, which is not the same as that there are none."""
    return tuple(
        dataclasses.replace(
            rank, devices=tuple(dataclasses.replace(device, map_left_out=True) for device in rank.devices)
        )
        for rank in ranks
    )


def left_out(files: Mapping[int, Ranks], with_maps: Sequence[int]) -> LoadWarning:
    """Return the warning that says for which ranks the maps are there."""
    shown = [rank.rank for at in with_maps for rank in files[at] if rank.rank is not None]
    num_left_out = sum(len(ranks) for at, ranks in files.items() if at not in with_maps)
    of_whom = f"ranks {', '.join(map(str, shown))}" if shown else f"{len(with_maps)} files"
    message = f"To keep the page small, only {of_whom} are shown with every allocation; the rest of the report has all."
    return LoadWarning(slug="maps-left-out", message=message, count=num_left_out)
