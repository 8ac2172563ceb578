"""No output of any command shows what `--redact` and `--no-source` leave out.

A real recording is filled with words that stand nowhere else, one in every field that may hold something personal. Each
is looked for in everything that every command writes, packed or not.
"""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from memtrace.cli import group
from memtrace.schema.tables import TABLES
from tests.builders import parts
from tests.conftest import ROOT
from tests.integrations.mcp_client import Call, with_server

GOLD = ROOT / "tests/gold/traces/gpt.json.gz"
HOME = "/home/zuleika"
SCHEMA_WORDS = {"device", "action", "category", "phase", "dtype", "shape", "state", "kind", "slug", "reason", "op"}
"""Columns whose texts are words of the schema or of torch."""
TABLES_WITH_NAMES = ("frames", "scopes", "owners", "phases", "optimizers", "annotations", "kernels", "warnings")
PLANTED_TABLES = ("frames", "warnings", "kernels", "optimizers")
"""Tables in which each text is read in a way of its own."""

PERSONAL = {
    *("quinzaine", "zuleika", "xylophage", "vertumnus", "wapentake", "jackanapes", "kumquats", "borborygm"),
    *("folderol", "gongoozler", "ratatoskr", "ophicleide", "paraphernal", "triskelion", "umbrageous", "hullabaloo"),
}
"""Words that `--redact` takes out."""
SOURCE = {"skulduggery", "widdershins", "474747474"}
"""Words that `--no-source` takes out as well: names of files, and a line."""
LINE = 474_747_474


def planted() -> dict[str, Any]:
    """Return a recording in which each field has a word of its own."""
    document = json.loads(gzip.decompress(GOLD.read_bytes()))
    (rank,) = document["ranks"]
    document["header"] |= {
        "command": ["python", "train.py", "--name", "quinzaine"],
        "options": {**document["header"]["options"], "steps": f"{HOME}/folderol"},
        "unheard-of": "gongoozler",
        "warnings": [{"slug": "file-unreadable", "message": f"{HOME}/ratatoskr/rank.json: gone", "count": 1}],
    }
    rank["header"] |= {
        "host": "xylophage.lab",
        "original_path": f"{HOME}/vertumnus/skulduggery.py",
        "environment": {"PYTORCH_ALLOC_CONF": "wapentake", "HF_TOKEN": "jackanapes", "OMP_NUM_THREADS": "2"},
        "allocator_settings": {"PYTORCH_CUDA_ALLOC_CONF": "/umbrageous"},
        "exception": {
            "type": "ValueError",
            "message": "kumquats are not there",
            "stack": [{"file": f"{HOME}/vertumnus/skulduggery.py", "line": LINE, "function": "main"}],
            "thread": None,
        },
        "unheard-of": "gongoozler",
    }
    _plant_frames(document)
    _plant_names(document)
    return document


def _plant_frames(document: dict[str, Any]) -> None:
    strings, frames = document["strings"], document["ranks"][0]["tables"]["frames"]
    for at in {at for at in frames["file"] if strings[at] and not strings[at].startswith("torch/")}:
        strings[at] = f"{HOME}/borborygm code/widdershins.py"
        own = zip(frames["file"], frames["line"], strict=True)
        frames["line"] = [LINE if file == at else line for file, line in own]


def _plant_names(document: dict[str, Any]) -> None:
    """Give a path to the first row of every column of names, and rows to tables that have none."""
    strings, tables = document["strings"], document["ranks"][0]["tables"]

    def text(value: str) -> int:
        # A table of texts holds each once.
        if value not in strings:
            strings.append(value)
        return strings.index(value)

    tables["warnings"] = {
        "slug": [text("hook-failed")],
        "message": [
            text(f"on xylophage zuleika's {HOME}/ophicleide/data and {HOME}/ophicleide/skulduggery.py:{LINE} failed")
        ],
        "count": [1],
    }
    tables["kernels"] = {name: [0] for name in _columns("kernels")} | {
        "start_ns": [document["ranks"][0]["header"]["start_ns"]],
        "duration_ns": [10],
        "name": [text(f"{HOME}/paraphernal/skulduggery.py({LINE}): run")],
        "kind": [text("python_function")],
    }
    options = {"lr": 0.1, "state_file": f"{HOME}/triskelion/state"}
    tables["optimizers"]["options"] = [text(json.dumps(options))]
    for table in (one for one in TABLES if one.name not in PLANTED_TABLES):
        for column in (one for one in table.columns if one.kind == "string" and one.name not in SCHEMA_WORDS):
            values = tables.get(table.name, {}).get(column.name)
            if values:
                values[0] = text(f"{HOME}/hullabaloo/of")


def _columns(name: str) -> tuple[str, ...]:
    return next(table for table in TABLES if table.name == name).column_names()


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("redaction")
    (folder / "run").mkdir()
    path = folder / "run" / "quinzaine.json"
    path.write_text(json.dumps(planted()))
    running = parts(folder / "live.json.parts").header(pid=1, host="xylophage", original_path=f"{HOME}/train.py")
    running.record("warning", slug="hook-failed", message=f"{HOME}/ophicleide/skulduggery.py:{LINE}: no", count=1)
    running.chunk([("alloc", 4096, 512)])
    return path


def outputs(trace: Path, folder: Path, *options: str) -> Iterator[tuple[str, str]]:
    """Yield everything that each command prints and writes, by what made it."""

    def run(*words: str | Path, allowed: tuple[int, ...] = (0,)) -> tuple[str, str]:
        done = CliRunner().invoke(group, [*map(str, words), *options])
        assert done.exit_code in allowed, (words, done.output)
        return " ".join(map(str, words)), done.output.replace(str(folder), "")

    def written(name: str, *words: str | Path, allowed: tuple[int, ...] = (0,)) -> Iterator[tuple[str, str]]:
        path = folder / name
        yield run(*(path if word == "OUT" else word for word in words), allowed=allowed)
        yield " ".join(map(str, words)), _unpacked(path)

    yield run("report", trace)
    yield run("report", trace, "--full")
    yield run("report", trace, "--json")
    yield run("report", trace, "--markdown", "-")
    yield from written("card.svg", "report", trace, "--card", "OUT")
    yield run("trend", trace.parent)
    yield from written("t.html", "trend", trace.parent, "--html", "OUT")
    yield from written("r.html", "report", trace, "--html", "OUT")
    yield run("whatif", trace, "--as", "cuda", "--alloc-conf", "expandable_segments:True")
    yield run("whatif", trace, "--as", "cuda", "--json")
    yield from written("w.html", "whatif", trace, "--as", "cuda", "--html", "OUT")
    yield run("diff", trace, GOLD)
    yield run("diff", GOLD, trace, "--json")
    yield run("diff", GOLD, trace, "--markdown", "-")
    yield run("diff", GOLD, trace, GOLD)
    yield from written("d.html", "diff", trace, GOLD, "--html", "OUT")
    check = ("check", trace, "--budget", "peak=1KiB", "--baseline", GOLD)
    yield run(*check, "--json", allowed=(3,))
    for form in ("junit", "markdown"):
        yield from written(f"c.{form}", *check, f"--{form}", "OUT", allowed=(3,))
    for form in ("perfetto", "memory-viz", "speedscope", "trace"):
        yield from written(f"e.{form}", "export", trace, "--to", form, "-o", "OUT")
    for table in ("allocations", *TABLES_WITH_NAMES):
        yield from written(f"{table}.csv", "export", trace, "--to", "csv", "--table", table, "-o", "OUT")
        if table != "allocations":
            yield run("inspect", trace, "--table", table, "--head", "100000")
    yield run("inspect", trace, "--json")
    yield run("live", trace.parents[1] / "live.json.parts", "--once")
    for name, merged in (("m.json", trace.parent), ("p.json", trace.parents[1] / "live.json.parts")):
        yield from written(name, "merge", merged, "-o", "OUT")


def _unpacked(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".memory-viz":
        return repr(pickle.loads(content))
    text = content.decode()
    packed = re.findall(r'<script type="text/plain" id="map-\d+">([^<]*)<', text)
    return text + "".join(repr(zlib.decompress(base64.b64decode(one))) for one in packed)


def found_in(outputs: Iterable[tuple[str, str]], words: set[str]) -> dict[str, set[str]]:
    """Return which of the words each output has."""
    found = ((what, {word for word in words if word in text}) for what, text in outputs)
    return {what: has for what, has in found if has}


def test_every_word_is_shown_where_nothing_is_left_out(trace: Path, tmp_path: Path) -> None:
    found = found_in(outputs(trace, tmp_path), PERSONAL | SOURCE)
    assert set().union(*found.values()) == PERSONAL | SOURCE


def test_redact_leaves_out_what_is_personal(trace: Path, tmp_path: Path) -> None:
    assert not found_in(outputs(trace, tmp_path, "--redact"), PERSONAL)


def test_no_source_leaves_out_files_and_lines_too(trace: Path, tmp_path: Path) -> None:
    # The stronger of two options holds.
    assert not found_in(outputs(trace, tmp_path, "--no-source", "--redact"), PERSONAL | SOURCE)


def without_texts(value: Any) -> Any:
    """Return a document with its numbers, flags and words of the schema, and nothing that is a sentence or a place."""
    if isinstance(value, dict):
        shown = {key: without_texts(one) for key, one in value.items() if key not in ("where", "requested_at", "host")}
        return {key: one for key, one in shown.items() if one != ""}
    if isinstance(value, list):
        return [without_texts(one) for one in value]
    return "" if isinstance(value, str) and " " in value else value


@pytest.mark.parametrize("option", ["--redact", "--no-source"])
@pytest.mark.parametrize("name", ["snapshot.pickle", "oom-snapshot.pickle", "ddp.json.gz", "leak.json.gz"])
def test_figures_are_the_same_with_and_without(name: str, option: str) -> None:
    reports = [
        json.loads(CliRunner().invoke(group, ["report", str(GOLD.parent / name), "--json", *options]).stdout)
        for options in ([], [option])
    ]
    assert without_texts(reports[0]) == without_texts(reports[1])


@pytest.mark.process
@pytest.mark.parametrize(
    ("option", "words"), [("--redact", PERSONAL), ("--no-source", PERSONAL | SOURCE)], ids=["redact", "no-source"]
)
def test_agents_are_told_nothing_of_it(trace: Path, option: str, words: set[str]) -> None:
    pytest.importorskip("mcp")

    async def ask(client: Any, call: Call) -> list[tuple[str, str]]:
        asked: dict[str, dict[str, Any]] = {
            "summary": {},
            "findings": {},
            "peak": {},
            "what_if": {"alloc_confs": ["expandable_segments:True"]},
            "check": {"budgets": ["peak=1KiB"]},
        }
        answers = [(tool, await call(tool, trace=trace.name, **more)) for tool, more in asked.items()]
        answers.append(("diff", await call("diff", a=trace.name, b=str(GOLD))))
        assert not any(answer.is_error for _, answer in answers), answers
        return [(what, answer.text) for what, answer in answers]

    assert found_in(with_server(trace.parent, ask), words)
    assert not found_in(with_server(trace.parent, ask, option), words)
