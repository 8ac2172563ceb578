"""How much a command says beside its answer, on standard error: `-q` and `-v`, the same for every command.

The answer itself, errors and warnings are never left out. Quiet leaves out progress, names of files written and what
to do next; verbose adds which settings and files were read, and what that took.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from memtrace import __version__
from memtrace.printable import clean
from memtrace.units import format_bytes

_KEY = "memtrace.told"
_QUIET, _VERBOSE, _DEBUG = "quiet", "verbose", "debug"
_BYTES_OF_MAXRSS = 1 if sys.platform == "darwin" else 1024


def give_options(command: click.Command) -> click.Command:
    """Return a command with `-q`, `-v` and `--debug`, which mean what they mean before the command."""
    if not any(one.name == _VERBOSE for one in command.params):
        command.params += _options()
    return command


def told_options(command: Any) -> Any:
    """Decorate the group with the same options."""
    command.__click_params__ = [*reversed(_options()), *getattr(command, "__click_params__", [])]
    return command


def _options() -> list[click.Parameter]:
    common: dict[str, Any] = {"is_flag": True, "expose_value": False, "is_eager": True, "callback": _set}
    return [
        click.Option(["-q", "--quiet"], help="Say nothing beside the answer but warnings and errors.", **common),
        click.Option(["-v", "--verbose"], help="Say also what was read, and what it took.", **common),
        click.Option(["--debug"], help="Show the traceback of an error.", **common),
    ]


def _set(context: click.Context, param: click.Parameter, value: bool) -> None:
    state = _state(context)
    assert param.name is not None
    if value:
        state.add(param.name)
    if {_QUIET, _VERBOSE} <= state:
        raise click.UsageError("-q says less and -v says more: take one of them")
    if param.name == _VERBOSE and context.parent is not None:
        begun = time.perf_counter()
        context.call_on_close(lambda: _tell_end(context, begun))


def _state(context: click.Context) -> set[str]:
    found: set[str] = context.find_root().meta.setdefault(_KEY, set())
    return found


def _is_set(name: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and name in _state(context)


def is_quiet() -> bool:
    """Return whether nothing is to be said beside the answer."""
    return _is_set(_QUIET)


def is_debugging(context: click.Context) -> bool:
    """Return whether errors are to be shown with their traceback."""
    return _DEBUG in _state(context)


def say(text: str, *, err: bool = True) -> None:
    """Say something beside the answer, unless quiet was asked for."""
    if not is_quiet():
        click.echo(text, err=err)


def explain(text: str) -> None:
    """Say what a command does, where that was asked for."""
    if _is_set(_VERBOSE):
        click.echo(f"memtrace: {clean(text)}", err=True)


def _tell_end(context: click.Context, begun: float) -> None:
    """Tell what a command read, and what it took."""
    if _VERBOSE not in _state(context):
        return
    said = [f"{__version__}, Python {platform.python_version()}, {context.command_path}"]
    said += [f"read {path}{_size(path)}" for path in _paths(context)]
    said.append(f"took {time.perf_counter() - begun:.2f} s{_memory()}")
    for line in said:
        click.echo(f"memtrace: {clean(line)}", err=True)


def _paths(context: click.Context) -> Iterator[Path]:
    """Yield the files and folders that a command was given to read, each once."""
    named = {one.name for one in context.command.params if isinstance(one.type, click.Path) and one.type.exists}
    for name in sorted(filter(None, named)):
        value = context.params.get(name)
        yield from (one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, Path))


def _size(path: Path) -> str:
    try:
        return f", {format_bytes(path.stat().st_size)}" if path.is_file() else ""
    except OSError:
        return ""


def _memory() -> str:
    """Return the most memory that this process has held, where the system tells."""
    try:
        import resource
    except ImportError:
        return ""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f", {format_bytes(most * _BYTES_OF_MAXRSS)} of memory at most"
