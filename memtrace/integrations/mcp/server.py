"""The server itself: the tools offered over stdio, their errors as one sentence and a hint."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.types import CallToolResult, TextContent, ToolAnnotations

from memtrace import __version__
from memtrace.errors import MemtraceError
from memtrace.integrations.mcp.shorten import text
from memtrace.integrations.mcp.time_limit import LIMIT_S, within
from memtrace.integrations.mcp.tools import Tools
from memtrace.schema.redaction import Redaction, without_places

INSTRUCTIONS = """
memtrace reads recordings of PyTorch training runs and says where the memory went. Start with `summary`, then `findings`
for what to change, `peak` for which modules and lines hold the memory, `what_if` for other allocator settings and
devices, `fix` for modules to compute again, `diff` and `check` for a run beside an earlier one. Sizes are bytes, times
ns; null is "not recorded".
Categories in `exact_by_category` were seen, the rest is inferred. `left_out` says what an answer leaves out, and how to
ask for it. A recording is made in a shell: `memtrace record -o trace.json -- python train.py`.
""".strip()

_log = logging.getLogger("memtrace.mcp")


def make_server(root: Path | None = None, redaction: Redaction = Redaction.NOTHING) -> MCPServer[Any]:
    """Return the server with its tools, which read below `root` only, if it is given, and nothing before a call.

    `redaction` says what is left out of their answers.
    """
    server: MCPServer[Any] = MCPServer(
        "memtrace",
        title="memtrace: memory of PyTorch training",
        instructions=INSTRUCTIONS,
        version=__version__,
        log_level="ERROR",
    )
    tools = Tools(root, redaction)
    for tool in (tools.summary, tools.findings, tools.peak, tools.diff, tools.what_if, tools.fix, tools.check):
        server.add_tool(
            _answering(tool, redaction),
            name=tool.__name__,
            description=inspect.cleandoc(tool.__doc__ or ""),
            annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
        )
    return server


def serve(root: Path | None = None, redaction: Redaction = Redaction.NOTHING) -> None:
    """Answer on standard input and output until the client closes them."""
    make_server(root, redaction).run("stdio")


def _answering(tool: Callable[..., Any], redaction: Redaction) -> Callable[..., CallToolResult]:
    """Return the tool as the server calls it: its answer once as text and once as data, never an exception."""

    @functools.wraps(tool)
    def call(**arguments: Any) -> CallToolResult:
        try:
            answer = within(LIMIT_S, lambda: tool(**arguments))
        except MemtraceError as error:
            return _failed(error.message, error.hint)
        except Exception as error:
            _log.exception("the tool %s failed", tool.__name__)
            return _failed(
                f"the tool {tool.__name__} failed ({type(error).__name__})",
                "this is a bug in memtrace: report it with what is on stderr and `memtrace doctor` prints",
            )
        if redaction is Redaction.SOURCE:
            answer = type(answer).model_validate(without_places(answer.model_dump()))
        return CallToolResult(
            content=[TextContent(type="text", text=answer.model_dump_json())],
            structured_content=answer.model_dump(mode="json"),
        )

    return call


def _failed(message: str, hint: str | None) -> CallToolResult:
    words = f"error: {text(message)}" + (f"\nhint: {text(hint)}" if hint else "")
    return CallToolResult(content=[TextContent(type="text", text=words)], is_error=True)
