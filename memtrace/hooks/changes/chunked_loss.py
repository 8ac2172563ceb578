"""A cross entropy over many classes that keeps no log-probabilities: backward makes them again, some rows at a time.

    torch's own     keeps log-probabilities (rows x classes); backward makes their gradient, and that of the logits
    here            keeps the logits, which are there; backward makes the gradient of the logits alone

Of a row the same operators are asked for the same numbers, and the mean is taken by torch's own loss over the column of
log-probabilities that count: losses and gradients are torch's, to the last bit where its kernels do not depend on how
many rows there are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from memtrace.hooks.torch_side.patches import Patches, hide_from_warnings

PARTS = 16
"""Into so many parts rows are cut."""
LEAST_BYTES = 1 << 16
"""Smaller logits are not worth it."""


def loss_bytes(
    torch: Any, input: Any, target: Any, weight: Any = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: str = "mean", label_smoothing: float = 0.0,
) -> int:  # fmt: skip
    """Return the bytes of the logits of a loss whose rows can be taken some at a time; 0 where they cannot.

    Not where nothing is trained, classes are weighed or smoothed, tensors are of another class, targets are no classes
    by rows, or `torch.func` differentiates.
    """
    can_be = (
        torch.is_grad_enabled()
        and input.requires_grad
        and not (weight is not None or label_smoothing or size_average is not None or reduce is not None)
        and type(input) is torch.Tensor
        and type(target) is torch.Tensor
        and input.dim() >= 2
        and input.shape[0] >= 2
        and not target.is_floating_point()
        and target.dim() == input.dim() - 1
        and torch._C._functorch.maybe_current_level() is None
    )
    return int(input.numel() * input.element_size()) if can_be else 0


def chunk_losses(torch: Any, patches: Patches) -> None:
    """Put the loss in the place of `torch.nn.functional.cross_entropy`, where a large one is trained with."""
    original = torch.nn.functional.cross_entropy
    chunked = _function(torch)

    @functools.wraps(original)
    def cross_entropy(
        input: Any,
        target: Any,
        weight: Any = None,
        size_average: Any = None,
        ignore_index: int = -100,
        reduce: Any = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Any:
        asked = input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing
        if torch.compiler.is_compiling() or loss_bytes(torch, *asked) < LEAST_BYTES:
            return original(*asked)
        ignored = target == ignore_index
        precision = _precision(torch, original, input, target)
        picked = chunked.apply(input, target.masked_fill(ignored, 0).unsqueeze(1), precision)
        # One class is left, the target's: its loss is the mean, or the sum, that torch takes of a whole row.
        return torch.nn.functional.nll_loss(
            picked, torch.zeros_like(target).masked_fill(ignored, -100), ignore_index=-100, reduction=reduction
        )

    hide_from_warnings(cross_entropy)
    patches.replace(torch.nn.functional, "cross_entropy", cross_entropy)


def _precision(torch: Any, original: Callable[..., Any], logits: Any, target: Any) -> Any:
    """Return in which precision torch's own loss computes; under autocast a row of it tells."""
    if not torch.is_autocast_enabled(logits.device.type):
        return logits.dtype
    with torch.no_grad():
        return original(logits[:1], target[:1], reduction="sum").dtype


def _function(torch: Any) -> Any:
    log_softmax = torch.nn.functional.log_softmax

    def pick(ctx: Any, logits: Any, index: Any, precision: Any) -> Any:
        rows = -(-logits.shape[0] // PARTS)
        ctx.rows = rows
        parts = zip(logits.split(rows), index.split(rows), strict=True)
        picked = [log_softmax(part.to(precision), 1).gather(1, at) for part, at in parts]
        ctx.save_for_backward(logits, index)
        ctx.precision = precision
        return torch.cat(picked)

    def spread(ctx: Any, gradient: Any) -> Any:
        logits, index = ctx.saved_tensors
        out = torch.empty_like(logits)
        parts = zip(*(one.split(ctx.rows) for one in (logits, index, gradient, out)), strict=True)
        for part, at, above, into in parts:
            logs = log_softmax(part.to(ctx.precision), 1)
            below = torch.zeros_like(logs).scatter_(1, at, above)
            into.copy_(torch._log_softmax_backward_data(below, logs, 1, ctx.precision))
        return out, None, None

    methods: dict[str, Callable[..., Any]] = {
        "forward": staticmethod(pick),
        "backward": staticmethod(torch.autograd.function.once_differentiable(spread)),
    }
    return type("ChunkedCrossEntropy", (torch.autograd.Function,), methods)
