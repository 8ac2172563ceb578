"""Every operator on its way to a meta kernel: new storages are taken note of, and what has no meta kernel is answered.

An operator that reads a value (`item`) gets a plausible constant, one whose shape depends on values an upper bound
(`data_dependent_shapes.py`); one that nobody describes ends the prediction, unless it says that it makes nothing new.
All of it is noted (`assumptions.py`), so that the trace can say so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._prims_common import suggest_memory_format
from torch.utils._python_dispatch import TorchDispatchMode

from memtrace.hooks.fake.events.assumptions import Assumptions, operator_name
from memtrace.hooks.fake.events.storages import CUDA, HOST, PLAIN, FakeMemory
from memtrace.hooks.fake.kernels import cuda_results
from memtrace.hooks.fake.kernels.composites import APART
from memtrace.hooks.fake.kernels.workspaces import Kernels
from memtrace.hooks.fake.tensors.data_dependent_shapes import Bounds
from memtrace.hooks.fake.tensors.gradient_accumulation import FreshZeros, GradientSums, OwnResults
from memtrace.hooks.fake.tensors.known_values import KnownValues
from memtrace.hooks.fake.tensors.reads import Reads

_aten = torch.ops.aten

Answer = Callable[..., Any]


class Operators(TorchDispatchMode):  # type: ignore[misc]  # torch leaves it untyped
    """Sees each operator of the thread below autograd."""

    def __init__(
        self,
        memory: FakeMemory,
        kernels: Kernels,
        assumptions: Assumptions,
        *,
        answers: Mapping[Any, Answer] | None = None,
    ) -> None:
        """`answers` are those of others, by operator."""
        super().__init__()
        self._memory = memory
        self._assumptions = assumptions
        self._kernels = kernels
        self._own = OwnResults(memory)
        self._gradient_sums = GradientSums(self._own)
        self._zeros = FreshZeros(memory, self._own)
        self.known = KnownValues(memory)
        self.reads = Reads(self.known, assumptions)
        self._answers: dict[Any, Answer] = {
            _aten._local_scalar_dense.default: self.reads.scalar,
            _aten.equal.default: self._equal,
            _aten.is_nonzero.default: self.reads.truth,
            _aten.convolution.default: _convolution,
            _aten._amp_foreach_non_finite_check_and_unscale_.default: lambda *_: None,
            _aten._amp_update_scale_.default: lambda scale, *_: scale,
            **cuda_results.answers(),
            **(answers or {}),
            **Bounds(memory, assumptions, self.known).answers(),
        }
        for name in _LIKE_THE_FIRST:
            self._answers[getattr(_aten, name).default] = lambda one, *_args, **_kwargs: torch.empty_like(one)
        for name in ("_fused_adam_", "_fused_adamw_", "_fused_sgd_", "_fused_adagrad_"):
            for overload in getattr(_aten, name).overloads() if hasattr(_aten, name) else ():
                self._answers[getattr(getattr(_aten, name), overload)] = lambda *_args, **_kwargs: None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator; those without a fake tensor in or out run as ever."""
        if any(hasattr(one, "__tensor_flatten__") for one in types):
            # A tensor that wraps others, such as a DTensor, comes again with what it wraps.
            return NotImplemented
        # In a backward pass nobody else has switched the function mode off, which says "cuda" for "meta".
        with torch._C.DisableTorchFunction():
            return self._dispatched(func, args, kwargs or {})

    def _dispatched(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self._memory.is_paused:
            return func(*args, **kwargs)
        if kwargs.get("pin_memory"):
            # C++ has no pinned memory without an accelerator; callbacks of autograd come here past the functions.
            kwargs = {name: one for name, one in kwargs.items() if name != "pin_memory"}
        kwargs = _without_cuda(kwargs)
        if func in _MOVES:
            # Seen whole only where autograd is off, as in DTensor's own code: it becomes a copy, if it is any.
            with self:
                return func.decompose(*map(_translated, args), **kwargs)
        fakes: list[Any] = []
        real: list[Any] = []
        for value in (*args, *kwargs.values()):
            _sort(value, fakes, real)
        for one in fakes:
            self._check_layout(one)
        if not fakes:
            if not _makes_meta(kwargs):
                return func(*args, **kwargs)
            kind = self._memory.forced_kind or CUDA
        else:
            kind = self._memory.forced_kind or self._kind(fakes)
            if func.namespace == "c10d" or func.namespace == "_c10d_functional":
                return self._collective(func, args, kwargs)
            if real and func not in _MIXED:
                args, kwargs = _to_meta(args), {key: _to_meta(value) for key, value in kwargs.items()}
        if self._gradient_sums.is_in_place(func, args, kwargs) or self._zeros.is_in_place(func, args):
            if kind == CUDA:
                self._kernels.after(func, args, args[0])
            return args[0]
        self._assumptions.check()
        if func in APART and fakes:
            with self:
                return APART[func](*args, **kwargs)
        answer = self._answers.get(func) if fakes else None
        if answer is None and fakes and _is_taken_apart(func):
            # Seen whole only where autograd is off, as in inference mode: its steps are what takes memory.
            with self:
                return func.decompose(*args, **kwargs)
        if kind == CUDA and fakes:
            self._kernels.before(func, args)
        out = answer(*args, **kwargs) if answer else self._run(func, args, kwargs)
        self._adopt(out, kind)
        self.known.after(func, args, kwargs, out)
        self._zeros.after(func, out)
        self._own.after(out)
        if kind == CUDA:
            self._kernels.after(func, args, out)
            if fakes and self._memory.on_operator is not None:
                self._memory.on_operator(func, args, kwargs, out)
        return out

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func in _COPIES:
            return self._copied(func, args, kwargs)
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if not _is_undescribed(error):
                raise
            return self._without_description(func, args, kwargs)

    def _without_description(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer an operator that has no kernel for shapes; what it writes into is all that can be known of it."""
        name = operator_name(func)
        if name in _MOST:
            out = _MOST[name](*args)
            self._assumptions.bound(name, out.numel() * out.element_size())
            return out
        written = _written(func, args, kwargs)
        if written is None:
            self._assumptions.refuse(
                f"the operator {name} does not say which shapes it makes; tell by torch.library.register_fake"
            )
        self._assumptions.operator(name, "it was taken to write into its arguments and to take nothing else")
        return None if not written else written[0] if len(written) == 1 else tuple(written)

    def _kind(self, fakes: list[Any]) -> str:
        kinds = {self._memory.kind_of(one) for one in fakes}
        return CUDA if CUDA in kinds else HOST if HOST in kinds else PLAIN

    def _adopt(self, out: Any, kind: str) -> None:
        if isinstance(out, torch.Tensor):
            if out.is_meta:
                self._check_layout(out)
                self._memory.adopt(out, kind)
        elif isinstance(out, (list, tuple)):
            for one in out:
                self._adopt(one, kind)

    def _check_layout(self, one: Any) -> None:
        """End the program where a tensor has no storage to follow."""
        if one.layout is not torch.strided:
            self._assumptions.refuse(
                "a sparse tensor is on the GPU, which tensors without data do not follow; --engine driverless does"
            )

    def _collective(self, func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        self._adopt(out, CUDA)
        return out

    def _copied(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Copy between devices: onto the host come ones where values are not known."""
        if func is _aten.copy_.default:
            target, source = args[0], args[1]
            if source.is_meta and not target.is_meta:
                values = self.known.of(source)
                return target if values is None else target.copy_(values)
            return func(*args, **kwargs)
        wanted = kwargs.get("device")
        if args[0].is_meta and wanted is not None and torch.device(wanted).type != "meta":
            return self.reads.tensor(args[0]).to(kwargs.get("dtype") or args[0].dtype)
        return func(*args, **kwargs)

    def _equal(self, *tensors: Any) -> bool:
        found = self.known.answer(_aten.equal.default, tensors, {})
        if found is not None:
            return bool(found)
        return self.reads.equal(*tensors)


@functools.cache
def _is_taken_apart(func: Any) -> bool:
    """Return whether an operator is written in terms of others on every device."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    is_for_all = has(func.name(), "CompositeImplicitAutograd") and not has(func.name(), "CPU")
    return bool(is_for_all and func.name() not in _OWN_ON_CUDA)


def _is_undescribed(error: RuntimeError) -> bool:
    """Return whether an operator failed for want of a kernel for meta tensors."""
    text = str(error)
    return "no fake impl" in text or "'Meta' backend" in text or "data-dependent shape" in text


_MOST: dict[str, Answer] = {
    # Boxes that overlap are dropped: at most none does.
    "torchvision::nms": lambda boxes, *_args: boxes.new_empty(boxes.shape[0], dtype=torch.int64),
}
"""Operators of libraries whose result only data tells the size of: the largest."""


def _written(func: Any, args: Any, kwargs: Any) -> list[Any] | None:
    """Return the arguments that an operator returns after writing into them; None if it returns something else."""
    schema = func._schema
    found = []
    for result in schema.returns:
        if result.alias_info is None or not result.alias_info.is_write:
            return None
        for at, one in enumerate(schema.arguments):
            if one.alias_info is not None and one.alias_info.before_set == result.alias_info.before_set:
                found.append(args[at] if at < len(args) else kwargs[one.name])
                break
    return found


def _convolution(one: Any, weight: Any, *args: Any) -> Any:
    """Lay the result out as cuDNN does, by input and weight (`cudnn_conv_suggest_memory_format`)."""
    out = _aten.convolution.default(one, weight, *args)
    for layout in (torch.channels_last, torch.channels_last_3d):
        if out.dtype is not torch.float64 and layout in (suggest_memory_format(one), suggest_memory_format(weight)):
            return torch.empty(out.shape, dtype=out.dtype, device="meta", memory_format=layout)
    return out


_OWN_ON_CUDA = {"aten::_fused_rms_norm"}
"""Operators written in terms of others on every device but CUDA."""
_LIKE_THE_FIRST = (
    "_sample_dirichlet",
    "_standard_gamma",
    "_standard_gamma_grad",
    "_dirichlet_grad",
    "poisson",
    "binomial",
)
"""Operators of random numbers that have no kernel for shapes: their result is as the first argument."""
_MIXED = {
    _aten.copy_.default,
    _aten._to_copy.default,
    _aten.lift_fresh.default,
    _aten._pack_padded_sequence.default,
    _aten._pack_padded_sequence_backward.default,
}
"""Operators that take tensors of two devices."""
_MOVES = {getattr(_aten.to, overload) for overload in _aten.to.overloads()}
_COPIES = {_aten.copy_.default, _aten._to_copy.default}


def _sort(value: Any, fakes: list[Any], real: list[Any]) -> None:
    if isinstance(value, torch.Tensor):
        if value.is_meta:
            fakes.append(value)
        elif value.dim():
            real.append(value)
    elif isinstance(value, (list, tuple)):
        for one in value:
            _sort(one, fakes, real)


def _to_meta(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value if value.is_meta or not value.dim() else value.to("meta")
    if isinstance(value, (list, tuple)):
        return type(value)([_to_meta(one) for one in value])
    return value


def _without_cuda(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Translate a device that was named where no function mode was asked, as in DTensor's own code."""
    return {**kwargs, "device": _translated(kwargs["device"])} if kwargs.get("device") is not None else kwargs


def _translated(value: Any) -> Any:
    is_gpu = isinstance(value, torch.device) and value.type == "cuda"
    return torch.device("meta") if is_gpu else value


def _makes_meta(kwargs: dict[str, Any]) -> bool:
    device = kwargs.get("device")
    return device is not None and torch.device(device).type == "meta"
