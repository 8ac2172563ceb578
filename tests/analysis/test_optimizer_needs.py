"""States and temporaries of optimizers, derived from class and options, against what torch really makes."""

from __future__ import annotations

from typing import Any

import pytest

from memtrace.analysis.first_step.optimizer_needs import Group, Parameter, state_bytes, step_bytes

torch = pytest.importorskip("torch")

SHAPES = [(7, 5), (5,), (3, 4, 2), (6, 6)]
CASES = [
    ("Adam", {}),
    ("Adam", {"amsgrad": True}),
    ("AdamW", {"foreach": True}),
    ("AdamW", {"fused": True}),
    ("AdamW", {"weight_decay": 0.0, "maximize": True}),
    ("Adam", {"maximize": True}),
    ("Adam", {"maximize": True, "weight_decay": 0.1}),
    ("NAdam", {}),
    ("RAdam", {}),
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adagrad", {}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("Adadelta", {}),
    ("Adamax", {}),
    ("Rprop", {}),
    ("ASGD", {}),
    ("Adafactor", {}),
    ("SGD", {"maximize": True}),
    ("RMSprop", {"weight_decay": 0.1}),
    ("Adagrad", {"weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
]


def stepped(name: str, options: dict[str, Any]) -> Any:
    parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in SHAPES]
    optimizer = getattr(torch.optim, name)(parameters, **options)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def described(optimizer: Any) -> Group:
    options = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    count = sum(parameter.numel() for parameter in optimizer.param_groups[0]["params"])
    return Group(class_name=type(optimizer).__name__, options=options, num_parameters=count)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_states_are_as_large_as_those_that_torch_makes(name: str, options: dict[str, Any]) -> None:
    optimizer = stepped(name, options)
    tensors = (tensor for state in optimizer.state.values() for tensor in state.values() if torch.is_tensor(tensor))
    expected = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert state_bytes([described(optimizer)], [Parameter(shape, 4) for shape in SHAPES], is_cpu=True) == expected


def test_muon_takes_matrices_only() -> None:
    parameter = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = torch.optim.Muon([parameter])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    (state,) = optimizer.state.values()
    expected = sum(tensor.numel() * tensor.element_size() for tensor in state.values() if torch.is_tensor(tensor))
    assert state_bytes([described(optimizer)], [Parameter((4, 3), 4)], is_cpu=True) == expected


MATRICES = [(512, 512)] * 3
KERNELS = [(64, 64, 3, 3), (64,), (128, 64, 3, 3), (10, 128), (10,)]
EXACT = ("Adam", "AdamW", "NAdam", "SGD", "RMSprop", "Adagrad", "Adafactor")


@pytest.mark.parametrize("shapes", [MATRICES, KERNELS], ids=["matrices", "kernels"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        (name, options | {"foreach": foreach})
        for name, options in CASES
        for foreach in (True, False)
        if not options.get("fused")
    ],
)
def test_steps_hold_what_is_said(name: str, options: dict[str, Any], shapes: list[tuple[int, ...]]) -> None:
    """The allocator's own events of a second step rise to what the rule says, and never above it."""
    parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = getattr(torch.optim, name)(parameters, **options)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    risen = largest_rise(optimizer.step)
    said = step_bytes([described(optimizer)], [Parameter(shape, 4) for shape in shapes], is_cpu=True)
    assert said is not None
    # Scalars and reductions come on top of what is counted.
    slack = 4096
    assert risen <= said + slack
    if name in EXACT:
        assert risen >= said - slack


def largest_rise(action: Any) -> int:
    """Return by how much the bytes in use rise at most while something runs."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    events = profiler.profiler.kineto_results.experimental_event_tree()
    found: list[tuple[int, int]] = []
    while events:
        event = events.pop()
        events += event.children
        if event.tag == torch._C._profiler._EventType.Allocation:
            found.append((event.start_time_ns, event.extra_fields.alloc_size))
    level = largest = 0
    for _, size in sorted(found):
        level += size
        largest = max(largest, level)
    return largest


def test_an_unknown_class_is_not_guessed() -> None:
    group = Group(class_name="MyOptimizer", options={}, num_parameters=4)
    assert state_bytes([group], [Parameter((4,), 4)], is_cpu=True) is None
    assert step_bytes([group], [Parameter((4,), 4)], is_cpu=True) is None
    assert state_bytes([], [Parameter((4,), 4)], is_cpu=True) is None


def test_scalars_are_on_the_host_unless_the_step_needs_them_on_the_device() -> None:
    sizes = {}
    for name in ("foreach", "fused", "capturable"):
        group = Group(class_name="AdamW", options={name: True}, num_parameters=4)
        sizes[name] = state_bytes([group], [Parameter((4,), 4)], is_cpu=False)
    assert sizes == {"foreach": 2 * 16, "fused": 2 * 16 + 4, "capturable": 2 * 16 + 4}


def test_groups_share_by_their_elements() -> None:
    groups = [
        Group(class_name="AdamW", options={}, num_parameters=75),
        Group(class_name="SGD", options={}, num_parameters=25),
    ]
    assert state_bytes(groups, [Parameter((100,), 4)], is_cpu=False) == 2 * 4 * 75
