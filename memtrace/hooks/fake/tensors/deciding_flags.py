"""What decides a result whatever else there is: `x | True`, `x & False`, `x * 0`, of which one side alone is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

_DECIDING = {"bitwise_or": 1, "logical_or": 1, "bitwise_and": 0, "logical_and": 0, "mul": 0}
"""By operator: what of one operand decides the result, whatever the other is."""


def decided(operator: Any, operands: Sequence[Any], dtype: torch.dtype) -> int | None:
    """Return the number that the known operands decide all of a result to be; `None` where they do not.

    A generation ends at its longest whether it has found its last token or not. A one decides among flags alone.
    """
    number = _DECIDING.get(operator.name().partition(".")[0].removeprefix("aten::"))
    if number is None or dtype.is_floating_point or dtype.is_complex or (number and dtype is not torch.bool):
        return None
    known = (one for one in operands if one is not None and not one.dtype.is_floating_point)
    return number if any(bool((one == number).all()) for one in known) else None
