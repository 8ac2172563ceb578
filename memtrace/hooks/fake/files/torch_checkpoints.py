"""Saving and loading where tensors have no data: a fake tensor is written as its shape, and read back as one.

`torch.save` writes a real file, in which each fake storage is a few bytes; `torch.load` reads it, and the user's own
checkpoints as well, whose data is mapped and not read. What is loaded onto "cuda" is an allocation of the fake device.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from memtrace.hooks.fake.events.storages import CUDA, HOST, PLAIN, FakeMemory

Place = Callable[[Any], Any]
"""Gives the place of a path: where it is read, or where it is to be written."""

_FIRST = 0
"""Priority among the functions that put a loaded storage onto its device: before torch's own."""


class StorageToken:
    """A fake storage in a pickle: one token a storage, so that tensors which share it share it again."""

    __slots__ = ("storage",)

    def __init__(self, storage: Any) -> None:
        self.storage = storage

    def __reduce__(self) -> Any:
        storage = self.storage
        return loaded_storage, (_loader.kind_of(storage), storage._cdata, storage.nbytes())


def loaded_storage(kind: str, key: int, num_bytes: int) -> StorageToken:
    """Return the token of a storage that was saved, on the device that the load asks for."""
    return _loader.storage(kind, key, num_bytes)


def loaded_tensor(token: StorageToken, dtype: Any, size: Any, stride: Any, offset: int, needs_grad: bool) -> Any:
    """Return a fake tensor over a storage that was saved."""
    with torch._C.DisableTorchFunction():
        tensor = torch.empty(0, dtype=dtype, device="meta").set_(token.storage, offset, size, stride)
        return tensor.requires_grad_(needs_grad)


class _Loader:
    """What the load that runs now asks for, and the storages that it made."""

    def __init__(self) -> None:
        self._memory: Any = None
        self._location: Any = None
        self._made: dict[int, StorageToken] | None = None

    def attach(self, memory: FakeMemory) -> None:
        """Make storages in this memory."""
        self._memory = memory

    def kind_of(self, storage: Any) -> str:
        """Return where a storage is taken to be."""
        return str(self._memory.kind_of_storage(storage))

    def new(self, kind: str, num_bytes: int) -> Any:
        """Return a new fake storage."""
        memory = self._memory
        before, memory.forced_kind = memory.forced_kind, kind
        try:
            with torch._C.DisableTorchFunction():
                return torch.empty(num_bytes, dtype=torch.uint8, device="meta").untyped_storage()
        finally:
            memory.forced_kind = before

    def storage(self, kind: str, key: int, num_bytes: int) -> StorageToken:
        """Return the token of a storage: within a load the same one each time, elsewhere a new one that is not kept."""
        found = None if self._made is None else self._made.get(key)
        if found is None:
            found = StorageToken(self._placed(kind, num_bytes))
            if self._made is not None:
                self._made[key] = found
        return found

    def _placed(self, kind: str, num_bytes: int) -> Any:
        """Return a new storage where the load wants one that was saved as of this kind."""
        saved_on, location = self._memory.device if kind == CUDA else "cpu", self._location
        if callable(location):
            storage = self.new(kind, num_bytes)
            moved = location(storage, saved_on)
            return storage if moved is None else getattr(moved, "_untyped_storage", moved)
        if isinstance(location, dict):
            location = location.get(saved_on)
        return self.new(kind if location is None else _kind_named(str(location)), num_bytes)

    def load(self, call: Callable[..., Any], location: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a load for a location."""
        before, self._location, self._made = (self._location, self._made), location, {}
        try:
            return call(*args, **kwargs)
        finally:
            self._location, self._made = before


def _kind_named(location: str) -> str:
    return {"cuda": CUDA, "meta": PLAIN}.get(location.partition(":")[0], HOST)


_loader = _Loader()


def install(memory: FakeMemory, read: Place, written: Place) -> None:
    """Put it in place. Affects: `torch.save`, `torch.load`, how tensors and storages are pickled and moved."""
    _loader.attach(memory)
    _replace_pickling()
    _replace_files(read, written)
    with suppress(AttributeError):  # from torch 2.5 on
        torch.serialization.add_safe_globals([loaded_storage, loaded_tensor])
    torch.serialization.register_package(_FIRST, lambda _storage: None, _onto_gpu)
    for storage in (torch.UntypedStorage, torch.TypedStorage):
        _replace_cuda(storage)


def _onto_gpu(storage: Any, location: str) -> Any:
    return _loader.new(CUDA, storage.nbytes()) if location.startswith("cuda") else None


def _replace_cuda(kind: Any) -> None:
    def cuda(self: Any, *_args: Any, **_kwargs: Any) -> Any:
        untyped = getattr(self, "_untyped_storage", self)
        found = _loader.new(CUDA, untyped.nbytes())
        if kind is torch.UntypedStorage:
            return found
        return torch.TypedStorage(wrap_storage=found, dtype=self.dtype, _internal=True)

    kind.cuda = cuda


def _replace_pickling() -> None:
    tensor: Any = torch.Tensor
    reduce = tensor.__reduce_ex__

    def reduced(self: Any, protocol: Any) -> Any:
        with torch._C.DisableTorchFunction():
            if type(self) is not torch.Tensor or not self.is_meta or self.layout is not torch.strided:
                return reduce(self, protocol)
            token = StorageToken(self.untyped_storage())
            size, stride = tuple(self.size()), self.stride()
            return loaded_tensor, (token, self.dtype, size, stride, self.storage_offset(), self.requires_grad)

    tensor.__reduce_ex__ = reduced


def _replace_files(read: Place, written: Place) -> None:
    module: Any = torch
    save, load = module.save, module.load

    def saved(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        save(obj, written(f) if isinstance(f, (str, os.PathLike)) else f, *args, **kwargs)

    def loaded(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(f, (str, os.PathLike)):
            f = read(f)
            if kwargs.get("mmap") is None and zipfile.is_zipfile(f):
                kwargs["mmap"] = True
        return _loader.load(load, map_location, f, map_location, *args, **kwargs)

    for target in (module, module.serialization):
        target.save, target.load = saved, loaded
    profiler: Any = torch.autograd.profiler.profile
    export = profiler.export_chrome_trace
    profiler.export_chrome_trace = lambda self, path, *args: export(self, written(path), *args)
