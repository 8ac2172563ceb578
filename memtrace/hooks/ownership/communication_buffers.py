"""What DistributedDataParallel and FSDP2 hold for communication: told by their own objects, where these are at work.

Torch offers no hook for this, so a few methods of theirs are wrapped. Nothing is registered with them: a communication
hook would change what they do. Only addresses and sizes are kept.

- DDP's buckets belong to its reducer, which is C++ and shows none of them. All that the reducer allocates for good, it
  allocates while it is built and when it rebuilds its buckets: a scope of class `Reducer` marks both. Where gradients
  are views of buckets, a bucket is the storage of its gradients.
- FSDP2 gathers parameters into a flat buffer, copies them out into one storage a parameter, whose bytes it frees and
  allocates again, and reduces gradients from a flat buffer into the sharded gradients.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from time import time_ns
from typing import Any

from memtrace.hooks.ownership.ddp_buckets import Replicas
from memtrace.hooks.ownership.module_tree import parameters_in
from memtrace.hooks.ownership.owners import Owned
from memtrace.hooks.parts.chunk import Row
from memtrace.schema.names import Category

FSDP_MODULES = (
    "torch.distributed.fsdp._fully_shard._fsdp_param_group",
    "torch.distributed._composable.fsdp._fsdp_param_group",
)
"""Where FSDP2 keeps its groups: first where newer versions of torch do, then where it lay before (2.4 and 2.5)."""
REDUCER_SCOPE = ("DistributedDataParallel.reducer", "Reducer")
"""Path and class name of the scope in which a reducer makes its buckets."""

Around = Callable[[Any, str, Callable[..., None], Callable[..., None]], None]
"""Wraps a method: owner, name, callback before, callback after."""


class Communication:
    """Follows the replicas and the parameter groups of this process."""

    def __init__(
        self,
        torch: Any,
        *,
        emit: Callable[[list[Owned]], None],
        emit_scope: Callable[[Row], None],
        replicas: Replicas,
        step: Callable[[], int],
    ) -> None:
        self._torch = torch
        self._emit = emit
        self._emit_scope = emit_scope
        self._reducer_ns = 0
        self._is_gathering = False
        self._replicas = replicas
        self._step = step
        self._groups: weakref.WeakSet[Any] = weakref.WeakSet()
        self._finds_groups = True

    def attach(self, around: Around) -> None:
        """Wrap what DDP has; FSDP2 is loaded later, if at all."""
        replicas = getattr(self._torch.nn.parallel, "DistributedDataParallel", None)
        if replicas is not None:
            around(replicas, "_ddp_init_helper", self._before_reducer, self._after_init)
        reducer = getattr(getattr(self._torch, "distributed", None), "Reducer", None)
        if reducer is not None:
            around(reducer, "_rebuild_buckets", self._before_reducer, self._after_reducer)

    def attach_late(self, around: Around) -> None:
        """Wrap what FSDP2 has, once the program has imported it. Called at each forward of a root, it costs nothing."""
        if not self._finds_groups:
            return
        for name in FSDP_MODULES:
            group = getattr(sys.modules.get(name), "FSDPParamGroup", None)
            if group is not None:
                self._finds_groups = False
                around(group, "wait_for_unshard", self._before_gathered, self._after_gathered)
                around(group, "post_backward", self._before_reduced, self._after_reduced)
                return

    def root_runs(self, module: Any) -> None:
        """Follow a replicated model that was made before the recording began."""
        if type(module).__name__ == "DistributedDataParallel" and id(module) not in self._replicas.watched:
            self._replicas.add(module, step=self._step())

    def misses_groups(self, module: Any) -> bool:
        """Return whether FSDP2 shards a module whose groups are in none of the places where they were looked for."""
        return self._finds_groups and any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__)

    def held(self) -> Iterator[Owned]:
        """Yield what is held for communication now, and the sharded parameters behind gathered ones."""
        for group in list(self._groups):
            yield from self._of_group(group)
        for replica in self._replicas.models():
            yield from self._of_replica(replica)

    def names(self) -> Iterator[tuple[int, str]]:
        """Yield identity and name of the sharded parameters: while they are gathered, no module holds them."""
        for group in list(self._groups):
            for parameter in group.fsdp_params:
                yield id(parameter.sharded_param), _name_of(parameter)

    # DDP

    def _before_reducer(self, *_args: Any, **_kwargs: Any) -> None:
        self._reducer_ns = time_ns()

    def _after_reducer(self, *_args: Any, **_kwargs: Any) -> None:
        self._emit_scope((*REDUCER_SCOPE, self._reducer_ns, time_ns()))

    def _after_init(self, replica: Any, *_args: Any, **_kwargs: Any) -> None:
        self._after_reducer()
        self._replicas.add(replica, step=self._step())

    def _of_replica(self, replica: Any) -> Iterator[Owned]:
        if getattr(replica, "gradient_as_bucket_view", False):
            for _, parameter in parameters_in(replica):
                if parameter.is_leaf and parameter.grad is not None:
                    yield Category.COMMUNICATION, "bucket", parameter.grad

    # FSDP2

    def _before_gathered(self, group: Any) -> None:
        self._groups.add(group)
        result = group._all_gather_result
        self._is_gathering = result is not None
        if result is not None:
            self._emit([(Category.COMMUNICATION, f"all-gather of {_group_name(group)}", result.all_gather_output)])

    def _after_gathered(self, group: Any) -> None:
        if self._is_gathering:
            self._emit(list(self._gathered(group)))

    def _of_group(self, group: Any) -> Iterator[Owned]:
        if not group.is_sharded:
            yield from self._gathered(group)
            for parameter in group.fsdp_params:
                yield Category.PARAMETER, _name_of(parameter), parameter.sharded_param

    def _gathered(self, group: Any) -> Iterator[Owned]:
        for parameter in group.fsdp_params:
            outputs = getattr(parameter, "all_gather_outputs", None)
            # One tensor in the oldest versions of torch, now a list.
            for tensor in [parameter.all_gather_output] if outputs is None else outputs:
                yield Category.COMMUNICATION, f"gathered {_name_of(parameter)}", tensor

    def _before_reduced(self, group: Any, *_args: Any) -> None:
        gradients = []
        for parameter in group.fsdp_params:
            unsharded = getattr(parameter, "_unsharded_param", None)
            accumulated = getattr(parameter, "unsharded_accumulated_grad", None)
            for gradient in (getattr(unsharded, "grad", None), accumulated):
                if gradient is not None:
                    gradients.append((Category.GRADIENT, f"unsharded {_name_of(parameter)}", gradient))
        self._emit(gradients)

    def _after_reduced(self, group: Any, *_args: Any) -> None:
        context, name = group.comm_ctx, f"reduce-scatter of {_group_name(group)}"
        # One state in older versions of torch, now a list.
        states = getattr(context, "reduce_scatter_states", None) or [getattr(context, "reduce_scatter_state", None)]
        if states[-1] is not None:
            self._emit([(Category.COMMUNICATION, name, states[-1].reduce_scatter_input)])


def _name_of(parameter: Any) -> str:
    return str(getattr(parameter, "_param_fqn", None) or parameter._module_info.param_name)


def _group_name(group: Any) -> str:
    return str(group._module_fqn or "the root")
