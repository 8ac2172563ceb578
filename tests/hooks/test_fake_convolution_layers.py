"""Which convolutions of a program are one layer, and which are several."""

from __future__ import annotations

from typing import Any

import torch

from memtrace.hooks.fake.kernels.convolutions import Convolutions


class Asking(torch.nn.Module):
    """Asks for scratch where a convolution would."""

    def __init__(self, layers: Convolutions, num_bytes: int) -> None:
        super().__init__()
        self.layers, self.num_bytes = layers, num_bytes

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        self.layers.forward(weight, self.num_bytes)
        return weight


def layers() -> Convolutions:
    def address(tensor: Any) -> int:
        return int(tensor.data_ptr())

    return Convolutions(lambda: 0, address)


def scratch(found: Convolutions) -> list[int]:
    return [one["workspace_bytes"] for one in found.facts()["convolutions"]]


def test_a_module_that_lies_where_one_lay_that_is_gone_is_another_layer() -> None:
    found = layers()
    weight = torch.zeros(1)
    addresses = set()
    for number in range(50):
        module = Asking(found, number)
        addresses.add(id(module))
        module(weight)
        del module
    # Otherwise the test says nothing.
    assert len(addresses) < 50
    assert scratch(found) == list(range(50))


def test_a_module_that_runs_again_is_one_layer_by_its_largest_call() -> None:
    found = layers()
    module = Asking(found, 10)
    for num_bytes in (10, 30, 20):
        module.num_bytes = num_bytes
        module(torch.zeros(1))
    assert scratch(found) == [30]


def test_where_no_module_asks_a_line_is_a_layer() -> None:
    found = layers()
    for num_bytes in (10, 30):
        found.forward(torch.zeros(1), num_bytes)
    found.forward(torch.zeros(1), 20)
    assert scratch(found) == [30, 20]
