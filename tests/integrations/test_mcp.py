"""The MCP server, asked by a real client about real recordings: its figures are those of `--json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from memtrace.cli import group
from tests.conftest import RunMemtrace

pytest.importorskip("mcp")

from tests.integrations.mcp_client import Call, same_as_text, with_server

TRAIN = """
import sys, torch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64))
optimizer = torch.optim.Adam(model.parameters())
for _ in range(3):
    model(torch.ones(int(sys.argv[1]), 64)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, run_memtrace: RunMemtrace) -> Path:
    """A folder with the traces of two runs, the second with twice the batch."""
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "train.py").write_text(TRAIN)
    for name, batch in (("main.json", "128"), ("branch.json", "256")):
        done = run_memtrace(
            "record", "-o", name, "--", sys.executable, "train.py", batch, cwd=folder, env={"OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def documents(folder: Path, run_memtrace: RunMemtrace) -> dict[str, Any]:
    """What the commands say about them with `--json`."""
    commands = {
        "report": ["report", "main.json"],
        "diff": ["diff", "main.json", "branch.json"],
        "whatif": ["whatif", "main.json", "--as", "cuda", "--capacity", "1MiB", "--advise"],
    }
    return {name: json.loads(run_memtrace(*words, "--json", cwd=folder).stdout) for name, words in commands.items()}


def test_every_tool_answers_what_the_commands_say(folder: Path, documents: dict[str, Any]) -> None:
    async def ask(client: Any, call: Call) -> dict[str, Any]:
        tools = (await client.list_tools()).tools
        return {
            "tools": tools,
            "summary": await call("summary", trace="main.json"),
            "findings": await call("findings", trace=["main.json"], limit=50),
            "peak": await call("peak", trace="main.json", limit=3),
            "step_end": await call("peak", trace="main.json", moment="step_end", step=2),
            "diff": await call("diff", a="main.json", b="branch.json"),
            "what_if": await call("what_if", trace="main.json", capacities=["1MiB"], advise=True),
            "fix": await call("fix", trace="main.json", capacity="1KiB"),
            "check": await call("check", trace="branch.json", budgets=["peak=1GiB"], baseline="main.json"),
        }

    answers = with_server(folder, ask)
    tools = {tool.name: tool for tool in answers.pop("tools")}
    assert list(tools) == ["summary", "findings", "peak", "diff", "what_if", "fix", "check"]
    for tool in tools.values():
        assert tool.description
        assert tool.output_schema
        assert tool.annotations.read_only_hint
    assert [name for name, one in answers.items() if one.is_error or not same_as_text(one)] == []

    (rank,) = documents["report"]["ranks"]
    summary = answers["summary"].data
    assert summary["verdict"] == documents["report"]["verdict"]
    (shown,) = summary["ranks"]
    for name in ("peak", "first_step_peak", "steady_state_peak", "end"):
        assert {**rank[name], **shown[name]} == {**rank[name], **_defaults(rank[name])}
    assert (shown["num_steps"], shown["num_events"]) == (len(rank["steps"]), rank["num_events"])

    found = answers["findings"].data["findings"]
    assert [one["slug"] for one in found] == [one["slug"] for one in documents["report"]["findings"]]
    assert [one["evidence"] for one in found] == [one["evidence"] for one in documents["report"]["findings"]]

    peak = answers["peak"].data
    assert peak["memory"]["by_category"] == rank["peak"]["by_category"]
    assert any("train.py:" in frame for row in peak["stacks"] for frame in row["frames"])
    end = answers["step_end"].data
    assert end["memory"]["by_category"] == rank["steps"][1]["end"]["by_category"]
    assert sum(row["num_bytes"] for row in end["modules"]) == end["memory"]["requested_bytes"]

    diff = answers["diff"].data
    assert {row["name"]: row["delta_bytes"] for row in diff["categories"] if row["delta_bytes"]} == documents["diff"][
        "peak"
    ]["delta_by_category"]
    rows = answers["what_if"].data["devices"][0]["rows"]
    expected = documents["whatif"]["ranks"][0]["rows"]
    assert [(row["name"], row["max_reserved_bytes"], row["fits"]) for row in rows] == [
        (row["name"], row["max_reserved_bytes"], row["fits"]) for row in expected
    ]
    assert False in [row["fits"] for row in rows]
    fix = answers["fix"].data
    assert not fix["fits"]
    assert (fix["rungs"][0]["peak_bytes"], fix["budget_bytes"]) == (rank["peak"]["requested_bytes"], 1 << 10)
    check = answers["check"].data
    assert check["budgets"][0]["passed"]
    assert (check["passed"], check["grew_too_much"][0]) == (False, "peak")


def _defaults(state: dict[str, Any]) -> dict[str, Any]:
    """Return what an answer says of a state that is no peak: no step, phase or module."""
    return {name: state.get(name) for name in ("step", "phase", "module")} | {
        "predicted": state.get("predicted", False)
    }


def test_mistakes_are_one_sentence_and_a_hint(folder: Path) -> None:
    async def ask(_client: Any, call: Call) -> list[Any]:
        return [
            await call("summary", trace="missing.json"),
            await call("summary", trace="train.py"),
            await call("summary", trace="main.json", capacity="much"),
            await call("peak", trace="main.json", rank=7),
            await call("peak", trace="main.json", moment="step_peak", step=99),
            await call("what_if", trace="main.json", scale=["nothing=2"]),
            await call("check", trace="main.json"),
            await call("check", trace="main.json", budgets=["reserved=1GiB"]),
        ]

    for answered in with_server(folder, ask):
        assert answered.is_error
        what, hint = answered.text.split("\n")
        assert what.startswith("error: ")
        assert hint.startswith("hint: ")
        assert "Traceback" not in answered.text


def test_without_the_package_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.delitem(sys.modules, "memtrace.integrations.mcp.server", raising=False)
    for name in [one for one in sys.modules if one.startswith("mcp.")]:
        monkeypatch.delitem(sys.modules, name)
    result = CliRunner().invoke(group, ["mcp"])
    assert result.exit_code == 1
    assert result.stderr == "error: the server needs the package mcp, version 2\nhint: pip install 'memtrace[mcp]'\n"


def test_a_root_keeps_the_server_below_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(folder / "main.json")
    (tmp_path / "own.json").write_bytes((folder / "main.json").read_bytes())

    async def ask(_client: Any, call: Call) -> list[bool]:
        names = ["own.json", "link.json", str(folder / "main.json"), "../" * 30 + "etc/hostname"]
        return [(await call("summary", trace=name)).is_error for name in names]

    assert with_server(tmp_path, ask, "--root", str(tmp_path)) == [False, True, True, True]


def test_a_trace_is_read_again_once_it_has_changed(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    trace.write_bytes((folder / "main.json").read_bytes())

    async def ask(_client: Any, call: Call) -> list[str]:
        verdicts = [(await call("summary", trace="trace.json")).data["verdict"]]
        trace.write_bytes((folder / "branch.json").read_bytes())
        return [*verdicts, (await call("summary", trace="trace.json")).data["verdict"]]

    before, after = with_server(tmp_path, ask)
    assert before != after
