"""Puts the fake device in place, in every thread of the program. There is no way back: the process is a prediction."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
import torch._decomp
import torch._meta_registrations  # registers the meta kernels that are written in Python
import torch.overrides

from memtrace.hooks.fake.cuda import api as cuda_api
from memtrace.hooks.fake.cuda import devices, distributed
from memtrace.hooks.fake.cuda.allocator_settings import AskedSettings
from memtrace.hooks.fake.cuda.told import Told
from memtrace.hooks.fake.events.assumptions import Assumptions, Warn
from memtrace.hooks.fake.events.storages import HOST, FakeMemory
from memtrace.hooks.fake.files import safetensors
from memtrace.hooks.fake.files import torch_checkpoints as checkpoints
from memtrace.hooks.fake.files.python_files import Files
from memtrace.hooks.fake.files.scratch import Scratch
from memtrace.hooks.fake.kernels import cuda_results, recurrent_cells
from memtrace.hooks.fake.kernels.attention import Attention
from memtrace.hooks.fake.kernels.recurrent import Recurrent
from memtrace.hooks.fake.kernels.reducing import multiprocessors_of
from memtrace.hooks.fake.kernels.workspaces import Kernels, convolution_facts
from memtrace.hooks.fake.tensors.autocast import Autocast, KeptCasts
from memtrace.hooks.fake.tensors.functions import Functions
from memtrace.hooks.fake.tensors.operators import Operators
from memtrace.schema.options import PredictOptions


class FakeDevice:
    """The modes and replacements, and what they counted."""

    def __init__(self, gpu: PredictOptions, *, with_stacks: bool, warn: Warn) -> None:
        self.memory = FakeMemory(with_stacks=with_stacks, num_gpus=gpu.gpus_per_node)
        self.gpu = gpu
        self._warn = warn
        self._scratch = Scratch(gpu.scratch_dir) if gpu.scratch_dir else None
        self._assumptions = Assumptions(warn)
        self._settings = AskedSettings(self.memory, warn)
        multiprocessors = multiprocessors_of(gpu)
        self._casts = KeptCasts()
        self._recurrent = Recurrent(self.memory, multiprocessors)
        kernels = self._kernels = Kernels(self.memory, gpu.capability, multiprocessors)
        self._operators = Operators(
            self.memory, kernels, self._assumptions, answers={**self._recurrent.answers(), **recurrent_cells.answers()}
        )
        self._told = Told(gpu, self._assumptions, self._operators.known.of)
        self._functions = Functions(
            self.memory,
            self._assumptions,
            Attention(gpu.capability),
            self._operators.reads,
            handlers={**self._recurrent.handlers(), **recurrent_cells.handlers(self.memory, self._casts.cast)},
        )

    def install(self) -> None:
        """Put everything in place. Affects: torch, for the rest of the process."""
        _leave_functions_of_python_alone()
        devices.install()
        cuda_api.install(self.memory, self.gpu, self._warn)
        self._settings.install()
        _replace_storage_methods(self.memory)
        _replace_text(self._functions.described)
        _make_parameters_fake(self.memory)
        _note_moved_modules(self.memory)
        _replace_around_training(self._warn)
        _refuse_flex_attention(self._assumptions)
        _ease_checkpointing()
        distributed.install(self._told, self.memory)
        cuda_api.install_versions(self.memory.gpu)
        self._recurrent.install()
        Autocast(self._casts).install()
        cuda_results.register()
        self._redirect_files()
        torch.backends.mha.set_fastpath_enabled(False)
        # transformers loads weights in threads of its own, where no mode of this thread is asked.
        os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")
        self._enter()
        _follow_threads(self._enter)

    def _enter(self) -> None:
        """Let the modes see every call of this thread from now on."""
        self._operators.__enter__()
        self._functions.__enter__()

    def _redirect_files(self) -> None:
        scratch = self._scratch

        def read(path: Any) -> Any:
            return path if scratch is None else scratch.seen(path)

        def written(path: Any) -> Any:
            return path if scratch is None else scratch.target(path, copy=False)

        checkpoints.install(self.memory, read, written)
        safetensors.install(read, written)
        if scratch is not None:
            Files(scratch).install()

    def facts(self) -> dict[str, Any]:
        """Return the header fields that the program gave rise to."""
        return self._told.facts() | self._settings.facts() | convolution_facts() | self._kernels.convolutions.facts()

    def assumptions(self) -> list[tuple[str, str]]:
        """Return what was taken for granted because there is no data: slugs and sentences."""
        found = list(self._assumptions.notes())
        if self._scratch is not None and self._scratch.num_files:
            message = f"files that the program wrote went to a scratch folder and are gone: {self._scratch.num_files}"
            found.append(("predicted-values", message))
        return found


def _follow_threads(enter: Callable[[], None]) -> None:
    """Enter the modes in each thread that the program starts as well: modes hold for one thread."""
    thread: Any = threading.Thread
    start = thread.start

    def started(self: Any) -> None:
        run = self.run

        def within() -> None:
            enter()
            run()

        self.run = within
        start(self)

    thread.start = started


def _leave_functions_of_python_alone() -> None:
    """Keep torch's own Python functions from being handed to the mode whole, which would then not see inside them."""
    names = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    originals = {getattr(torch.overrides, name) for name in names}

    def no(*_args: Any, **_kwargs: Any) -> bool:
        return False

    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] != "torch":
            continue
        for name in names:
            if vars(module).get(name) in originals:
                setattr(module, name, no)


def _replace_storage_methods(memory: FakeMemory) -> None:
    storage: Any = torch.UntypedStorage
    address, resize = storage.data_ptr, storage.resize_

    def data_ptr(self: Any) -> int:
        return memory.address_of(self) if self.device.type == "meta" else int(address(self))

    def resize_(self: Any, size: int) -> Any:
        out = resize(self, size)
        if self.device.type == "meta":
            memory.resized(self)
        return out

    storage.data_ptr, storage.resize_ = data_ptr, resize_


def _replace_text(described: Callable[[Any], str]) -> None:
    """Print a fake tensor without its values. In Python, `Tensor.__repr__` asks no mode."""
    tensor: Any = torch.Tensor
    text = tensor.__repr__

    def represent(self: Any, **options: Any) -> str:
        with torch._C.DisableTorchFunction():
            is_fake = type(self) in (torch.Tensor, torch.nn.Parameter) and self.is_meta
            return described(self) if is_fake else str(text(self, **options))

    tensor.__repr__ = represent


def _make_parameters_fake(memory: FakeMemory) -> None:
    """Make parameters without data from birth: a model that is built on the host takes no memory there."""
    parameter: Any = torch.nn.Parameter
    new = parameter.__new__

    def make(cls: Any, data: Any = None, requires_grad: bool = True) -> Any:
        if _is_real(data):
            before, memory.forced_kind = memory.forced_kind, HOST
            try:
                data = torch.empty_strided(data.shape, data.stride(), dtype=data.dtype, device="meta")
            finally:
                memory.forced_kind = before
        return new(cls, data, requires_grad)

    parameter.__new__ = make


def _note_moved_modules(memory: FakeMemory) -> None:
    """Keep a module that is moved to the host without data, so that its parameters and their gradients stay alike."""
    module: Any = torch.nn.Module
    apply = module._apply

    def moved(self: Any, *args: Any, **kwargs: Any) -> Any:
        before, memory.moves_module = memory.moves_module, True
        try:
            return apply(self, *args, **kwargs)
        finally:
            memory.moves_module = before

    module._apply = moved


def _is_real(data: Any) -> bool:
    is_plain = type(data) is torch.Tensor and data.layout is torch.strided
    return is_plain and data.untyped_storage().device.type == "cpu"


def _noted(function: Callable[..., Any], note: Callable[[], None]) -> Callable[..., Any]:
    """Return a function that notes its calls: libraries decorate many when they are imported that nobody calls."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        note()
        return function(*args, **kwargs)

    return run


def _replace_around_training(warn: Warn) -> None:
    """Replace what decides by values or starts machinery that a fake device does not have."""
    scaler: Any = torch.amp.GradScaler

    def step(_self: Any, optimizer: Any, _state: Any, *args: Any, **kwargs: Any) -> Any:
        return optimizer.step(*args, **kwargs)

    scaler._maybe_opt_step = step

    def note() -> None:
        warn("predicted-eager", "torch.compile is not predicted: the program ran as if it were not compiled")

    def run_eagerly(model: Any = None, *_args: Any, **_kwargs: Any) -> Any:
        if model is None:
            return run_eagerly
        if not isinstance(model, torch.nn.Module):
            return _noted(model, note) if callable(model) else model
        note()
        # As an attribute that is no submodule: the state of the module stays as it is.
        vars(model)["_orig_mod"] = model
        return model

    module: Any = torch
    module.compile = run_eagerly
    modules: Any = torch.nn.Module
    modules.compile = lambda self, *_args, **_kwargs: None
    parallel: Any = torch.nn.DataParallel
    parallel.forward = lambda self, *args, **kwargs: self.module(*_onto_gpu(args), **_onto_gpu(kwargs))
    profiler: Any = torch.autograd.profiler.profile
    start = profiler.__init__

    def on_host(self: Any, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **{**kwargs, "use_device": None, "use_cuda": False})

    profiler.__init__ = on_host
    loader: Any = torch.utils.data.DataLoader
    init = loader.__init__

    def without_pinning(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs["pin_memory"] = False
        init(self, *args, **kwargs)

    loader.__init__ = without_pinning


def _onto_gpu(value: Any) -> Any:
    """Return what `DataParallel` gives its only replica: every tensor on the GPU."""
    if isinstance(value, torch.Tensor):
        return value.to("cuda")
    if isinstance(value, dict):
        return {key: _onto_gpu(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_onto_gpu(one) for one in value)
    return value


def _refuse_flex_attention(assumptions: Assumptions) -> None:
    """End the program where attention is a kernel that Triton makes, and not written out: its memory is another."""
    operator: Any = torch._ops.HigherOrderOperator
    call = operator.__call__

    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.name() == "flex_attention":
            assumptions.refuse(
                "flex_attention is compiled by Triton, which is not followed without data; --engine driverless does"
            )
        return call(self, *args, **kwargs)

    operator.__call__ = checked


def _ease_checkpointing() -> None:
    """Compare recomputed tensors by what they are to C++: when they were saved, the device was shown as C++ has it."""
    checks = getattr(sys.modules.get("torch.utils.checkpoint"), "_allowed_determinism_checks_to_fns", {})
    describe = checks.get("default")
    if describe is not None:

        def described(tensor: Any) -> Any:
            with torch._C.DisableTorchFunction():
                return describe(tensor)

        checks["default"] = described
