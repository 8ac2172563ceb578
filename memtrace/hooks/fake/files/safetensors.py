"""Files of the library safetensors, which opens them in Rust: its paths go through the scratch folder.

A fake tensor is written as a hole: the file has its full size and takes no room, and is read back as zeros.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

Place = Callable[[Any], Any]

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}
"""Names of types in the format."""
_HEADER_ALIGNMENT = 8


def install(read: Place, written: Place) -> None:
    """Put it in place, if the library is there. Affects: `safetensors`, `safetensors.torch`."""
    try:
        package: Any = import_module("safetensors")
        module: Any = import_module("safetensors.torch")
    except ImportError:
        return
    opened, save, write, bytes_of = package.safe_open, module.save_file, package.serialize_file, module.save

    def safe_open(filename: Any, *args: Any, **kwargs: Any) -> Any:
        return opened(read(filename), *args, **kwargs)

    def save_file(tensors: Any, filename: Any, metadata: Any = None) -> None:
        if not any(_is_fake(one) for one in tensors.values()):
            save(tensors, filename, metadata)
            return
        with open(filename, "wb") as file:
            write_holes(file, tensors, metadata)

    def save_bytes(tensors: Any, metadata: Any = None) -> bytes:
        if not any(_is_fake(one) for one in tensors.values()):
            return bytes(bytes_of(tensors, metadata))
        stream = io.BytesIO()
        write_holes(stream, tensors, metadata)
        return stream.getvalue()

    def serialize_file(tensors: Any, filename: Any, *args: Any, **kwargs: Any) -> None:
        write(tensors, written(filename), *args, **kwargs)

    for target in (package, module):
        target.safe_open, target.serialize_file = safe_open, serialize_file
    module.save_file, module.save, module.storage_ptr = save_file, save_bytes, identity


def identity(tensor: Any) -> int:
    """Return an address that two tensors share if they share a storage, also where it has no data."""
    with torch._C.DisableTorchFunction():
        storage = tensor.untyped_storage()
        return int(storage.data_ptr() or (storage._cdata if tensor.is_meta else 0))


def write_holes(file: Any, tensors: dict[str, Any], metadata: dict[str, str] | None) -> None:
    """Write a file of the format (a length, a header in JSON, the data) with holes where there is no data."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, tensor in sorted(tensors.items()):
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    begin = file.tell()
    for name, tensor in tensors.items():
        if not _is_fake(tensor):
            file.seek(begin + header[name]["data_offsets"][0])
            file.write(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    if file.seek(0, io.SEEK_END) < begin + end:
        file.seek(begin + end - 1)
        file.write(b"\0")


def _is_fake(tensor: Any) -> bool:
    with torch._C.DisableTorchFunction():
        return isinstance(tensor, torch.Tensor) and bool(tensor.is_meta)
