"""A real client of the MCP server: the SDK's own, over the standard streams of a real process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What came back from a tool."""

    text: str
    data: Any
    is_error: bool


Call = Callable[..., Awaitable[Answered]]


def with_server(folder: Path, ask: Callable[[Any, Call], Awaitable[Any]], *options: str) -> Any:
    """Start `memtrace mcp` in a folder and return what `ask(client, call)` returns."""
    from mcp.client.client import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client

    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "memtrace", "mcp", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    async def talk() -> Any:
        async with Client(stdio_client(server)) as client:

            async def call(tool: str, **arguments: Any) -> Answered:
                result = await client.call_tool(tool, arguments)
                return Answered(
                    text=result.content[0].text, data=result.structured_content, is_error=bool(result.is_error)
                )

            return await ask(client, call)

    # In a thread of its own: a browser that another test opened leaves this one with a running event loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(asyncio.wait_for(talk(), timeout=120))).result()


def same_as_text(answered: Answered) -> bool:
    """Return whether an answer says the same as text and as data."""
    return bool(json.loads(answered.text) == answered.data)
