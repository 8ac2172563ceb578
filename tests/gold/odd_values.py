"""What reading says of files in which one value is odd, whole: each value of a small file in turn, by many odd ones.

In: a trace, a snapshot, a profile and a folder of parts that are made here. Out: for each value of each file what came
of each odd one: `as before`, another content (by a hash), or the sentence that refuses it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from memtrace.errors import MemtraceError
from memtrace.store.reading.read import read_stream, read_trace
from memtrace.store.snapshots.torch_snapshot import read_snapshot
from memtrace.store.trace import RankTrace, Trace
from memtrace.store.trace_file import read_trace_document
from memtrace.store.writing.trace import write_trace
from tests.analysis.small_profile import Profile
from tests.builders import contents, parts, snapshot
from tests.gold.made_runs import ranks_of
from tests.gold.rendered import inside

MISSING = "missing"
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31 - 1, 2**31, 2**62 - 1, 2**62, 2**63 - 1, 2**63, -(2**63)),
    *(1.5, "", "x", [1], {"a": 1}, MISSING),
)
FEW: tuple[Any, ...] = (None, True, -1, 2**62, 2**63, 1.5, "x", MISSING)
"""Those for cells of tables, of which there are many alike."""
Place = tuple[str | int, ...]


def _places(value: Any, where: Place = ()) -> Iterator[Place]:
    """Yield the place of each value; of a list that of the first item only."""
    if where:
        yield where
    if isinstance(value, dict):
        for key in sorted(value):
            yield from _places(value[key], (*where, key))
    elif isinstance(value, list) and value:
        yield from _places(value[0], (*where, 0))


def _changed(document: Any, place: Place, odd: Any) -> Any:
    changed = copy.deepcopy(document)
    holder = changed
    for step in place[:-1]:
        holder = holder[step]
    if odd == MISSING:
        del holder[place[-1]]
    else:
        holder[place[-1]] = odd
    return changed


def _outcomes(document: Any, read: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the odd values by what came of them, for each place."""
    whole = _identity(read, document)
    found: dict[str, Any] = {}
    for place in _places(document):
        by_outcome: dict[str, list[str]] = {}
        for odd in FEW if "tables" in place else ODD:
            outcome = _identity(read, _changed(document, place, odd))
            by_outcome.setdefault("as before" if outcome == whole else outcome, []).append(json.dumps(odd))
        found[".".join(map(str, place))] = {outcome: ", ".join(odds) for outcome, odds in by_outcome.items()}
    return found


def _identity(read: Callable[[Any], Any], document: Any) -> str:
    try:
        content = read(document)
    except MemtraceError as error:
        return f"refused: {error.message}"
    return f"read: {hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]}"


def _of_rank(rank: RankTrace) -> Any:
    return contents(rank)


def _of_trace(trace: Trace) -> Any:
    warnings = [(one.slug, one.message, one.count) for one in trace.warnings]
    return [dict(trace.header), warnings, [contents(rank) for rank in trace.ranks]]


def _trace() -> dict[str, Any]:
    """Return the outcomes of a trace file."""
    _, ranks = ranks_of(36)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        write_trace(Trace(header={"memtrace": "0", "command": ["x"]}, ranks=ranks[:1], path="x"), path)
        document = json.loads(path.read_text(encoding="utf-8"))
    return _outcomes(document, lambda changed: _of_trace(read_trace_document(changed, where="file")))


def _snapshot() -> dict[str, Any]:
    """Return the outcomes of a snapshot of torch."""
    frames = [("model.py", 3, "forward")]
    made = snapshot().live_before(0x9000, 700).alloc(0x1000, 512, frames=frames).alloc(0x2000, 1024).free(0x2000)
    document = made.annotate("step", "START").annotate("step", "END").oom(4096, device_free=100).build()
    document = json.loads(json.dumps(document))
    for segment in document["segments"]:
        segment["segment_pool_id"] = list(segment["segment_pool_id"])
    return _outcomes(document, lambda changed: _of_rank(read_snapshot(changed, where="file")))


def _profile() -> dict[str, Any]:
    """Return the outcomes of a profile."""
    made = Profile().step(1, 0, 100)
    for size, total in ((512, 512), (1024, 1536), (-512, 1024)):
        address = 0x1000 if abs(size) == 512 else 0x2000
        args = {"Device Type": 1, "Device Id": 0, "Addr": address, "Bytes": size, "Total Allocated": total}
        args |= {"Total Reserved": 2048, "Ev Idx": len(made.events)}
        made.events.append({"ph": "i", "name": "[memory]", "ts": 5.0 + len(made.events), "s": "t", "args": args})
    moved = {"Collective name": "allreduce", "In msg nelems": 10, "Out msg nelems": 10, "Group size": 2}
    made.communication(10, 20, **moved, dtype="Float", **{"Process Group Name": "dp"})
    events = list(reversed(made.events))
    document = {"traceEvents": events, "schemaVersion": 1, "baseTimeNanoseconds": 1000}
    document |= {"deviceProperties": [{"id": 0, "name": "GPU", "totalGlobalMem": 1 << 30}]}
    document |= {"distributedInfo": {"rank": 0, "world_size": 2, "backend": "nccl"}}
    found: dict[str, Any] = {}
    for at in range(len(events)):
        # Each kind of event stands first once.
        turned = {**document, "traceEvents": [*events[at:], *events[:at]]}
        of_turn = _outcomes(turned, _read_json)
        name = f"{events[at]['name']} {at}"
        found |= {f"{name}: {place}": one for place, one in of_turn.items() if at == 0 or "traceEvents.0" in place}
    return found


def _read_json(document: Any) -> Any:
    content = json.dumps(document).encode()
    return _of_trace(read_stream(BytesIO(content), where="file.json", size_bytes=len(content)))


def _parts() -> dict[str, Any]:
    """Return the outcomes of the parts of one process."""
    with tempfile.TemporaryDirectory() as folder:
        built = parts(Path(folder)).header(rank=0, world_size=2, host="node").record("facts", autocast_dtypes=["x"])
        built.record("device", name="cpu", capacity_bytes=9, kind="cpu")
        built.record("step", step=1, start_ns=5, end_ns=9, recorded=True, skipped=False, num_microbatches=1)
        built.record("optimizer", class_name="AdamW", group=0, num_parameters=7, options="{}")
        built.record("warning", slug="x", message="y", count=2)
        built.chunk(
            [("alloc", 0x1000, 512), ("free_completed", 0x1000, 512)], owners=[(0x1000, 512, "w")], step=1
        ).end()
        lines = {path.name: path.read_text().splitlines() for path in sorted(Path(folder).iterdir())}
    documents = {name: [json.loads(line) for line in texts] for name, texts in lines.items()}
    found: dict[str, Any] = {}
    for name, records in documents.items():
        for at, record in enumerate(records):

            def read(changed: Any, name: str = name, at: int = at) -> Any:
                whole = {**documents, name: [*documents[name][:at], changed, *documents[name][at + 1 :]]}
                return _read_parts(whole)

            of_record = _outcomes(record, read)
            found |= {f"{name} {at} {record.get('k')}: {place}": one for place, one in of_record.items()}
    return found


def _read_parts(documents: dict[str, list[Any]]) -> Any:
    with tempfile.TemporaryDirectory() as folder, inside(Path(folder)):
        Path("run").mkdir()
        for name, records in documents.items():
            Path("run", name).write_text("".join(f"{json.dumps(record)}\n" for record in records))
        return _of_trace(read_trace("run"))


ODD_VALUES: dict[str, Callable[[], dict[str, Any]]] = {
    "odd-trace": _trace,
    "odd-snapshot": _snapshot,
    "odd-profile": _profile,
    "odd-parts": _parts,
}
"""Each kind of file by the name of its gold file."""
