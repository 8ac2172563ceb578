"""Which engine predicts a program: torch's own CUDA code where that can run here, else tensors without data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memtrace.errors import MemtraceError
from memtrace.schema.predicted import DRIVERLESS, META

if TYPE_CHECKING:
    from memtrace.forecast.gpus import Gpu
    from memtrace.forecast.prediction.results import Engine

AUTO = "auto"
ENGINES = (AUTO, DRIVERLESS, META)
ENDLESS_BYTES = 1 << 43
"""Memory of a GPU that no program fills."""
_LIKE = "a100-80gb"
"""The card that a GPU of a stated size is in all else."""


def chosen_engine(asked: str, command: Sequence[str], gpu: Gpu) -> Engine:
    """Return the engine for a program, and why it is that one.

    Raises:
        MemtraceError: driverless is asked for and cannot run; the sentence says what is missing.
    """
    from memtrace.forecast.prediction.results import Engine

    if asked == META:
        return Engine(name=META, why="asked for by --engine meta")
    try:
        devices(command, gpu)
    except MemtraceError as error:
        if asked == AUTO:
            return Engine(name=META, why=error.message)
        raise MemtraceError(
            f"--engine driverless cannot run this program: {error.message}",
            hint=error.hint or "--engine auto takes the engine that can; see docs/driverless.md",
            slug="predict-engine",
        ) from error
    why = "the program's Python has torch built for CUDA" if asked == AUTO else "asked for by --engine driverless"
    return Engine(name=DRIVERLESS, why=why)


def devices(command: Sequence[str], gpu: Gpu, *, num_devices: int = 1, without_end: bool = False) -> dict[str, str]:
    """Return the variables under which the torch of a program finds this GPU; `without_end` gives it endless memory.

    Raises:
        MemtraceError: it is not NVIDIA's, or this machine, torch or compiler cannot do it.
    """
    from memtrace.driverless.environment import MOST_DEVICES, Devices, environment
    from memtrace.driverless.torch_build import python_of
    from memtrace.forecast.prediction.judge import usable_bytes
    from memtrace.schema.gpu_cards import CARDS

    described = Devices(
        gpu=gpu.name if gpu.name in CARDS else _LIKE,
        num_devices=min(num_devices, MOST_DEVICES),
        memory_bytes=ENDLESS_BYTES if without_end else gpu.memory_bytes,
        context_bytes=gpu.memory_bytes - usable_bytes(gpu),
    )
    return environment(described, python=python_of(command))
