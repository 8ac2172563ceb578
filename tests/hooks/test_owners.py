"""Rows of owners: one a tensor, views of one storage apart, tied tensors once, what is held for communication whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.ownership.inputs import Inputs  # noqa: E402
from memtrace.hooks.ownership.owners import Owned, OwnerRows  # noqa: E402
from memtrace.hooks.ownership.sweep import OwnerSweep  # noqa: E402
from memtrace.schema import tables  # noqa: E402
from memtrace.schema.names import Category  # noqa: E402


def table(rows: Iterable[tuple[object, ...]]) -> list[dict[str, object]]:
    """Return rows as dictionaries."""
    return [dict(zip(tables.OWNERS.column_names(), row, strict=True)) for row in rows]


def sweeper() -> OwnerSweep:
    """Return what sweeps, and has not yet."""
    return OwnerSweep(torch, OwnerRows(torch))


def sweep(*roots: object, held: Sequence[Owned] = (), optimizers: Sequence[object] = ()) -> list[dict[str, object]]:
    """Return the rows of one sweep."""
    return table(sweeper().sweep(roots, optimizers, held=held, names=[], now_ns=1, step=1))


def test_gradients_that_share_a_storage_have_a_row_each() -> None:
    model = torch.nn.Linear(3, 2)
    bucket = torch.zeros(10)
    model.weight.grad, model.bias.grad = bucket[:6].view(2, 3), bucket[6:8]
    rows = [row for row in sweep(model) if row["category"] == "gradient"]
    assert [row["name"] for row in rows] == ["weight", "bias"]
    assert [row["tensor_bytes"] for row in rows] == [24, 8]
    assert {(row["address"], row["size_bytes"]) for row in rows} == {(bucket.untyped_storage().data_ptr(), 40)}


def test_tied_parameters_have_one_row() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    assert [row["name"] for row in sweep(model)] == ["0.weight"]


def test_a_parameter_of_a_module_and_its_optimizer_has_one_row() -> None:
    model = torch.nn.Linear(3, 2)
    rows = sweep(model, optimizers=(torch.optim.SGD(model.parameters(), lr=0.1),))
    assert [row["name"] for row in rows] == ["weight", "bias"]


def test_a_bucket_is_held_whole_beside_the_gradients_in_it() -> None:
    model = torch.nn.Linear(3, 2, bias=False)
    bucket = torch.zeros(8)
    model.weight.grad = bucket[:6].view(2, 3)
    rows = sweep(model, held=[(Category.COMMUNICATION, "bucket", model.weight.grad)])
    found = {row["category"]: (row["size_bytes"], row["tensor_bytes"], row["shape"]) for row in rows}
    assert found["communication"] == (32, 32, None)
    assert found["gradient"] == (32, 24, "2x3")


def test_a_gathered_parameter_is_no_parameter() -> None:
    model = torch.nn.Linear(3, 2, bias=False)
    rows = sweep(model, held=[(Category.COMMUNICATION, "gathered weight", model.weight.detach().view(-1))])
    assert [row["category"] for row in rows] == ["communication"]


def test_names_are_known_of_parameters_that_no_module_holds() -> None:
    shard = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([shard], lr=0.1)
    found = sweeper().sweep([], [optimizer], held=[], names=[(id(shard), "blocks.0.weight")], now_ns=1, step=1)
    assert [row["name"] for row in table(found)] == ["blocks.0.weight"]


def test_what_hangs_on_a_parameter_is_owned_by_name() -> None:
    model = torch.nn.Linear(3, 2)
    model.weight.grad_sample = torch.zeros(8, 2, 3)
    model.weight.summed_grad = [torch.zeros(2, 3), torch.zeros(1)]
    model.bias._ema = torch.zeros(2)
    model.bias.tags = {"frozen": True, "names": ["x"] * 1000}
    rows = {(row["category"], row["name"], row["size_bytes"]) for row in sweep(model) if row["category"] != "parameter"}
    assert rows == {
        ("gradient", "grad_sample of weight", 192),
        ("gradient", "summed_grad of weight", 24),
        ("gradient", "summed_grad of weight", 4),
        ("optimizer_state", "_ema of bias", 8),
    }


def test_emptied_storages_have_no_row() -> None:
    model = torch.nn.Linear(3, 2, bias=False)
    model.weight.untyped_storage().resize_(0)
    assert sweep(model) == []


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: (inner,), lambda inner: {"input": inner}])
@pytest.mark.parametrize(("depth", "is_found"), [(1, True), (2, True), (3, True), (4, False)])
def test_inputs_are_looked_for_in_containers_three_deep(wrap: object, depth: int, is_found: bool) -> None:
    tensor = torch.zeros(2)
    value: object = tensor
    for _ in range(depth):
        value = wrap(value)  # type: ignore[operator]
    found = Inputs(torch).given(torch.nn.Linear(2, 1), value)
    rows = table(OwnerRows(torch).rows_of(found, now_ns=1, step=1))
    assert [row["address"] for row in rows] == [tensor.untyped_storage().data_ptr()] * is_found
