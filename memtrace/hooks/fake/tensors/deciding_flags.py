"""Flags that decide a result whatever the others are: `x | True` and `x & False`, of which one side is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

_DECIDING = {"bitwise_or": True, "logical_or": True, "bitwise_and": False, "logical_and": False}
"""By operator on flags: what of one operand decides the result, whatever the other is."""


def decided(operator: Any, operands: Sequence[Any]) -> bool | None:
    """Return the flag that the known operands decide all of a result to be; `None` where they do not.

    A generation ends at its longest whether it has found its last token or not.
    """
    deciding = _DECIDING.get(operator.name().partition(".")[0].removeprefix("aten::"))
    known = (one for one in operands if one is not None and one.dtype is torch.bool)
    return deciding if deciding is not None and any(bool((one == deciding).all()) for one in known) else None
