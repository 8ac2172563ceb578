"""Precision recipes: in how many bytes a parameter's weight, gradient, master copy and states are kept.

In: the name of a recipe. Out: a `Precision`. The optimizer decides how many states there are (optimizers.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.errors import MemtraceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """How numbers are stored. Everything is bytes an element."""

    name: str
    weight_bytes: int
    gradient_bytes: int
    """Of the gradient that backward makes."""
    master_bytes: int = 0
    """Of the copy of the weights that the optimizer updates; counted as optimizer state."""
    accumulation_bytes: int = 0
    """Of a second, wider copy of the gradients in which micro-batches are added up."""
    state_bytes: int
    """Of one state of the optimizer (Adam has two)."""
    second_state_bytes: int | None = None
    """Of Adam's second state where it differs."""
    compute_bytes: int
    """Of the values that matrix products take and give."""
    residual_bytes: int
    """Of the values that flow past the layers."""
    is_autocast: bool = False
    """Whether products cast weights and inputs, and autograd keeps the cast copies."""
    matmul_input_bytes: int | None = None
    """Of the inputs of linear layers as autograd keeps them, where they are quantized (FP8)."""
    is_8bit: bool = False
    """Whether the products of layers run in FP8."""
    weight_copy_bytes: int = 0
    """Of quantized copies of the weights that are kept between steps."""
    source: str

    @property
    def linear_input_bytes(self) -> int:
        """Bytes an element of an input of a linear layer that is kept for backward."""
        return self.compute_bytes if self.matmul_input_bytes is None else self.matmul_input_bytes

    @property
    def reduced_bytes(self) -> int:
        """Bytes an element of the gradients that data parallelism reduces: of the wider copy where there is one."""
        return max(self.accumulation_bytes, self.gradient_bytes)

    @property
    def adam_state_bytes(self) -> int:
        """Bytes a parameter of both states of Adam."""
        return self.state_bytes + (self.state_bytes if self.second_state_bytes is None else self.second_state_bytes)


FRAMEWORK_RECIPES = {
    ("nanotron", "bf16-mixed"): "bf16-mixed-fp32-grad",
    ("deepspeed", "bf16-mixed"): "deepspeed-zero",
    ("torchtitan", "fp8-mixed"): "fp8-dynamic",
}
"""What a framework means by a recipe of mixed precision, where it is another."""


def precision_in(name: str, framework: str) -> Precision:
    """Return a recipe as a framework has it: `bf16-mixed` and `fp8-mixed` are its own ways of mixed precision.

    >>> precision_in("bf16-mixed", "nanotron").name, precision_in("fp32", "nanotron").name
    ('bf16-mixed-fp32-grad', 'fp32')
    """
    return precision_named(FRAMEWORK_RECIPES.get((framework, name), name))


def precision_named(name: str) -> Precision:
    """Return a recipe.

    Raises:
        MemtraceError: there is none of that name.
    """
    if name not in PRECISIONS:
        raise MemtraceError(f"there is no precision {name[:60]!r}", hint=f"choose one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


_PLAYBOOK = "Ultra-Scale Playbook, 'Memory for weights, gradients and optimizer states'"

PRECISIONS = {
    one.name: one
    for one in (
        Precision(
            name="fp32",
            weight_bytes=4,
            gradient_bytes=4,
            state_bytes=4,
            compute_bytes=4,
            residual_bytes=4,
            source=_PLAYBOOK,
        ),
        Precision(
            name="autocast",
            weight_bytes=4,
            gradient_bytes=4,
            state_bytes=4,
            compute_bytes=2,
            residual_bytes=4,
            is_autocast=True,
            source="torch.autocast: weights, gradients and states stay float32, products run in 16 bits",
        ),
        Precision(
            name="bf16-mixed",
            weight_bytes=2,
            gradient_bytes=2,
            master_bytes=4,
            state_bytes=4,
            compute_bytes=2,
            residual_bytes=2,
            source=f"{_PLAYBOOK}; ZeRO paper, section 3.1",
        ),
        Precision(
            name="bf16-mixed-fp32-grad",
            weight_bytes=2,
            gradient_bytes=2,
            master_bytes=4,
            accumulation_bytes=4,
            state_bytes=4,
            compute_bytes=2,
            residual_bytes=2,
            source=f"{_PLAYBOOK}: its table of 20 bytes a parameter",
        ),
        Precision(
            name="bf16-main-grad",
            weight_bytes=2,
            gradient_bytes=4,
            master_bytes=4,
            state_bytes=4,
            compute_bytes=2,
            residual_bytes=2,
            source="Megatron-LM `main_grad`: 16-bit gradients are added to float32 ones as they are made: 18 bytes a "
            "parameter",
        ),
        Precision(
            name="deepspeed-zero",
            weight_bytes=2,
            gradient_bytes=2,
            accumulation_bytes=2,
            master_bytes=8,
            state_bytes=4,
            compute_bytes=2,
            residual_bytes=2,
            source="DeepSpeed stage_1_and_2.py: gradients once more in one flat buffer, float32 ones beside the master "
            "copy",
        ),
        Precision(
            name="bf16",
            weight_bytes=2,
            gradient_bytes=2,
            state_bytes=2,
            compute_bytes=2,
            residual_bytes=2,
            source="all in bfloat16: torch optimizers make states in the type of the parameter",
        ),
        Precision(
            name="fp8-mixed",
            weight_bytes=2,
            weight_copy_bytes=2,
            gradient_bytes=2,
            master_bytes=4,
            state_bytes=4,
            compute_bytes=2,
            residual_bytes=2,
            matmul_input_bytes=1,
            is_8bit=True,
            source="NVIDIA Transformer Engine: bfloat16 weights, cached FP8 copies of them and of their transposes",
        ),
        Precision(
            name="fp8-dynamic",
            weight_bytes=2,
            gradient_bytes=2,
            master_bytes=4,
            state_bytes=4,
            compute_bytes=2,
            residual_bytes=2,
            is_8bit=True,
            source="torchao float8 with dynamic scaling, as in torchtitan: cast for each product, bfloat16 kept",
        ),
        Precision(
            name="fp8-deepseek",
            weight_bytes=1,
            gradient_bytes=2,
            accumulation_bytes=4,
            master_bytes=4,
            state_bytes=2,
            compute_bytes=2,
            residual_bytes=2,
            matmul_input_bytes=1,
            is_8bit=True,
            source="DeepSeek-V3, arXiv 2412.19437, section 3.3: 15 bytes a parameter with the bfloat16 gradient",
        ),
        Precision(
            name="fp8-lm",
            weight_bytes=1,
            gradient_bytes=1,
            master_bytes=2,
            state_bytes=1,
            second_state_bytes=2,
            compute_bytes=2,
            residual_bytes=2,
            matmul_input_bytes=1,
            is_8bit=True,
            source="FP8-LM, arXiv 2310.18313: 6 bytes a parameter beside the FP8 weight",
        ),
    )
}
"""By the name that `--precision` takes."""
