"""The worked example of docs/mcp.md: its program is recorded, and a real client is answered what the page says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, RunMemtrace

pytest.importorskip("mcp")

from tests.integrations.mcp_client import Call, with_server

PAGE = ROOT / "docs/mcp.md"


def blocks(kind: str) -> list[str]:
    """Return the blocks of code of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_worked_example_is_answered_as_the_page_says(tmp_path: Path, run_memtrace: RunMemtrace) -> None:
    (tmp_path / "train.py").write_text(blocks("python")[0])
    recorded = run_memtrace(
        "record", "-o", "trace.json", "--", sys.executable, "train.py", cwd=tmp_path, env={"OMP_NUM_THREADS": "1"}
    )
    assert recorded.returncode == 0, recorded.stderr
    configuration, question, expected = map(json.loads, blocks("json"))

    async def ask(client: Any, call: Call) -> tuple[list[str], Any]:
        return [tool.name for tool in (await client.list_tools()).tools], await call("peak", **question)

    _, *options = configuration["mcpServers"]["memtrace"]["args"]
    tools, answered = with_server(tmp_path, ask, *options)
    assert re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == tools
    # Where the page has its program.
    data = json.loads(json.dumps(answered.data).replace(str(tmp_path), "/home/ada/project"))
    assert data == expected, answered.text
