"""What runs once torch has been imported: decide whether this process is one to record, and start the recorder.

Launchers, compile workers and data loading workers import torch as well, and have nothing to tell.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence

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
_STARTS_WORKERS = ("spawn_main", "multiprocessing.forkserver")
_MULTIPROCESSING = ("from multiprocessing.", "import multiprocessing.")

RECORD, SKIP, WORKER = "record", "skip", "worker"
"""Roles of a process; `WORKER` is a child of multiprocessing, or a fork server: worth recording only if it trains."""


def start(options_json: str) -> None:
    """Start recording this process as the options say, unless it only serves others.

    Raises:
        ValueError: the options are not what `memtrace record` writes.
    """
    role = process_role(_original_argv())
    if role == SKIP:
        return
    options = RecordOptions.from_json(options_json)
    if role == WORKER:
        _install_once_it_trains(options)
    elif threading.current_thread() is not threading.main_thread() and not options.applies_only:
        from memtrace.hooks.workers import record_thread_that_trains

        record_thread_that_trains(lambda: _install(options), by_profiler=options.watch_library is None)
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
        return WORKER if any(name in program for name in _STARTS_WORKERS) else SKIP
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
    if options.applies_only:
        from memtrace.hooks.changes.change import install_alone

        install_alone(options)
        return
    from memtrace.hooks.recorder import install

    install(options)


def _install_once_it_trains(options: RecordOptions) -> None:
    from memtrace.hooks.workers import record_once_it_trains

    record_once_it_trains(lambda: _install(options), _end_worker)


def _end_worker() -> None:
    from memtrace.hooks.recorder import end_worker

    end_worker()
