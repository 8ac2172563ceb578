"""Input number N of a seed: what it is decided by the two numbers alone, so that it can be made again."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz import corpus
from tests.fuzz.raw_bytes import break_bytes, compressed
from tests.fuzz.rows import break_rows
from tests.fuzz.special_files import put_special_file
from tests.fuzz.values import break_values

SOUND = 0.03
"""Share of the files that are left as they are."""
IN_BYTES = 0.1
"""Share of those that are broken as bytes, and not where their structure can be."""
IN_FORM = 0.4
"""Share of those broken in structure whose form is broken; of the others it is what they say."""
SPECIAL = 0.04
"""Share of those that are no files at all."""
NAMES = ("rank-00000.json.gz", "trace.json", "snapshot.pickle", "a b.json", "-x.json", "é\u202e.json", "x" * 200)
KINDS = (
    *(*["trace"] * 4, *["snapshot"] * 3, *["profile"] * 2, *["run"] * 2, *["parts"] * 4),
    *("config", "config", "layouts", "state", "arguments"),
)
"""Of what kind an input is; the more often one stands here, the more often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenInput:
    """One input: a file or a folder, and what may be asked about it."""

    kind: str
    """trace, snapshot, profile, run, parts, config, layouts, state, or arguments."""
    path: Path
    what: list[str] = field(default_factory=list)
    """What was done to it, in words."""


def make_input(random_: random.Random, folder: Path) -> BrokenInput:
    """Write one broken input below an empty folder."""
    kind = random_.choice(KINDS)
    path = folder / ("input.parts" if kind == "parts" else "input.d" if kind == "run" else random_.choice(NAMES))
    made = BrokenInput(kind=kind, path=path)
    if kind == "parts":
        _write_parts(random_, made)
    elif kind == "run":
        _write_run(random_, made)
    elif kind == "arguments":
        path.write_bytes(json.dumps(corpus.trace_document(random_)).encode())
    else:
        _write_broken(random_, made, path, kind)
    return made


_DOCUMENTS: dict[str, Callable[[random.Random], Any]] = {
    "trace": corpus.trace_document,
    "snapshot": corpus.snapshot_document,
    "profile": corpus.profile_document,
    "config": corpus.config_document,
    "layouts": corpus.layouts_document,
    "state": corpus.search_state,
}


def _write_broken(random_: random.Random, made: BrokenInput, path: Path, kind: str) -> None:
    """Write a file of a kind, broken or not."""
    how = random_.random()
    if how < SPECIAL:
        made.what.append(f"{path.name}: {put_special_file(random_, path)}")
        return
    document = _DOCUMENTS[kind](random_)
    if SPECIAL + IN_BYTES <= how < 1 - SOUND:
        document = _break(random_, made, document, path)
    content = _as_bytes(random_, document, is_pickle=kind == "snapshot")
    if kind in ("trace", "snapshot", "profile"):
        content = compressed(random_, content)
    if how < SPECIAL + IN_BYTES:
        made.what.append(f"{path.name}: {kind}, bytes")
        content = break_bytes(random_, content)
    path.write_bytes(content)


def _break(random_: random.Random, made: BrokenInput, document: Any, path: Path) -> Any:
    """Return a document broken in its form, or in what it says."""
    in_form = random_.random() < IN_FORM
    made.what.append(f"{path.name}: {'form' if in_form else 'rows'}")
    return break_values(random_, document) if in_form else break_rows(random_, document)


def _as_bytes(random_: random.Random, document: Any, *, is_pickle: bool) -> bytes:
    if is_pickle:
        return pickle.dumps(document, protocol=random_.choice((2, 3, 4, 4, 5)))
    return json.dumps(document, ensure_ascii=random_.random() < 0.9).encode("utf-8", "surrogatepass")


def _write_run(random_: random.Random, made: BrokenInput) -> None:
    """Write a run folder: files of ranks, of which some are broken, or are not of this run."""
    made.path.mkdir()
    document = corpus.trace_document(random_)
    num_ranks = random_.randrange(1, 5)
    first = json.dumps(document["ranks"][0])
    for at in range(num_ranks):
        rank = json.loads(first)
        rank["header"] |= {"rank": random_.choice((at, at, at, 0, 7)), "world_size": num_ranks, "pid": 100 + at}
        path = made.path / f"rank-{at:05d}.json"
        own: Any = {**document, "ranks": [rank]}
        if random_.random() < 0.4:
            own = _break(random_, made, own, path)
        path.write_bytes(_as_bytes(random_, own, is_pickle=False))
    if random_.random() < 0.5:
        kind = random_.choice(list(_DOCUMENTS))
        _write_broken(random_, made, made.path / f"z-other-{kind}", kind)


def _write_parts(random_: random.Random, made: BrokenInput) -> None:
    """Write a folder of parts, of which one file or several are broken."""
    made.path.mkdir()
    files: dict[str, list[Any]] = corpus.part_records(random_)
    broken = {random_.choice(list(files)) for _ in range(random_.choice((1, 1, 2)))}
    for name, records in files.items():
        path = made.path / name
        _write_lines(random_, made, path, records, is_broken=name in broken)
        if ".chunk-" in name and random_.random() < 0.5:
            for suffix, kind in ((".pickle", "snapshot"), (".kineto.json", "profile")):
                _write_broken(random_, made, path.with_name(path.name.removesuffix(".jsonl") + suffix), kind)


def _write_lines(random_: random.Random, made: BrokenInput, path: Path, records: list[Any], *, is_broken: bool) -> None:
    how = random_.random() if is_broken else 1.0
    if how < 2 * SPECIAL:
        made.what.append(f"{path.name}: {put_special_file(random_, path)}")
        return
    if is_broken and how > IN_BYTES:
        records = _break(random_, made, records, path)
    lines = records if isinstance(records, list) else [records]
    content = b"".join(_as_bytes(random_, line, is_pickle=False) + b"\n" for line in lines)
    if is_broken and how <= IN_BYTES:
        made.what.append(f"{path.name}: bytes")
        content = break_bytes(random_, content)
    if random_.random() < 0.05:
        made.what.append(f"{path.name}: not there")
        return
    path.write_bytes(content)
