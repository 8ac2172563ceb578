"""What runs once torch has been imported: decide whether this process is one to record, and start the recorder.

Launchers, compile workers and data loading workers import torch as well, and have nothing to tell.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from memtrace.schema.options import RecordOptions

_LAUNCHER_PROGRAMS = frozenset(
    {"torchrun", "accelerate", "accelerate-launch", "deepspeed", "horovodrun", "composer", "lightning", "fabric"}
)
_LAUNCHER_MODULES = (
    "torch.distributed.run",
    "torch.distributed.launch",
    "accelerate.commands.launch",
    "accelerate.commands.accelerate_cli",
    "deepspeed.launcher.runner",
    "deepspeed.launcher.launch",
)
_HELPER_MODULES = ("torch._inductor.compile_worker", "torch._inductor.autotune_process")
_HELPER_FOLDER = "/torch/_inductor/"
_MULTIPROCESSING = ("from multiprocessing.", "import multiprocessing.")

RECORD, SKIP, RANK_FUNCTION = "record", "skip", "rank_function"
"""Roles of a process; `RANK_FUNCTION` is a spawned child, which is worth recording only under torch's own `spawn`."""


def start(options_json: str) -> None:
    """Start recording this process as the options say, unless it only serves others.

    Raises:
        ValueError: the options are not what `memtrace record` writes.
    """
    role = process_role(_original_argv())
    if role == SKIP:
        return
    options = RecordOptions.from_json(options_json)
    if role == RANK_FUNCTION:
        _install_in_rank_function(options)
    else:
        _install(options)


def process_role(argv: Sequence[str]) -> str:
    """Return what a process is for, judged by its command line, interpreter first.

    >>> process_role(["python", "train.py"]), process_role(["python", "-m", "torch.distributed.run", "train.py"])
    ('record', 'skip')
    >>> process_role(["/usr/bin/python", "-u", "/usr/bin/torchrun", "train.py"])
    'skip'
    """
    kind, program = _program(argv)
    if kind == "-c":
        if not program.startswith(_MULTIPROCESSING):
            return RECORD
        return RANK_FUNCTION if "spawn_main" in program else SKIP
    if kind == "-m":
        serves = program.startswith(_HELPER_MODULES) or program in _LAUNCHER_MODULES
        return SKIP if serves or program == "accelerate" else RECORD
    path = program.replace(os.sep, "/")
    if os.path.basename(path) in _LAUNCHER_PROGRAMS or _HELPER_FOLDER in path:
        return SKIP
    as_module = path.removesuffix(".py").replace("/", ".")
    return SKIP if as_module.endswith(_LAUNCHER_MODULES) else RECORD


def _program(argv: Sequence[str]) -> tuple[str, str]:
    """Return how Python was told what to run, "-c", "-m" or "file", and the code, module or path."""
    rest = list(argv[1:])
    while rest:
        word = rest.pop(0)
        if word in ("-X", "-W", "--check-hash-based-pycs"):
            rest = rest[1:]
        elif not word.startswith("-") or word == "-":
            return "file", word
        elif not word.startswith("--"):
            # Short options may stand together, and the last may hold its value: -um pkg, -mpkg.
            for index, letter in enumerate(word[1:], start=2):
                if letter in "XW":
                    break
                if letter in "cm":
                    value = word[index:] or (rest[0] if rest else "")
                    return f"-{letter}", value
    return "file", ""


def _original_argv() -> list[str]:
    """Return the whole command line: `sys.argv` has lost the interpreter's part, and scripts change it."""
    return list(getattr(sys, "orig_argv", None) or ["python", *sys.argv])


def _install(options: RecordOptions) -> None:
    from memtrace.hooks.recorder import install

    install(options)


def _install_in_rank_function(options: RecordOptions) -> None:
    """Record a spawned child if, and when, it turns out to be a rank of `torch.multiprocessing.spawn`.

    Children find that function's wrapper by its name, after torch is there; data loading workers run another one.
    """
    module: Any = sys.modules.get("torch.multiprocessing.spawn")
    wrapped: Callable[..., object] | None = getattr(module, "_wrap", None)
    if wrapped is None:
        return

    @functools.wraps(wrapped)
    def run(*args: Any, **kwargs: Any) -> object:
        try:
            _install(options)
        except Exception as error:
            if sys.stderr is not None:
                print(f"memtrace: not recorded: {type(error).__name__}: {error}", file=sys.stderr)
        return wrapped(*args, **kwargs)

    module._wrap = run
