"""`[tool.memtrace]` in the nearest pyproject.toml: what a project always asks for, so that nobody types it again.

In: the folder in which a command runs. Out: defaults of options, by command. What is typed goes before.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memtrace.errors import MemtraceError

FILE = "pyproject.toml"
MAX_BYTES = 4 * 1024**2
_TEXT, _LIST, _REDACT = "a text", "a list of texts", 'true, or "source"'
KEYS: dict[str, tuple[str, tuple[tuple[str, str], ...], str]] = {
    "capacity": (_TEXT, (("report", "capacity"),), 'memory of the device, as "h100-80gb" or "24GiB"'),
    "steps": (_TEXT, (("record", "steps"),), 'steps to keep, as "1-5,last2"'),
    "budgets": (_LIST, (("check", "budgets"),), 'upper limits, as ["steady_peak=70GiB"]'),
    "baseline": (_TEXT, (("check", "baseline"),), "the trace that a run is compared with, beside the file"),
    "tolerance": (_TEXT, (("check", "tolerance"),), 'growth to allow, as "2%"'),
    "gates": (_LIST, (("check", "gates"),), 'categories that fail a check too, as ["activation"]'),
    "redact": (_REDACT, (), "leave out what tells on a person in all that is shown or written"),
}
"""By key: what it is, the options that it is the default of, and what it does."""
_REDACTING = (
    "record",
    "report",
    "whatif",
    "diff",
    "trend",
    "check",
    "export",
    "inspect",
    "live",
    "merge",
    "mcp",
    "predict",
)


def defaults(folder: Path) -> dict[str, dict[str, Any]]:
    """Return defaults of options by command, of the nearest settings at or above a folder; none where there are none.

    Raises:
        MemtraceError: a key is unknown, or its value is of another kind.
    """
    path = next((one / FILE for one in (folder, *folder.parents) if (one / FILE).is_file()), None)
    settings = None if path is None else _read(path)
    if path is None or not settings:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        _check(key, value, path)
        if key == "redact":
            for command in _REDACTING if value else ():
                found.setdefault(command, {})["no_source" if value == "source" else "redact"] = True
            continue
        for command, option in KEYS[key][1]:
            # A path stands beside the file that names it, wherever memtrace is called from.
            found.setdefault(command, {})[option] = str(path.parent / value) if key == "baseline" else value
    return found


def _read(path: Path) -> Mapping[str, Any] | None:
    """Return the table of a file; `None` where it has none. A file that is no TOML is its own tool's to complain of."""
    try:
        text = path.read_bytes()[:MAX_BYTES].decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if "tool.memtrace" not in text and "memtrace" not in text:
        return None
    try:
        import tomllib  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        # Python 3.10 has no reader of TOML of its own.
        return None
    try:
        table = tomllib.loads(text).get("tool", {}).get("memtrace")
    except (tomllib.TOMLDecodeError, AttributeError):
        return None
    return table if isinstance(table, Mapping) else None


def _check(key: str, value: Any, path: Path) -> None:
    if key not in KEYS:
        near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise MemtraceError(f"{path}: [tool.memtrace] has no {key!r}", hint=f"{hint}There are {', '.join(KEYS)}")
    kind = KEYS[key][0]
    is_right = {
        _TEXT: isinstance(value, str),
        _LIST: isinstance(value, list) and all(isinstance(one, str) for one in value),
        _REDACT: isinstance(value, bool) or value == "source",
    }[kind]
    if not is_right:
        raise MemtraceError(f"{path}: {key} of [tool.memtrace] is not {kind}", hint=KEYS[key][2])
