"""Bytes of optimizer states, parameter tensor by parameter tensor.

In: an optimizer's name, a `Precision`, the model's parameter tensors. Out: bytes, without the master copy of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memtrace.errors import MemtraceError
from memtrace.forecast.model.parameter_tensors import ParameterTensor, Place
from memtrace.forecast.model.precision import Precision

STEP_BYTES = 4
"""`torch.optim` counts steps in a float32 tensor a parameter."""
QUANTIZED_BLOCK = 256
"""Elements that share one float32 scale in 8-bit optimizers: bitsandbytes, `blocksize=256`."""
MIN_QUANTIZED = 4096
"""bitsandbytes keeps states of smaller tensors in float32 (`min_8bit_size`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """How much an optimizer remembers of one parameter tensor."""

    name: str
    tensor_bytes: Callable[[ParameterTensor, Precision], int]
    """Bytes of the states of one copy of a tensor."""
    counts_steps: bool
    """Whether it holds a step count a tensor."""
    temporary_tensors: int
    """Tensors as large as all parameters that a step makes with `foreach`, torch's default on a GPU."""
    source: str


def optimizer_named(name: str) -> Optimizer:
    """Return an optimizer.

    >>> optimizer_named("adamw-8bit").name
    'adam-8bit'

    Raises:
        MemtraceError: there is none of that name.
    """
    known = SAME_STATES.get(name, name)
    if known not in OPTIMIZERS:
        names = ", ".join((*OPTIMIZERS, *SAME_STATES))
        raise MemtraceError(f"there is no optimizer {name[:60]!r}", hint=f"choose one of {names}")
    return OPTIMIZERS[known]


def state_bytes(optimizer: Optimizer, precision: Precision, tensors: Sequence[ParameterTensor]) -> int:
    """Return the bytes of all states of a model, step counts included, the master copy of the weights not.

    >>> from memtrace.forecast.model.precision import PRECISIONS
    >>> from memtrace.forecast.model.parameter_tensors import Division
    >>> one = ParameterTensor(name="w", shape=(64, 64), division=Division.SPLIT, place=Place.DENSE_LAYER, copies=3)
    >>> fp32 = PRECISIONS["fp32"]
    >>> [state_bytes(OPTIMIZERS[name], fp32, [one]) for name in ("sgd", "adamw", "adam-8bit", "adafactor")]
    [0, 98316, 24960, 1548]
    """
    steps = STEP_BYTES if optimizer.counts_steps else 0
    return sum(one.copies * (optimizer.tensor_bytes(one, precision) + steps) for one in tensors)


def _none(tensor: ParameterTensor, precision: Precision) -> int:
    return 0


def _one_state(tensor: ParameterTensor, precision: Precision) -> int:
    return tensor.numel * precision.state_bytes


def _adam(tensor: ParameterTensor, precision: Precision) -> int:
    return tensor.numel * precision.adam_state_bytes


def _adam_8bit(tensor: ParameterTensor, precision: Precision) -> int:
    if tensor.numel < MIN_QUANTIZED:
        return 2 * 4 * tensor.numel
    return 2 * (tensor.numel + 4 * -(-tensor.numel // QUANTIZED_BLOCK))


def _adafactor(tensor: ParameterTensor, precision: Precision) -> int:
    """Return row and column sums of a matrix; of a vector, one state."""
    if len(tensor.shape) < 2:
        return 4 * tensor.numel
    *batch, rows, columns = tensor.shape
    number = batch[0] if batch else 1
    return 4 * number * (rows + columns)


def _muon(tensor: ParameterTensor, precision: Precision) -> int:
    """Return one momentum for matrices of the layers, both states of Adam for everything else."""
    is_hidden = tensor.place in (Place.DENSE_LAYER, Place.MOE_LAYER) and len(tensor.shape) >= 2
    return _one_state(tensor, precision) if is_hidden else _adam(tensor, precision)


OPTIMIZERS = {
    one.name: one
    for one in (
        Optimizer(
            name="adamw",
            tensor_bytes=_adam,
            counts_steps=True,
            temporary_tensors=1,
            source="torch.optim.AdamW: exp_avg, exp_avg_sq, step",
        ),
        Optimizer(
            name="adam-8bit",
            tensor_bytes=_adam_8bit,
            counts_steps=False,
            temporary_tensors=0,
            source="Dettmers et al., 8-bit Optimizers via Block-wise Quantization, arXiv 2110.02861; bitsandbytes",
        ),
        Optimizer(name="sgd", tensor_bytes=_none, counts_steps=False, temporary_tensors=0, source="torch.optim.SGD"),
        Optimizer(
            name="sgd-momentum",
            tensor_bytes=_one_state,
            counts_steps=False,
            temporary_tensors=0,
            source="torch.optim.SGD: momentum_buffer",
        ),
        Optimizer(
            name="adafactor",
            tensor_bytes=_adafactor,
            counts_steps=True,
            temporary_tensors=1,
            source="Shazeer and Stern, arXiv 1804.04235: row and column sums of the second moment, no first moment",
        ),
        Optimizer(
            name="lion",
            tensor_bytes=_one_state,
            counts_steps=False,
            temporary_tensors=1,
            source="Chen et al., Symbolic Discovery of Optimization Algorithms, arXiv 2302.06675: one moment",
        ),
        Optimizer(
            name="muon",
            tensor_bytes=_muon,
            counts_steps=False,
            temporary_tensors=1,
            source="Jordan et al. 2024: momentum for matrices of the layers, AdamW for the rest",
        ),
    )
}
"""By the name that `--optimizer` takes."""
SAME_STATES = {"adam": "adamw", "adamw-8bit": "adam-8bit"}
"""Other names that `--optimizer` takes: weight decay keeps nothing, so Adam and AdamW hold the same states."""
