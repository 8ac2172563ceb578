"""What to type next: the commands that show more of this very trace, by what was found in it.

In: the path that was read, the reports of its ranks, the findings. Out: commands as one types them in a shell.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence

from memtrace.analysis.results.report import Finding, RankReport
from memtrace.schema.names import Source

_SEVERAL = re.compile(r" and \d+ more$")
_WHAT_IFS = {
    "oom": "--capacity 80GiB",
    "fragmentation": "--advise",
    "expandable-segments": "--advise",
    "full-recomputation": "--recompute full",
    "selective-recomputation": "--recompute selective",
}
"""What to try on the recording to see a finding through."""


def next_commands(path: str, ranks: Sequence[RankReport], findings: Iterable[Finding]) -> tuple[str, ...]:
    """Return at most four commands."""
    return tuple(dict.fromkeys(_commands(path, ranks, findings)))[:4]


def _commands(path: str, ranks: Sequence[RankReport], findings: Iterable[Finding]) -> Iterator[str]:
    if not any(rank.num_events or rank.peak.requested_bytes for rank in ranks):
        yield "memtrace record -o trace.json -- python train.py"
        return
    # Of several files only the first is named in the path of a run.
    trace = "TRACE..." if _SEVERAL.search(path) else shlex.quote(path)
    yield f"memtrace report {trace} --html report.html"
    if "://" in path:
        # Only reports are made of what lies elsewhere.
        return
    has_history = [rank for rank in ranks if rank.timeline is not None]
    if not all(rank.source == Source.RECORDED.value for rank in ranks):
        # A recording knows what nothing else can: owners, modules, what autograd keeps.
        yield "memtrace record -o trace.json -- python train.py"
    if not has_history or any(rank.source == Source.KINETO.value for rank in ranks):
        return
    if any(rank.device != "cpu" for rank in has_history):
        for finding in findings:
            if finding.slug in _WHAT_IFS:
                yield f"memtrace whatif {trace} {_WHAT_IFS[finding.slug]}"
        yield f"memtrace whatif {trace} --advise"
    else:
        yield f"memtrace whatif {trace} --as cuda --advise"
