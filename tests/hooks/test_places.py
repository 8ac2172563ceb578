"""Where a program makes its optimizer, and by which variable it can name the model there."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tests.hooks.changed import surveyed  # noqa: E402


def train(*, is_wrapped: bool) -> None:
    """Train a model that is gone when the function returns."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    called = model[0] if is_wrapped else model
    runs = [called]
    del called
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        runs[0](torch.randn(2, 4)).sum().backward()
        optimizer.step()


@pytest.mark.parametrize(("is_wrapped", "name"), [(False, "model"), (True, 'model.get_submodule("0")')])
def test_a_model_of_a_function_is_named_though_it_is_gone_at_the_end(is_wrapped: bool, name: str) -> None:
    with surveyed(torch) as document:
        train(is_wrapped=is_wrapped)
    ((path, _, kind, root),) = document["facts"]["places"]["optimizers"]
    assert (path, kind) == (__file__, "SGD")
    assert root == name
