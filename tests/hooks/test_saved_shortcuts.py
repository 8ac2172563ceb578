"""The walk for saved tensors passes over much at once, and finds what one finds that passes over nothing."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.utils.checkpoint import checkpoint  # noqa: E402

from memtrace.hooks.ownership.owners import device_name, dtype_name, plain_tensors  # noqa: E402
from memtrace.hooks.ownership.saved import CHECKPOINT, SavedWalk  # noqa: E402
from memtrace.schema.shapes import shape_text  # noqa: E402

pytestmark = pytest.mark.skipif(
    not hasattr(torch._C._autograd.SavedTensor, "data"), reason="this torch shows no saved tensors: no walk"
)

RAW = "_raw_saved_"


def nodes_below(root: Any) -> Iterator[Any]:
    """Yield every node of a graph once, the last input of each first, parameters too."""
    pending, seen = [root.grad_fn], {root.grad_fn}
    while pending:
        node = pending.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                pending.append(following)


def saved_by(node: Any) -> Iterator[Any]:
    """Yield each value that a node keeps and has not freed, by each of its attributes."""
    for name in dir(node):
        if name.startswith(RAW):
            try:
                value = getattr(node, name)
            except RuntimeError:
                continue
            yield from value if isinstance(value, (list, tuple)) else (value,)


def one_by_one(root: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a graph, each node and value of which is looked at in full."""
    rows: dict[int, tuple[Any, ...]] = {}
    for node in nodes_below(root):
        for saved in saved_by(node):
            packed = saved.data
            for value in packed if isinstance(packed, (list, tuple)) else (packed,):
                for part in plain_tensors(value) if isinstance(value, torch.Tensor) else ():
                    storage = part.untyped_storage()
                    if storage.data_ptr() and storage.nbytes():
                        what = (device_name(part.device), storage.data_ptr(), storage.nbytes(), type(node).__name__)
                        named = (1, 2, 3, *what, dtype_name(part.dtype), shape_text(part.shape))
                        rows.setdefault(storage.data_ptr(), named)
    return list(rows.values())


def rows_of(*roots: Any, max_nodes: int | None = None) -> list[tuple[Any, ...]]:
    return list(SavedWalk(torch).rows(roots, now_ns=1, step=2, microbatch=3, max_nodes=max_nodes))


def parameter(*shape: int) -> Any:
    return torch.nn.Parameter(torch.randn(*shape))


def layers() -> Any:
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.LayerNorm(6), torch.nn.GELU(), torch.nn.Linear(6, 2))
    return model(torch.randn(3, 4)).square().sum()


def stacked_parameters() -> Any:
    return torch.stack([parameter(4) for _ in range(50)]).square().sum()


def a_parameter_beside_a_result() -> Any:
    # What is passed over beside what is not, in the inputs of one node.
    first, second = parameter(4), parameter(4)
    return torch.stack([first, second.exp(), first, first.exp()]).square().sum()


def hooks_where_gradients_accumulate() -> Any:
    weight = parameter(4)
    kept = torch.randn(16)
    ends = weight.view(4).grad_fn.next_functions[0][0]
    ends.register_hook(lambda *_: kept.sum())
    weight.register_post_accumulate_grad_hook(lambda _: None)
    return (weight.exp() * weight).sum()


class AccumulateGrad(torch.autograd.Function):
    """A node of the program's own that has the name of those that end a graph, and keeps something."""

    @staticmethod
    def forward(ctx: Any, value: Any) -> Any:
        """Keep the value."""
        ctx.save_for_backward(value.clone())
        return value * 2

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """Return twice the gradient."""
        return gradient * 2


def a_node_of_that_name() -> Any:
    total = AccumulateGrad.apply(parameter(4)).sum()
    kind = type(total.grad_fn.next_functions[0][0])
    kind.__name__ = torch._C._functions.AccumulateGrad.__name__
    return total


def kept_by_the_program_s_hooks() -> Any:
    with torch.autograd.graph.saved_tensors_hooks(lambda value: ("copied", value.clone()), lambda pair: pair[1]):
        return parameter(4).exp().sum()


def a_parametrized_module() -> Any:
    model = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 3))
    return model(torch.randn(2, 4)).sum()


def tied_weights_and_views() -> Any:
    weight = parameter(4, 4)
    return (weight.t() @ weight[:2].t() @ weight.view(2, 8)).square().sum()


def a_gradient_of_a_gradient() -> Any:
    value = parameter(4)
    (gradient,) = torch.autograd.grad(value.exp().sum(), value, create_graph=True)
    return gradient.square().sum()


def without_gradients_since() -> Any:
    weight, bias = parameter(4), parameter(4)
    total = (weight * bias).exp().sum()
    bias.requires_grad_(False)
    return (total * bias).sum()


def a_parameter_set_elsewhere() -> Any:
    weight = parameter(4)
    total = (weight * 2).square().sum()
    weight.data = torch.randn(4)
    return total + weight.square().sum()


def sparse_tensors() -> Any:
    weight = parameter(3, 3)
    sparse = torch.eye(3).to_sparse()
    return (
        torch.sparse.mm(sparse, weight).sum()
        + torch.nn.functional.embedding(torch.tensor([1, 2]), weight, sparse=True).exp().sum()
    )


def nested_tensors() -> Any:
    values = [parameter(2, 3), parameter(4, 3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nested = torch.nested.as_nested_tensor(values)
    return torch.nested.to_padded_tensor(torch.nn.functional.gelu(nested), 0.0).sum()


def tensors_of_no_memory() -> Any:
    return torch.nn.Linear(3, 2, device="meta")(torch.randn(4, 3, device="meta")).square().sum()


def what_a_transform_was_given() -> Any:
    weight = parameter(3)
    return torch.func.vmap(lambda row: (row * weight).exp().sum())(torch.randn(5, 3)).sum()


def what_a_transform_left() -> Any:
    weight = parameter(3)
    return torch.func.grad(lambda value: (value * weight).exp().sum())(torch.randn(3)).sum()


class Wrapper(torch.Tensor):
    """A tensor of a class of the program's."""


def a_class_of_the_program_s() -> Any:
    return torch.nn.Parameter(torch.randn(4).as_subclass(Wrapper)).exp().sum()


def freed_before() -> Any:
    total = parameter(4).exp().sum()
    total.backward()
    return total


def several_types() -> Any:
    value = parameter(4)
    return value.exp().double().exp().to(torch.complex64).abs().sum() + value.unsqueeze(0).bfloat16().exp().sum()


PROGRAMS = (
    *(layers, stacked_parameters, a_parameter_beside_a_result, hooks_where_gradients_accumulate, a_node_of_that_name),
    *(kept_by_the_program_s_hooks, a_parametrized_module, tied_weights_and_views, a_gradient_of_a_gradient),
    *(without_gradients_since, a_parameter_set_elsewhere, sparse_tensors, nested_tensors, tensors_of_no_memory),
    *(what_a_transform_was_given, what_a_transform_left, a_class_of_the_program_s, freed_before, several_types),
)
WITHOUT_ROWS = (tensors_of_no_memory, freed_before)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.__name__)
def test_what_is_found_is_what_each_node_keeps_in_the_same_order(program: Callable[[], Any]) -> None:
    root = program()
    found = rows_of(root)
    assert found == one_by_one(root)
    assert bool(found) is (program not in WITHOUT_ROWS)


def test_one_walk_of_many_graphs_is_like_the_walk_of_each() -> None:
    """What is remembered of a class of nodes from one graph holds in all others."""
    walk = SavedWalk(torch)
    for program in (*PROGRAMS, *PROGRAMS[::-1]):
        root = program()
        assert list(walk.rows([root], now_ns=1, step=2, microbatch=3)) == one_by_one(root), program.__name__


def test_a_checkpoint_is_seen_after_graphs_without_one() -> None:
    walk = SavedWalk(torch)
    weight = parameter(4)
    hidden = weight * 2
    for root in (hidden.exp().sum(), checkpoint(lambda value: value.exp().exp(), hidden, use_reentrant=False).sum()):
        rows = walk.rows([root], now_ns=1, step=2, microbatch=3)
    assert [row[4] for row in rows if row[6] == CHECKPOINT] == [hidden.untyped_storage().data_ptr()]


def test_parameters_are_none_of_the_nodes_that_count() -> None:
    results = [parameter(4).exp() for _ in range(3)]
    root = torch.stack([*(parameter(4) for _ in range(100)), *results]).sum()
    # Sum, stack, and the three.
    assert len(rows_of(root, max_nodes=5)) == len(one_by_one(root)) == 3
    assert len(rows_of(root, max_nodes=4)) == 2


def test_nothing_of_a_graph_is_kept() -> None:
    walk = SavedWalk(torch)
    weight = parameter(4)
    hidden = weight.exp()
    root = (hidden * weight).sum()
    assert len(walk.rows([root], now_ns=1, step=2, microbatch=3)) == 2
    gone = [weakref.ref(weight), weakref.ref(hidden)]
    del weight, hidden, root
    assert [reference() for reference in gone] == [None, None]
