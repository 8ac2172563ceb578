"""What a reduction takes where its input is divided among thread blocks: partial results, and a counter a block.

The rules are those of `aten/src/ATen/native/cuda/Reduce.cuh` (`setReduceConfig`) and of the order of dimensions in
`aten/src/ATen/TensorIterator.cpp`, torch 2.13; `tests/driverless` holds them against torch's own code. Such a
scratch is small where all is reduced, and up to 32 MiB where columns are added up, as for the gradient of a bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_THREADS = 512
"""Of a block of a reduction."""
WARP = 32
_MIN_VALUES, _MAX_VALUES = 16, 256
"""Values that a thread reduces: fewer are not worth another block, and with more the input is divided."""
_COUNTER_BYTES = 4
_MAX_OFFSET = 2**31 - 1
"""Bytes that a kernel can reach with 32 bits: larger tensors are reduced part after part."""


@dataclass(frozen=True, slots=True)
class Multiprocessors:
    """How many multiprocessors a GPU has, and how many threads each of them holds."""

    number: int
    threads: int


@dataclass(frozen=True, slots=True)
class Values:
    """What a kernel reduces: bytes of an element, of a partial result, and elements that a thread loads at once."""

    element_bytes: int
    partial_bytes: int
    loads: int = 4
    unrolls: int = 4
    """Values that a thread takes in a turn; with fewer than it loads, rows are not loaded several at once."""


@dataclass(frozen=True, slots=True)
class _Dimension:
    size: int
    stride: int
    """Of the input, in elements."""
    out_stride: int
    """Of the result, in elements; 0 where the dimension is reduced."""


def scratch_bytes(
    shape: Sequence[int], strides: Sequence[int], dims: Iterable[int], values: Values, gpu: Multiprocessors
) -> tuple[int, int]:
    """Return the bytes of partial results and of counters that reducing a tensor takes; zeros where it takes none.

    `shape` and `strides` are the input's, in elements; `dims` are reduced.

    The gradient of a bias of 4096 over 1024 rows in float32, on an A100: each thread of a block of 32 x 4 adds up
    256 rows of four columns, so the rows go to ceil(256 / 16) = 16 blocks, and 32 threads of each have four results
    for each column.

    >>> a100, float32 = Multiprocessors(108, 2048), Values(4, 4)
    >>> scratch_bytes((1024, 4096), (4096, 1), [0], float32, a100) == (4096 * 16 * 4 * 32 * 4, 4 * 32)
    True
    >>> scratch_bytes((256, 8192), (8192, 1), [0], float32, a100), scratch_bytes((), (), [], float32, a100)
    ((0, 0), (0, 0))
    """
    if math.prod(shape) <= 1:
        return 0, 0
    return _of(_ordered(shape, strides, set(dims)), values, gpu)


def _of(dimensions: list[_Dimension], values: Values, gpu: Multiprocessors) -> tuple[int, int]:
    if (reach := _farthest(dimensions, values)) is None:
        return _scratch(dimensions, values, gpu)
    one = dimensions[reach]
    half = one.size // 2
    parts = (
        [*dimensions[:reach], _Dimension(size, one.stride, one.out_stride), *dimensions[reach + 1 :]]
        for size in (half, one.size - half)
    )
    return max(_of(part, values, gpu) for part in parts)


def _farthest(dimensions: Sequence[_Dimension], values: Values) -> int | None:
    """Return the dimension along which a tensor reaches farthest; `None` if 32 bits do for all of it."""
    extents = [values.element_bytes * (one.size - 1) * one.stride for one in dimensions]
    return extents.index(max(extents)) if 1 + sum(extents) > _MAX_OFFSET else None


def _ordered(shape: Sequence[int], strides: Sequence[int], reduced: set[int]) -> list[_Dimension]:
    """Return the dimensions that a kernel goes through, the quickest first: reduced ones, then by stride; joined."""
    found: list[_Dimension] = []
    out_stride = 1
    # The result is contiguous.
    for at in reversed(range(len(shape))):
        found.append(_Dimension(shape[at], strides[at], 0 if at in reduced else out_stride))
        out_stride *= 1 if at in reduced else max(shape[at], 1)
    for at in range(1, len(found)):
        place = at
        for before in reversed(range(at)):
            if (order := _comes_after(found[before], found[place])) < 0:
                break
            if order > 0:
                found[before], found[place] = found[place], found[before]
                place = before
    return _joined(found)


def _comes_after(one: _Dimension, other: _Dimension) -> int:
    """Return 1 if a dimension comes after the other, -1 if before it, 0 if nothing tells."""
    if (one.out_stride == 0) != (other.out_stride == 0):
        return 1 if other.out_stride == 0 else -1
    for a, b in ((one.out_stride, other.out_stride), (one.stride, other.stride)):
        if a == 0 or b == 0:
            continue
        if a != b:
            return 1 if a > b else -1
        if one.size > other.size:
            return 1
    return 0


def _joined(dimensions: Sequence[_Dimension]) -> list[_Dimension]:
    """Return dimensions of which those that are one in memory are one."""
    found = list(dimensions[:1])
    for one in dimensions[1:]:
        last = found[-1]
        is_one = last.size * last.stride == one.stride and last.size * last.out_stride == one.out_stride
        if last.size == 1:
            found[-1] = one
        elif one.size == 1:
            continue
        elif is_one:
            found[-1] = _Dimension(last.size * one.size, last.stride, last.out_stride)
        else:
            found.append(one)
    return found


def _scratch(dimensions: Sequence[_Dimension], values: Values, gpu: Multiprocessors) -> tuple[int, int]:
    num_reduced = sum(one.out_stride == 0 for one in dimensions)
    inputs = math.prod(one.size for one in dimensions if one.out_stride == 0)
    outputs = math.prod(one.size for one in dimensions if one.out_stride != 0)
    by_rows = num_reduced == len(dimensions) or dimensions[0].stride < dimensions[num_reduced].stride
    across, along = (inputs, outputs) if by_rows else (outputs, inputs)
    vector = 1
    if (dimensions[0] if by_rows else dimensions[num_reduced]).stride == 1:
        if not by_rows:
            vector = _outputs_at_once(dimensions, num_reduced)
            across //= vector
        elif across > 128 and len(dimensions) == 1 and values.unrolls >= values.loads:
            across //= values.loads
    width, height = _block(across, along, MAX_THREADS // vector)
    # Along rows the threads of a warp share the inputs of a result; across them each has results of its own.
    step_in, step_out = (width, 1) if by_rows else (1, width)
    each = _ceil(inputs, step_in)
    is_divided = each >= height * _MIN_VALUES or each >= _MAX_VALUES
    if is_divided:
        step_in *= height
    else:
        step_out *= height
    each = _ceil(inputs, step_in)
    blocks = _ceil(outputs // vector, step_out)
    room = gpu.number * (gpu.threads // (width * height))
    if not is_divided or each < _MAX_VALUES or blocks > room:
        return 0, 0
    shares = max(min(_ceil(room, blocks), _ceil(each, _MIN_VALUES)), _ceil(each, _MAX_VALUES))
    if shares <= 1:
        return 0, 0
    partial = values.partial_bytes * outputs * shares * (1 if by_rows else width * vector)
    return partial, _COUNTER_BYTES * blocks


def _outputs_at_once(dimensions: Sequence[_Dimension], num_reduced: int) -> int:
    """Return of how many results beside each other a thread loads the values at once: 4, 2 or 1."""
    vector = 4
    others = (one.stride for at, one in enumerate(dimensions) if at != num_reduced)
    for number in (dimensions[num_reduced].size, *others):
        while number % vector:
            vector //= 2
    return vector


def _block(across: int, along: int, threads: int) -> tuple[int, int]:
    """Return width and height of a block of threads, both powers of two."""
    width, height = (_power_below(size) if size < threads else threads for size in (across, along))
    height = min(height, threads // min(width, WARP))
    return min(width, threads // height), height


def _power_below(number: int) -> int:
    return 1 << (max(number, 1).bit_length() - 1)


def _ceil(number: int, parts: int) -> int:
    return -(-number // parts)
