"""Starts a program on GPUs that are not there.

`python -m memtrace.driverless.start --gpu t4-16gb -- python train.py`
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from memtrace.driverless.environment import CONTEXT_BYTES, Devices, environment
from memtrace.driverless.torch_build import python_of
from memtrace.errors import MemtraceError
from memtrace.units import parse_bytes


def main(arguments: Sequence[str] | None = None) -> int:
    """Become the program, with the environment in which its torch sees the devices; return 1 if that cannot be."""
    asked = _parser().parse_args(arguments)
    command = asked.command[1:] if asked.command[:1] == ["--"] else asked.command
    try:
        devices = Devices(
            gpu=asked.gpu,
            num_devices=asked.devices,
            memory_bytes=parse_bytes(asked.memory) if asked.memory else None,
            context_bytes=parse_bytes(asked.context) if asked.context else CONTEXT_BYTES,
            log=asked.log,
        )
        added = environment(devices, python=python_of(command))
        os.execvpe(command[0], command, {**os.environ, **added})
    except (MemtraceError, OSError) as error:
        hint = f"\n{error.hint}" if isinstance(error, MemtraceError) and error.hint else ""
        sys.stderr.write(f"memtrace: {error}{hint}\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m memtrace.driverless.start", description=main.__doc__)
    parser.add_argument("--gpu", default="h100-80gb", help="name in memtrace's data sheets (default: %(default)s)")
    parser.add_argument("--devices", type=int, default=1, help="how many (default: %(default)s)")
    parser.add_argument("--memory", help="memory of each, such as 8GiB, in place of the data sheet's")
    parser.add_argument("--context", help="what CUDA takes of each for itself (default: 512MiB)")
    parser.add_argument("--log", type=Path, help="file that what was refused or not kept is appended to")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the program, after --")
    return parser


if __name__ == "__main__":
    sys.exit(main())
