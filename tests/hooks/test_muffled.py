"""A warning of torch's C++ side is not seen, wherever in the program the call that warns is made."""

from __future__ import annotations

import warnings

import pytest
import torch

from memtrace.hooks.sources.muffled import Muffled


def _warn() -> str:
    torch._C._warn()  # type: ignore[attr-defined]
    return "done"


class _Calls(torch.Tensor):
    """A tensor inside whose operators a call is made, as the collector makes one."""

    muffled: Muffled

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return cls.muffled.call(_warn)


def test_nothing_is_shown() -> None:
    muffled = _Calls.muffled = Muffled(torch)
    shown = warnings._showwarnmsg  # type: ignore[attr-defined]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _warn()
        assert len(caught) == 1
        assert muffled.call(_warn) == "done"
        assert torch.ones(1).as_subclass(_Calls) + 1 == "done"
        assert len(caught) == 1
        _warn()
        assert len(caught) == 2
    assert warnings._showwarnmsg is shown  # type: ignore[attr-defined]


def test_an_error_passes() -> None:
    with pytest.raises(ZeroDivisionError):
        Muffled(torch).call(lambda: 1 / 0)
