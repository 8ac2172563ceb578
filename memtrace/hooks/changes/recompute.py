"""A forward whose activations are not kept: torch's own checkpointing, and what it leaves to its caller.

Torch keeps the state of its random numbers and of autocast. Here are kept those of Python and numpy, and buffers that
the forward writes into; and the second run is refused where what the first was given has been written to since, which
torch itself would not see.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from memtrace.hooks.changes import random_state
from memtrace.hooks.changes.arguments import tensors_of, versions
from memtrace.hooks.changes.buffers import Buffers
from memtrace.hooks.changes.kept_results import contexts_of
from memtrace.hooks.ownership.module_tree import parameters_in

Refuse = Callable[[str, str], None]
"""Told the name of a module, and why it cannot be run again."""


class RecomputeError(RuntimeError):
    """A module cannot be run again as it was run."""


class Recompute:
    """How the forwards of one module are run so that backward runs them again."""

    def __init__(
        self,
        torch: Any,
        name: str,
        module: Any,
        *,
        refuse: Refuse,
        on_again: Callable[[str], None],
        kept: frozenset[str] = frozenset(),
    ) -> None:
        """`kept` are operators whose results are not computed again."""
        self._torch = torch
        self._name = name
        self._module = module
        self._refuse = refuse
        self._on_again = on_again
        self._buffers = Buffers(module)
        self._contexts = contexts_of(torch, kept) if kept else _no_contexts

    def __call__(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a forward without keeping what its backward needs."""
        from torch.utils.checkpoint import checkpoint

        call = _Call(self, forward, args, kwargs)
        # The tensors are named for torch to see which devices they are on; the forward has its own arguments.
        seen = [*call.tensors, *(one for _, one in parameters_in(self._module))][: max(1, len(call.tensors))]
        return checkpoint(call, *seen, use_reentrant=False, preserve_rng_state=True)

    @property
    def buffers(self) -> Buffers:
        """Buffers of the module and what its forwards write."""
        return self._buffers

    @property
    def tensor(self) -> type:
        """The class of tensors."""
        kind: type = self._torch.Tensor
        return kind

    def contexts(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """Return what one forward runs in, and what it runs in again.

        Not given to torch, which would run what is done around the forward in them too: results are told apart by how
        many of an operator came before, and copies of buffers are made in the first run that the second has not.
        """
        return self._contexts()

    def again(self) -> None:
        """Take note that the module is run again."""
        self._on_again(self._name)

    def refused(self, why: str) -> RecomputeError:
        """Take note that the module cannot be run again, and return the error to raise."""
        self._refuse(self._name, why)
        return RecomputeError(f"{self._name} cannot be computed again in backward: {why}")


def _no_contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), nullcontext()


class _Call:
    """One forward: the first time as it is, and then as it was."""

    def __init__(
        self, region: Recompute, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._region = region
        self._forward = forward
        self._args = args
        self._kwargs = kwargs
        self.tensors = list(tensors_of((args, kwargs), region.tensor))
        self._versions = versions(self.tensors)
        self._random: random_state.State | None = None
        self._buffers: list[Any] = []
        self._has_run = False
        self._first, self._second = region.contexts()

    def __call__(self, *_tensors: Any) -> Any:
        """Run the forward."""
        if self._has_run:
            return self._again()
        self._has_run = True
        buffers = self._region.buffers
        drawn, copies, before = random_state.state(), buffers.before(), buffers.versions()
        with self._first:
            out = self._forward(*self._args, **self._kwargs)
        if not random_state.is_same(drawn, random_state.state()):
            self._random = drawn
        self._buffers = buffers.note(before, copies)
        if versions(self.tensors) != self._versions:
            raise self._region.refused("it writes into what it is given")
        return out

    def _again(self) -> Any:
        region = self._region
        region.again()
        if versions(self.tensors) != self._versions:
            raise region.refused("what it was given is written to before backward")
        now = None if self._random is None else random_state.state()
        try:
            if self._random is not None:
                random_state.put(self._random)
            with region.buffers.as_before(self._buffers), self._second:
                return self._forward(*self._args, **self._kwargs)
        except Exception as error:
            # By this torch ends a run of which nothing more is needed.
            if type(error).__name__ != "_StopRecomputationError":
                region.refused(f"run again, it fails with {type(error).__name__}: {str(error)[:200]}")
            raise
        finally:
            if now is not None:
                random_state.put(now)
