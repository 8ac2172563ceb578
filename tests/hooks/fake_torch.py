"""A torch of a few hundred lines: modules, tensors with addresses, autograd, optimizers, and the hooks on them.

It computes nothing. Each call does what torch does around the work: it runs the registered hooks, says whether
gradients are enabled and whether a backward pass runs in the thread, and hands out storages at addresses that are
never used twice. What a program does inside a forward or a backward is a function given by the test.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

STRIDED = "torch.strided"
ITEM_BYTES = 4
_addresses = itertools.count(0x1000, 0x1000)


class Device(NamedTuple):
    """A device."""

    type: str
    index: int | None = None


CPU = Device("cpu")


class Storage:
    """Bytes at an address."""

    def __init__(self, size_bytes: int) -> None:
        self.address = next(_addresses)
        self.size_bytes = size_bytes

    def data_ptr(self) -> int:
        """Return the address."""
        return self.address

    def nbytes(self) -> int:
        """Return the size."""
        return self.size_bytes


class Tensor:
    """A tensor of float32 on the CPU."""

    def __init__(self, *shape: int, grad_fn: Any = None) -> None:
        self.shape = shape
        self.device = CPU
        self.dtype = "torch.float32"
        self.layout = STRIDED
        self.is_nested = False
        self.grad_fn = grad_fn
        self.is_leaf = grad_fn is None
        self.grad: Tensor | None = None
        self._storage = Storage(ITEM_BYTES * self.numel())

    @property
    def address(self) -> int:
        """The address of its storage."""
        return self._storage.address

    def untyped_storage(self) -> Storage:
        """Return its storage."""
        return self._storage

    def data_ptr(self) -> int:
        """Return where it begins."""
        return self.address

    def storage_offset(self) -> int:
        """Return where in the storage it begins."""
        return 0

    def numel(self) -> int:
        """Return the number of its elements."""
        return math.prod(self.shape)

    def element_size(self) -> int:
        """Return the bytes of an element."""
        return ITEM_BYTES


class Loss(Tensor):
    """A tensor that a graph leads to: what its nodes saved, which tensors get gradients, and what runs in backward."""

    def __init__(
        self,
        autograd: Any,
        *,
        saved: Iterable[Tensor] = (),
        of: Iterable[Tensor] = (),
        during: Callable[[], object] | None = None,
    ) -> None:
        node = MulBackward0(saved)
        super().__init__(1, grad_fn=SumBackward0((), [(node, 0)]))
        self._autograd = autograd
        self.parameters = list(of)
        self.during = during

    def backward(self) -> None:
        """Run the backward pass, as `Tensor.backward` does: through the function of `torch.autograd`."""
        self._autograd.backward(self)


class SavedTensor:
    """What a node holds of a tensor that it saved."""

    unpack_hook = None
    data: Any = None

    def __init__(self, data: Tensor) -> None:
        self.data = data


class _Node:
    def __init__(self, saved: Iterable[Tensor], following: Iterable[tuple[Any, int]] = ()) -> None:
        self._raw_saved_tensors = tuple(SavedTensor(tensor) for tensor in saved)
        self.next_functions = tuple(following)


class MulBackward0(_Node):
    """A node that saves tensors."""


class SumBackward0(_Node):
    """A node that saves nothing."""


class _Handle:
    def __init__(self, hooks: list[Any], hook: Any) -> None:
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        self._hooks.remove(self._hook)


class _ThreadState(threading.local):
    """What torch keeps for each thread."""

    grad_enabled = True
    graph_task = -1


class World:
    """What all objects of one fake torch share: hooks, and the state of each thread."""

    def __init__(self) -> None:
        self.forward_pre_hooks: list[Any] = []
        self.forward_hooks: list[Any] = []
        self.step_pre_hooks: list[Any] = []
        self.step_post_hooks: list[Any] = []
        self.state = _ThreadState()
        self.autocast_dtype: str | None = None

    @property
    def hooks(self) -> list[Any]:
        """Every hook that is registered."""
        return [*self.forward_pre_hooks, *self.forward_hooks, *self.step_pre_hooks, *self.step_post_hooks]

    @contextmanager
    def no_grad(self) -> Iterator[None]:
        """Disable gradients in this thread."""
        before, self.state.grad_enabled = self.state.grad_enabled, False
        try:
            yield
        finally:
            self.state.grad_enabled = before

    @contextmanager
    def in_backward(self) -> Iterator[None]:
        """Be inside a backward pass in this thread, as a thread of autograd is too."""
        before, self.state.graph_task = self.state.graph_task, self.state.graph_task + 1
        try:
            yield
        finally:
            self.state.graph_task = before

    def backward(self, tensors: Any = (), *_args: Any, **_kwargs: Any) -> None:
        """Do what the losses say, and add to the gradients of their parameters."""
        with self.in_backward():
            losses = [tensors] if isinstance(tensors, Tensor) else tensors
            for loss in (one for one in losses if isinstance(one, Loss)):
                if loss.during is not None:
                    loss.during()
                for parameter in loss.parameters:
                    parameter.grad = parameter.grad or Tensor(*parameter.shape)


class Module:
    """A module: its parameters, buffers and children by name, and the function that its forward is."""

    world: World

    def __init__(self, forward: Callable[..., object] = lambda *args, **kwargs: None, **members: Any) -> None:
        self.forward = forward
        self._members = members

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call_impl(*args, **kwargs)

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        # Names of functions and locals are torch's own: memtrace finds keyword arguments by them.
        result = None
        called: set[int] = set()

        def inner() -> Any:
            nonlocal result, args, kwargs
            for hook in list(self.world.forward_pre_hooks):
                hook(self, args)
            result = self.forward(*args, **kwargs)
            for hook in list(self.world.forward_hooks):
                called.add(id(hook))
                hook(self, args, result)
            return result

        try:
            return inner()
        except Exception:
            for hook in list(self.world.forward_hooks):
                if id(hook) not in called:
                    hook(self, args, result)
            raise

    def _table(self, holds: Callable[[str, object], bool]) -> dict[str, Any]:
        return {name: member for name, member in self._members.items() if holds(name, member)}

    @property
    def _modules(self) -> dict[str, Module]:
        return self._table(lambda _, member: isinstance(member, Module))

    @property
    def _parameters(self) -> dict[str, Tensor]:
        return self._table(lambda name, member: isinstance(member, Tensor) and not name.startswith("buffer"))

    @property
    def _buffers(self) -> dict[str, Tensor]:
        return self._table(lambda name, member: isinstance(member, Tensor) and name.startswith("buffer"))

    def parameters(self) -> Iterator[Tensor]:
        """Yield the tensors that are trained."""
        yield from self._parameters.values()
        for module in self._modules.values():
            yield from module.parameters()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, or keep them."""
        _zero_grad(self.parameters(), set_to_none)


class DistributedDataParallel(Module):
    """A module that says whether its backward reduces gradients."""

    logger = None
    require_backward_grad_sync = True


class AveragedModel(Module):
    """A module that averages another, and is never called in training."""


class Optimizer:
    """An optimizer with one group, whose states, one a parameter, are made by its first step."""

    world: World

    def __init__(self, parameters: Iterable[Tensor], **options: Any) -> None:
        self.param_groups = [{"params": list(parameters), **options}]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def step(self, closure: Callable[[], object] | None = None) -> None:
        """Run the hooks around a step; as in torch, those after it are left out where it fails."""
        for hook in list(self.world.step_pre_hooks):
            hook(self, (closure,), {})
        if closure is not None:
            closure()
        self.update()
        for hook in list(self.world.step_post_hooks):
            hook(self, (closure,), {})

    def update(self) -> None:
        """Make a state for each parameter that has a gradient."""
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None and parameter not in self.state:
                self.state[parameter] = {"momentum": Tensor(*parameter.shape)}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, or keep them."""
        _zero_grad(self.param_groups[0]["params"], set_to_none)


def _zero_grad(parameters: Iterable[Tensor], set_to_none: bool) -> None:
    for parameter in parameters:
        parameter.grad = None if set_to_none else parameter.grad


class GradScaler:
    """Skips the steps of optimizers as long as it has found an infinity."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self.found_inf = False

    def is_enabled(self) -> bool:
        """Return whether it scales at all."""
        return self._enabled

    def step(self, optimizer: Optimizer) -> None:
        """Step the optimizer, or skip it."""
        if not self.found_inf:
            optimizer.step()


class DataIterator:
    """Gives the batches of a data loader; `load` runs for each."""

    def __init__(self, load: Callable[[], object]) -> None:
        self._load = load

    def __next__(self) -> object:
        return self._load()


class RecordFunction:
    """A named range."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> RecordFunction:
        return self

    def __exit__(self, *_error: object) -> None:
        return None


class FakeTorch:
    """One fake torch: its modules by name, as `sys.modules` would hold them, and short names for what tests use."""

    def __init__(self, *, shows_saved: bool = True) -> None:
        self.world = world = World()
        self.Module: Any = self._own(Module)
        self.Replicated: Any = self._own(DistributedDataParallel, self.Module)
        self.Averaged: Any = self._own(AveragedModel, self.Module)
        self.Optimizer: Any = self._own(Optimizer)
        self.Scaler: Any = self._own(GradScaler)
        self.DataIterator: Any = self._own(DataIterator)
        self.Range: Any = self._own(RecordFunction)
        self.autograd = _module(
            "torch.autograd", backward=world.backward, profiler=SimpleNamespace(record_function=self.Range)
        )
        self.autograd.grad = lambda outputs, *_args, **_kwargs: world.backward(outputs)
        self.modules = self._modules()
        saved = SavedTensor if shows_saved else SimpleNamespace()
        self.torch = _module(
            "torch",
            Tensor=Tensor,
            UntypedStorage=Storage,
            strided=STRIDED,
            nn=self.modules["torch.nn"],
            optim=self.modules["torch.optim"],
            autograd=self.autograd,
            amp=SimpleNamespace(GradScaler=self.Scaler),
            is_grad_enabled=lambda: world.state.grad_enabled,
            is_autocast_enabled=lambda kind: kind == "cpu" and world.autocast_dtype is not None,
            get_autocast_dtype=lambda _kind: world.autocast_dtype,
            _C=SimpleNamespace(
                _current_graph_task_id=lambda: world.state.graph_task, _autograd=SimpleNamespace(SavedTensor=saved)
            ),
        )
        self.modules["torch"] = self.torch

    def loss(self, **about: Any) -> Loss:
        """Return a loss, see `Loss`."""
        return Loss(self.autograd, **about)

    def model_class(self, name: str) -> Any:
        """Return a class of modules with this name."""
        return type(name, (self.Module,), {})

    def optimizer_class(self, name: str) -> Any:
        """Return a class of optimizers with this name."""
        return type(name, (self.Optimizer,), {})

    def _own(self, kind: type, *parents: type) -> type:
        """Return a class of this torch alone, so that what is patched in one test is not seen by another."""
        return type(kind.__name__, (*parents, kind), {"world": self.world, **_own_methods(kind)})

    def _modules(self) -> dict[str, Any]:
        world = self.world
        optimizer = _module(
            "torch.optim.optimizer",
            Optimizer=self.Optimizer,
            register_optimizer_step_pre_hook=_register(world.step_pre_hooks),
            register_optimizer_step_post_hook=_register(world.step_post_hooks),
        )
        data = _module("torch.utils.data", dataloader=SimpleNamespace(_BaseDataLoaderIter=self.DataIterator))
        parallel = SimpleNamespace(DistributedDataParallel=self.Replicated)
        averages = SimpleNamespace(AveragedModel=self.Averaged)
        return {
            "torch.nn": _module("torch.nn", Module=self.Module, parallel=parallel),
            "torch.nn.modules.module": _module(
                "torch.nn.modules.module",
                register_module_forward_pre_hook=_register(world.forward_pre_hooks),
                register_module_forward_hook=_register(world.forward_hooks),
            ),
            "torch.optim": _module("torch.optim", swa_utils=averages),
            "torch.optim.optimizer": optimizer,
            "torch.utils.data": data,
        }


def _module(name: str, **members: Any) -> Any:
    made = ModuleType(name)
    vars(made).update(members)
    return made


def _own_methods(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if name in ("__enter__", "__exit__", "__next__")}


def _register(hooks: list[Any]) -> Callable[..., _Handle]:
    def register(hook: Any, *, always_call: bool = True) -> _Handle:
        # Every hook of memtrace that has this option asks for it.
        assert always_call
        hooks.append(hook)
        return _Handle(hooks, hook)

    return register
