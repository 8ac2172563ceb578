"""Header facts without what tells on a person: what the schema does not know is left out, too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from memtrace.schema.environment import RECORDED_VARIABLES
from memtrace.schema.redaction import Redaction
from memtrace.schema.tables import RANK_HEADER, TRACE_HEADER, Field
from memtrace.store.redaction.texts import Texts

_DROPPED = frozenset({"command", "host", "original_path"})
# Numbers, lists of numbers, words of torch, and name:value pairs of them; no UUID of a device and no path.
_VALUE = r"(?:[\d.,:*>\[\]\s\-]+|LAZY|EAGER|DEFAULT|True|False|true|false|native|cudaMallocAsync)"
_SETTING = re.compile(rf"{_VALUE}?|[a-z_\d]+:{_VALUE}(?:,[a-z_\d]+:{_VALUE})*")
_OF_TORCH = re.compile(r"torch\.(?:cuda\.)?OutOfMemoryError")


def trace_header(header: Mapping[str, Any], texts: Texts) -> dict[str, Any]:
    """Return the header of a trace without its command."""
    shown = _shown(header, TRACE_HEADER, texts)
    return {**shown, "command": None, "redacted": True} if header else {}


def rank_header(header: Mapping[str, Any], texts: Texts) -> dict[str, Any]:
    """Return the header of a rank without host, script, and what the exception that ended it said."""
    shown = _shown(header, RANK_HEADER, texts)
    if isinstance(header.get("environment"), Mapping):
        shown["environment"] = environment_settings(header["environment"])
    if isinstance(header.get("allocator_settings"), Mapping):
        shown["allocator_settings"] = {
            name: value for name, value in header["allocator_settings"].items() if _is_setting(value)
        }
    if isinstance(header.get("exception"), Mapping):
        shown["exception"] = _exception(header["exception"], texts)
    return shown


def environment_settings(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of an environment that are numbers or words of torch: others can name anything.

    >>> environment_settings({"CUDA_VISIBLE_DEVICES": "0,1", "HIP_VISIBLE_DEVICES": "GPU-8f1e", "HOME": "/home/me"})
    {'CUDA_VISIBLE_DEVICES': '0,1'}
    """
    return {name: value for name, value in environment.items() if name in RECORDED_VARIABLES and _is_setting(value)}


def _is_setting(value: Any) -> bool:
    return not isinstance(value, str) or _SETTING.fullmatch(value) is not None


def _shown(header: Mapping[str, Any], known: tuple[Field, ...], texts: Texts) -> dict[str, Any]:
    names = [one.name for one in known if one.name in header]
    return {name: None if name in _DROPPED else texts.value(header[name]) for name in names}


def _exception(exception: Mapping[str, Any], texts: Texts) -> dict[str, Any]:
    """Return an exception without its message; that of an out-of-memory error of torch is about sizes only."""
    message = exception.get("message")
    is_kept = isinstance(message, str) and _OF_TORCH.fullmatch(str(exception.get("type"))) is not None
    stack = exception.get("stack")
    return {
        "type": exception.get("type"),
        "message": texts.sentence(str(message)) if is_kept else None,
        "stack": [_frame(one, texts) for one in stack if isinstance(one, Mapping)] if isinstance(stack, list) else [],
        "thread": texts.value(exception.get("thread")),
    }


def _frame(frame: Mapping[str, Any], texts: Texts) -> dict[str, Any]:
    file, line, function = (frame.get(name) for name in ("file", "line", "function"))
    if texts.redaction is Redaction.SOURCE:
        return {"file": "", "line": 0, "function": function}
    return {"file": texts.file_name(str(file or "")), "line": line, "function": function}
