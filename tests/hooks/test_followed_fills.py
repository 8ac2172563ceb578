"""Which filled tensors the driverless engine keeps the number of."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.driverless.followed import is_known_filled  # noqa: E402


def test_small_masks_are_known_and_what_is_larger_is_not() -> None:
    assert is_known_filled(torch.ones(4, 256))
    assert is_known_filled(torch.ones(4, 256, dtype=torch.int64))
    assert not is_known_filled(torch.ones(1 << 18))
    assert not is_known_filled(torch.ones(4, dtype=torch.complex64))


def test_what_a_backward_pass_fills_is_left_alone() -> None:
    seen: list[bool] = []
    one = torch.ones(4, requires_grad=True)
    one.register_hook(lambda gradient: seen.append(is_known_filled(gradient)))
    one.sum().backward()
    assert seen == [False]
