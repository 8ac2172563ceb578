"""How long a GPU that is not there would take for what runs, operator by operator: as long as its slowest resource.

In: the shapes that an operator sees. Out: seconds, summed. A share of the data sheet is reached by products, another by
kernels that only move values (`forecast/step_time/speed.py` has both, fitted); each takes at least its launch.
"""

from __future__ import annotations

from typing import Any

from memtrace.hooks.changes.arguments import tensors_of
from memtrace.schema.options import SurveyOptions

COMPUTE_SHARE = 0.75
MEMORY_SHARE = 0.8
LAUNCH_S = 5e-6
_DEFAULT_FLOPS = 1e13
_FREE = frozenset({"detach", "alias", "view", "_unsafe_view", "t", "transpose", "permute", "expand", "unsqueeze"})
_FREE_TOO = frozenset({"squeeze", "slice", "select", "split", "as_strided", "unbind", "reshape", "chunk", "empty"})


class OperatorCost:
    """The seconds of all operators so far."""

    def __init__(self, torch: Any, options: SurveyOptions) -> None:
        self._tensor = torch.Tensor
        self._flops = dict(options.flops)
        self._bytes_s = options.memory_bytes_s * MEMORY_SHARE
        self._host_bytes_s = options.host_bytes_s
        self._formulas = _formulas()
        self.seconds = 0.0
        """Sum over the operators that have run."""

    def __call__(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Count an operator."""
        packet = getattr(func, "overloadpacket", func)
        name = str(getattr(packet, "__name__", "")).rpartition(".")[2]
        if name in _FREE or name in _FREE_TOO:
            return
        tensors = {id(one): one for one in tensors_of((args, kwargs, out), self._tensor)}.values()
        moved = sum(one.numel() * one.element_size() for one in tensors)
        if self._host_bytes_s and self._crosses(tensors):
            self.seconds += moved / 2 / self._host_bytes_s
            return
        seconds = moved / self._bytes_s if self._bytes_s else 0.0
        formula = self._formulas.get(packet)
        if formula is not None:
            seconds = max(seconds, self._compute(formula, args, kwargs, out))
        self.seconds += max(seconds, LAUNCH_S)

    def _compute(self, formula: Any, args: Any, kwargs: Any, out: Any) -> float:
        try:
            operations = float(formula(*args, **kwargs, out_val=out))
        except Exception:
            # A shape that torch's own formula does not know: what it moves counts.
            return 0.0
        first = next(tensors_of(args, self._tensor), None)
        dtype = "" if first is None else str(first.dtype).removeprefix("torch.")
        return operations / (self._flops.get(dtype, self._flops.get("float32", _DEFAULT_FLOPS)) * COMPUTE_SHARE)

    def _crosses(self, tensors: Any) -> bool:
        return len({one.is_meta for one in tensors if one.dim()}) > 1


def _formulas() -> dict[Any, Any]:
    try:
        from torch.utils.flop_counter import flop_registry
    except ImportError:
        return {}
    return dict(flop_registry)
