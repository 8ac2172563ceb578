"""What is known of the data on a device that is not there: copies from the host that no kernel may have overwritten."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch

from memtrace.hooks.driverless.followed import Followed

_Read = Callable[[int, int, int], int]
_NAME = "dl_known"


class KnownData:
    """Reads the bytes that the stand-ins keep."""

    def __init__(self) -> None:
        self._read = _reader()
        self.followed = Followed()
        """Small whole numbers that are known whatever kernel has read them."""

    @property
    def is_there(self) -> bool:
        """Whether this process runs on stand-ins."""
        return self._read is not None

    def on_host(self, one: Any) -> Any | None:
        """Return the values of a tensor of a device as a tensor of the host; `None` where nobody knows them."""
        if self._read is None or one.layout is not torch.strided or not one.numel():
            return None
        if (values := self.followed.of(one)) is not None:
            return values
        storage = one.untyped_storage()
        first = one.storage_offset() * one.element_size()
        last = first + sum((size - 1) * step for size, step in zip(one.shape, one.stride(), strict=True)) * (
            one.element_size()
        )
        found = torch.UntypedStorage(last + one.element_size() - first)
        if not self._read(found.data_ptr(), storage.data_ptr() + first, found.nbytes()):
            return None
        return torch.empty(0, dtype=one.dtype).set_(found, 0, one.shape, one.stride())


def largest_unfolded_bytes() -> int:
    """Return the largest input of a convolution that cuDNN was asked for, unfolded to a matrix; 0 without any."""
    try:
        found = ctypes.CDLL(None).dl_largest_unfolded
    except (OSError, AttributeError):
        return 0
    found.restype = ctypes.c_uint64
    return int(found())


class Known:
    """The same as the rules of the meta engine ask for it: nothing here is assumed."""

    def __init__(self, data: KnownData) -> None:
        self._data = data

    def of(self, one: Any) -> Any | None:
        """Return a tensor's values as a tensor of the host; `None` where nobody knows them."""
        return self._data.on_host(one)

    def is_assumed(self, _one: Any) -> bool:
        """Return whether values hang on what was assumed."""
        return False


def _reader() -> _Read | None:
    try:
        found = getattr(ctypes.CDLL(None), _NAME)
    except (OSError, AttributeError):
        return None
    found.argtypes = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
    return found  # type: ignore[no-any-return]
