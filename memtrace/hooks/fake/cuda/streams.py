"""Streams, events and graphs of the fake device: nothing runs, so everything has always finished."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from memtrace.hooks.fake.events.gpu_number import GpuNumber


class _OnGpu:
    """Something of the GPU that the program uses."""

    gpu = GpuNumber()

    @property
    def device(self) -> torch.device:
        """That GPU."""
        return torch.device(self.gpu.name)


class Event(_OnGpu):
    """An event that has happened."""

    event_id = 0
    cuda_event = 0

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        return None

    @classmethod
    def from_ipc_handle(cls, *_args: Any) -> Event:
        """Return an event."""
        return cls()

    def ipc_handle(self) -> bytes:
        """Return a handle that leads nowhere."""
        return b""

    def query(self) -> bool:
        """Everything is done."""
        return True

    def elapsed_time(self, _end: Any) -> float:
        """Return milliseconds between two events: a constant, nothing is timed."""
        return 1.0

    def _nothing(self, *_args: Any, **_kwargs: Any) -> None:
        return None

    synchronize = wait = record = _nothing


class Stream(_OnGpu):
    """A stream with nothing in it."""

    cuda_stream = 0
    stream_id = 0
    device_type = 1
    priority = 0

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        return None

    @property
    def device_index(self) -> int:
        """Its number."""
        return self.gpu.number

    @staticmethod
    def priority_range() -> tuple[int, int]:
        """Return the lowest and the highest priority."""
        return 0, -1

    def query(self) -> bool:
        """Everything is done."""
        return True

    def is_capturing(self) -> bool:
        """No graph is captured."""
        return False

    def record_event(self, event: Any = None) -> Any:
        """Return the event, or a new one."""
        return event or Event()

    def _nothing(self, *_args: Any, **_kwargs: Any) -> None:
        return None

    synchronize = wait_stream = wait_event = _nothing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream)

    def __hash__(self) -> int:
        return 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_error: object) -> None:
        return None


class Nothing:
    """`torch.cuda.stream`, `torch.cuda.device_of` and their like: a context in which nothing is different."""

    idx = 0

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        return None

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_error: object) -> None:
        return None


class Chosen(_OnGpu):
    """`torch.cuda.device`: a context in which another GPU may be the current one."""

    def __init__(self, device: Any = None) -> None:
        self._asked = -1 if device is None else device
        self.idx, self.prev_idx = self.gpu.current, -1

    def __enter__(self) -> None:
        self.prev_idx = self.gpu.choose(self._asked)
        self.idx = self.gpu.current

    def __exit__(self, *_error: object) -> None:
        self.gpu.choose(self.prev_idx)


class Graph:
    """A CUDA graph that was captured by running its body once, and whose replay runs nothing."""

    warn: Callable[[str, str], None]

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        type(self).warn(
            "predicted-graphs", "CUDA graphs are not predicted: what is captured was run once, outside of a pool"
        )

    def pool(self) -> tuple[int, int]:
        """Return the identity of its memory pool."""
        return 0, 1

    def _nothing(self, *_args: Any, **_kwargs: Any) -> None:
        return None

    replay = reset = capture_begin = capture_end = enable_debug_mode = debug_dump = _nothing


def install(warn: Callable[[str, str], None], gpu: GpuNumber) -> None:
    """Put the classes in place. Affects: `torch`, `torch.cuda`, `torch.Tensor.record_stream`."""
    _OnGpu.gpu = gpu
    cuda: Any = torch.cuda
    for module in (cuda, cuda.streams, torch):
        module.Stream, module.Event = Stream, Event
    for module in (cuda, cuda.streams):
        module.ExternalStream = Stream
    for name in ("current_stream", "default_stream", "get_stream_from_external"):
        setattr(cuda, name, lambda *_args, **_kwargs: Stream())
    for name in ("stream", "StreamContext", "device_of"):
        setattr(cuda, name, Nothing)
    cuda.device = cuda._DeviceGuard = Chosen
    tensor: Any = torch.Tensor
    # In Python: C++ would refuse a stream that is not its own before any mode is asked.
    tensor.record_stream = lambda _one, _stream: None

    Graph.warn = staticmethod(warn)

    def callables(found: Any, *_args: Any, **_kwargs: Any) -> Any:
        Graph()
        return found

    for module in (cuda, cuda.graphs):
        module.CUDAGraph, module.graph, module.make_graphed_callables = Graph, Nothing, callables
        module.graph_pool_handle = lambda: (0, 1)
    for name, answer in {"range_push": 0, "range_pop": 0, "range_start": 0, "range_end": None, "mark": None}.items():
        setattr(cuda.nvtx, name, lambda *_args, _answer=answer, **_kwargs: _answer)
    cuda.profiler.start = cuda.profiler.stop = lambda: None
