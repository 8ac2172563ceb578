"""Tracebacks as they would be without memtrace: what the program prints about its own error is its own.

Two things of ours show in them: frames of hooks and wrappers, and the longer way that a torch module takes to its
`forward` as soon as any module hook is registered (`_call_impl` → `inner` → `forward`, instead of straight on).
"""

from __future__ import annotations

import dis
import linecache
import os
import sys
from functools import lru_cache
from types import CodeType, FrameType, TracebackType
from typing import Any

from memtrace.schema.frames import WRAPPER_FILE

_OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
OWN_FILES = _OWN_FOLDER, WRAPPER_FILE
"""How the names of files begin whose code is ours, and no frame of the program's."""
_MODULE_FILE = os.path.join("torch", "nn", "modules", "module.py")
_CALL_OF_FORWARD = "forward_call(*args, **kwargs)"
_SHORT_CALL = f"return {_CALL_OF_FORWARD}"
_CALL_OPCODES = frozenset({"CALL_FUNCTION_EX", "CALL_FUNCTION_KW", "CALL", "CALL_KW"})
_HOOKS_OF_A_MODULE = ("_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks")


def strip_exception(error: BaseException) -> None:
    """Make the tracebacks of an exception, and of all that it is chained to, those of a bare run."""
    todo: list[BaseException | None] = [error]
    done: set[int] = set()
    while todo:
        one = todo.pop()
        if one is None or id(one) in done:
            continue
        done.add(id(one))
        one.__traceback__ = strip_own_frames(one.__traceback__)
        todo += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def strip_own_frames(tb: TracebackType | None) -> TracebackType | None:
    """Return a traceback as it would be without memtrace. Affects: links of `tb` are changed in place."""
    entries: list[TracebackType] = []
    while tb is not None:
        if not is_own(tb.tb_frame):
            entries.append(tb)
        tb = tb.tb_next
    kept: list[TracebackType] = []
    for entry in entries:
        short = _short_call(kept[-1], entry) if kept else None
        if short is not None:
            kept[-1] = short
        else:
            kept.append(entry)
    following: TracebackType | None = None
    for entry in reversed(kept):
        if entry.tb_next is not following:
            entry.tb_next = following
        following = entry
    return following


def shorten_module_call() -> None:
    """Let the exception that torch passes on from a module's `forward` look as if there were no hooks of ours.

    Called by a hook that torch runs on the way out, before the program can see the exception.
    """
    error = sys.exc_info()[1]
    tb = None if error is None else error.__traceback__
    if error is None or tb is None or tb.tb_next is None:
        return
    short = _short_call(tb, tb.tb_next)
    if short is not None:
        short.tb_next = tb.tb_next.tb_next
        error.__traceback__ = short


def is_own(frame: FrameType) -> bool:
    """Return whether a frame runs code of memtrace's hooks."""
    return frame.f_code.co_filename.startswith(OWN_FILES)


def is_own_code(function: Any) -> bool:
    """Return whether a function or method is one of memtrace's hooks."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return isinstance(code, CodeType) and code.co_filename.startswith(OWN_FILES)


def _short_call(caller: TracebackType, inner: TracebackType) -> TracebackType | None:
    """Return the one entry that stands for `_call_impl` and `inner` where only our hooks made torch go through both."""
    code = caller.tb_frame.f_code
    if not (
        code.co_name == "_call_impl"
        and inner.tb_frame.f_code.co_name == "inner"
        and code.co_filename.endswith(_MODULE_FILE)
        and inner.tb_frame.f_code.co_filename == code.co_filename
        # And not the call of a hook of the program's, which may have taken it off since.
        and _CALL_OF_FORWARD in linecache.getline(code.co_filename, inner.tb_lineno)
    ):
        return None
    place = _place_of_short_call(code)
    if place is None or _has_hooks_of_the_program(caller.tb_frame):
        return None
    return TracebackType(None, caller.tb_frame, *place)


@lru_cache(maxsize=4)
def _place_of_short_call(code: CodeType) -> tuple[int, int] | None:
    """Return instruction offset and line at which `_call_impl` calls `forward` if there are no hooks."""
    line = 0
    for instruction in dis.get_instructions(code):
        if isinstance(instruction.starts_line, int) and not isinstance(instruction.starts_line, bool):
            line = instruction.starts_line
        line = getattr(instruction, "line_number", None) or line  # Python 3.13 names it so
        if instruction.opname in _CALL_OPCODES and linecache.getline(code.co_filename, line).strip() == _SHORT_CALL:
            return instruction.offset, line
    return None


def _has_hooks_of_the_program(frame: FrameType) -> bool:
    """Whether torch would have taken the longer way without us as well."""
    module: Any = frame.f_locals.get("self")
    if any(getattr(module, name, None) for name in _HOOKS_OF_A_MODULE):
        return True
    names = [name for name in frame.f_globals if name.startswith("_global_") and name.endswith("_hooks")]
    hooks = [hook for name in names for hook in dict(frame.f_globals[name] or {}).values()]
    return any(not getattr(hook, "__code__", _NO_CODE).co_filename.startswith(_OWN_FOLDER) for hook in hooks)


_NO_CODE = (lambda: None).__code__.replace(co_filename="")
