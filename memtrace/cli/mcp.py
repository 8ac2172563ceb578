"""`memtrace mcp`: a server that coding agents ask about traces."""

from __future__ import annotations

from pathlib import Path

import click

from memtrace.cli.options.redaction import redaction_options
from memtrace.errors import MemtraceError
from memtrace.schema.redaction import Redaction


@click.command()
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Read below this folder only.",
)
@redaction_options
def mcp(root: Path | None, redaction: Redaction) -> None:
    """Answer the questions of coding agents about traces.

    It is a server over stdio (Model Context Protocol). An agent starts this command itself, once it is told to; typed
    in a terminal it waits for messages. It reads the traces that the agent names and writes nothing. Needs
    `pip install 'memtrace[mcp]'`.

    \b
    Example:
      {"mcpServers": {"memtrace": {"command": "memtrace", "args": ["mcp"]}}}
    """
    try:
        from memtrace.integrations.mcp.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "pydantic"):
            raise
        raise MemtraceError("the server needs the package mcp, version 2", hint="pip install 'memtrace[mcp]'") from None
    serve(root, redaction)
