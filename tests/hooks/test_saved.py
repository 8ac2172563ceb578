"""The walk for saved tensors finds what autograd keeps, and what checkpointing keeps outside of the graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from torch.utils.checkpoint import checkpoint  # noqa: E402

from memtrace.hooks.ownership.saved import CHECKPOINT, SavedWalk  # noqa: E402
from memtrace.schema import tables  # noqa: E402

# tests/torches/ says which torches have to show it.
pytestmark = pytest.mark.skipif(
    not hasattr(torch._C._autograd.SavedTensor, "data"), reason="this torch shows no saved tensors: no walk"
)


def walk(*roots: object) -> dict[int, tuple[int, str]]:
    """Return size and keeper of each saved storage by its address."""
    columns = tables.SAVED.column_names()
    rows = SavedWalk(torch).rows(roots, now_ns=1, step=1, microbatch=0)
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    assert len({row["address"] for row in found}) == len(found)
    return {row["address"]: (row["size_bytes"], row["op"]) for row in found}


def address(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())


@pytest.fixture
def block() -> torch.nn.Module:
    """A block whose inside is many times larger than its input."""
    return torch.nn.Sequential(torch.nn.Linear(8, 80), torch.nn.GELU(), torch.nn.Linear(80, 8))


def test_each_saved_storage_has_one_row() -> None:
    x = torch.randn(5, requires_grad=True)
    y = x.exp()
    loss = (y * y.view(5)).sum()
    found = walk(loss)
    assert found[address(y)] == (20, "MulBackward0")


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_the_input_of_a_checkpoint_is_saved_and_its_inside_is_not(block: torch.nn.Module, use_reentrant: bool) -> None:
    x = torch.randn(4, 8, requires_grad=True)
    hidden = x.mul(2)
    loss = checkpoint(block, hidden, use_reentrant=use_reentrant).sum()
    found = walk(loss)
    keeper = "CheckpointFunctionBackward" if use_reentrant else CHECKPOINT
    assert found[address(hidden)] == (4 * 8 * 4, keeper)
    assert max(size for size, _ in found.values()) < 4 * 80 * 4


def test_a_checkpoint_with_its_own_error_message_is_seen_through(block: torch.nn.Module) -> None:
    hidden = torch.randn(4, 8, requires_grad=True).mul(2)
    loss = checkpoint(block, hidden, use_reentrant=False, debug=True).sum()
    assert walk(loss)[address(hidden)] == (128, CHECKPOINT)


def test_arguments_of_a_checkpoint_that_are_no_tensors_are_passed_over(block: torch.nn.Module) -> None:
    hidden = torch.randn(4, 8, requires_grad=True).mul(2)
    loss = checkpoint(lambda x, scale, name: block(x) * scale, hidden, 2, "name", use_reentrant=False).sum()
    assert walk(loss)[address(hidden)] == (128, CHECKPOINT)


def test_older_versions_keep_the_inputs_of_a_checkpoint_with_a_node_outside_the_graph() -> None:
    class SaveInputs(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, *tensors: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(*tensors)  # type: ignore[attr-defined]
            return torch.empty(0)

        @staticmethod
        def backward(ctx: object, *gradients: torch.Tensor) -> None:
            raise AssertionError("nothing runs backward through it")

    class _CheckpointFrame:
        def __init__(self, saver: torch.Tensor) -> None:
            self.input_saver = saver

    def hooks_of(frame: object) -> tuple[Callable[[torch.Tensor], object], Callable[[object], torch.Tensor]]:
        def unpack(packed: object) -> torch.Tensor:
            raise AssertionError(f"nothing is unpacked: {packed}, {frame}")

        return lambda tensor: object(), unpack

    hidden = torch.randn(4, 8, requires_grad=True).mul(2)
    frame = _CheckpointFrame(SaveInputs.apply(torch.empty(0, requires_grad=True), hidden))
    with torch.autograd.graph.saved_tensors_hooks(*hooks_of(frame)):
        loss = hidden.exp().sum()
    assert walk(loss)[address(hidden)] == (128, CHECKPOINT)


def test_what_the_users_hooks_packed_is_found(block: torch.nn.Module) -> None:
    hidden = torch.randn(4, 8, requires_grad=True).mul(2)
    packed = []

    def pack(tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
        packed.append(tensor.detach().clone())
        return "copied", packed[-1]

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda pair: pair[1]):
        loss = hidden.exp().sum()
    assert walk(loss)[address(packed[-1])][0] == 128


def test_a_walk_keeps_no_tensor_and_changes_no_gradient(block: torch.nn.Module) -> None:
    x = torch.randn(4, 8, requires_grad=True)

    def gradient(*, walks: bool) -> torch.Tensor:
        x.grad = None
        hidden = x.mul(2)
        loss = checkpoint(block, hidden, use_reentrant=False).sum()
        if walks:
            assert address(hidden) in walk(loss)
        loss.backward()
        return x.grad.clone()

    assert torch.equal(gradient(walks=True), gradient(walks=False))
