"""Asking one question in this process, and saying what no answer may be: an exception, or an output that is broken."""

from __future__ import annotations

import asyncio
import functools
import json
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from memtrace.cli import group
from memtrace.errors import MemtraceError

BUG = "this is a bug in memtrace"
UNSEEN = "could not be analysed ("
"""Where one rank of several ends in an exception, the others are reported; what it is must be found nevertheless."""
EXIT_CODES = {"check": 3, "report": 3, "estimate": 4, "plan": 3, "fix": 3}
"""The largest exit code that a command documents, where that is not 2 (wrong usage)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An answer that none may be."""

    words: tuple[str, ...]
    """The command line."""
    group: str
    """What failures of one cause share."""
    text: str
    """A traceback, or what is wrong with the output."""


def ask(words: list[str]) -> Failure | None:
    """Ask a question and return what is wrong with its answer, `None` if nothing is."""
    try:
        if words[0] == "mcp":
            wrong = _ask_server(words[1], words[2:])
        elif words[0] == "show":
            wrong = _show(Path(words[1]))
        elif words[0] == "fit-state":
            wrong = _open_state(Path(words[1]))
        else:
            wrong = _run(words)
    except Exception as error:
        return _failure(words, error)
    return wrong if wrong is None or isinstance(wrong, Failure) else _wrong(words, wrong)


def _wrong(words: list[str], what: str) -> Failure:
    return Failure(words=tuple(words), group=f"{words[0]}: {what.splitlines()[0][:120]}", text=what)


def _failure(words: list[str], error: BaseException) -> Failure:
    own = [one for one in traceback.extract_tb(error.__traceback__) if "/memtrace/" in one.filename]
    last = own[-1] if own else traceback.extract_tb(error.__traceback__)[-1]
    place = f"{last.filename.rpartition('/memtrace/')[2]}:{last.lineno} in {last.name}"
    text = "".join(traceback.format_exception(error))
    return Failure(words=tuple(words), group=f"{type(error).__name__} at {place}", text=text)


def _run(words: list[str]) -> Failure | str | None:
    """Run a command as the command line does."""
    result = CliRunner().invoke(group, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return _failure(words, result.exception)
    if BUG in result.output:
        # Once more, for the traceback.
        again = CliRunner().invoke(group, ["--debug", *words]).exception
        return (
            _failure(words, again) if isinstance(again, Exception) else f"a bug only without --debug: {result.output}"
        )
    if not 0 <= result.exit_code <= EXIT_CODES.get(words[0], 2):
        return f"exit code {result.exit_code}: {result.output[-500:]}"
    if result.exit_code == 1 and "error: " not in result.stderr:
        return f"exit code 1 and no word why: {result.output[-500:]}"
    if UNSEEN in result.output:
        return f"a rank that was not foreseen: {result.output[-2000:]}"
    if "\x1b" in result.output:
        return f"an escape character for the terminal: {result.output[:2000]!r}"
    return _wrong_json(result.stdout) if "--json" in words and result.exit_code in (0, 3) else None


def _wrong_json(text: str) -> str | None:
    try:
        json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        return f"no JSON: {error}"
    return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _ask_server(tool: str, words: list[str]) -> str | None:
    """Ask a tool of the MCP server as the server does when a client has asked."""
    from mcp.server.mcpserver.exceptions import ToolError

    arguments: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        arguments[name] = [value] if name == "budgets" else {"true": True, "1": 1}.get(value, value)
    try:
        answer = asyncio.run(_server().call_tool(tool, arguments))
    except ToolError as error:
        # What the server answers where an argument is none of the tool's schema.
        return None if "validation error" in str(error) else str(error)
    text = answer.content[0].text
    return text if BUG in text or "Traceback" in text else None


@functools.cache
def _server() -> Any:
    from memtrace.integrations.mcp.server import make_server

    return make_server()


def _show(path: Path) -> None:
    """Read a trace in a script, and draw it as a notebook does."""
    import memtrace

    try:
        trace = memtrace.read(path)
        repr(trace)
        trace.show()._repr_html_()
    except MemtraceError:
        return


def _open_state(path: Path) -> None:
    """Go on with a search of `memtrace fit`."""
    from memtrace.cli.fitting.state import SUFFIX, State

    state = path.rename(path.with_name(f"output{SUFFIX}"))
    try:
        State.open(state.with_name("output"), {"command": ["train"], "steps": 2}, force=False)
    except MemtraceError:
        return
