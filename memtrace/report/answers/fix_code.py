"""The code to write for a set of changes, for those who edit their program. In: `Changes`. Out: lines of Python."""

from __future__ import annotations

import re
from collections.abc import Sequence

from memtrace.schema.changes import ALLOCATOR_VARIABLE, Changes

_RECOMPUTE = """\
# once, after the model is made
def recompute_modules(model, names):
    from torch.utils.checkpoint import checkpoint

    def recompute(module):
        forward = module.forward
        module.forward = lambda *args, **kwargs: checkpoint(forward, *args, use_reentrant=False, **kwargs)

    for name, module in model.named_modules():
        if name in names:
            recompute(module)

recompute_modules({model}, {names})
"""
_RECOMPUTE_IN_CONTEXTS = """\
# once, after the model is made
def {function}(model, names{parameters}):
{imports}
{definitions}
    def recompute(module):
        forward = module.forward
{contexts}        module.forward = lambda *args, **kwargs: checkpoint(
            forward, *args, use_reentrant=False, context_fn=contexts, **kwargs
        )

    for name, module in model.named_modules():
        if name in names:
            recompute(module)

{calls}
"""
_STATISTICS = """
    @contextlib.contextmanager
    def statistics_stay(module):
        norms = [one for one in module.modules() if getattr(one, "track_running_stats", False)]
        held = [(one, name, buffer) for one in norms for name, buffer in one.named_buffers(recurse=False)]
        for one, name, buffer in held:
            setattr(one, name, buffer.clone())
        try:
            yield
        finally:
            for one, name, buffer in held:
                setattr(one, name, buffer)
"""
_POLICY = """
    def policy(context, operator, *args, **kwargs):
        # As in aten.mm.default: the last part is the overload.
        is_kept = str(operator).rpartition(".")[0] in kept
        return CheckpointPolicy.MUST_SAVE if is_kept else CheckpointPolicy.PREFER_RECOMPUTE
"""
_CONTEXTLIB = "    import contextlib"
_CHECKPOINT = "    from torch.utils.checkpoint import checkpoint"
_CHECKPOINT_BUT = (
    "    from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts"
)
_STATISTICS_CONTEXTS = """\
        # The second forward does not move the statistics of batch norms again.
        contexts = lambda: (contextlib.nullcontext(), statistics_stay(module))
"""
_POLICY_CONTEXTS = """\
        # What these operators give back is kept; all else is computed again.
        contexts = lambda: create_selective_checkpoint_contexts(policy)
"""
_BOTH_CONTEXTS = """\
        # What these operators give back is kept; the second forward does not move statistics of batch norms again.
        @contextlib.contextmanager
        def both(policy_context):
            with statistics_stay(module), policy_context:
                yield

        def contexts():
            first, again = create_selective_checkpoint_contexts(policy)
            return first, both(again)

"""
_OFFLOAD = """\
# once, after the model is made
def offload_modules(model, names):
    import torch

    def offload(module):
        forward = module.forward
        def run(*args, **kwargs):
            with torch.autograd.graph.save_on_cpu(pin_memory=True):
                return forward(*args, **kwargs)
        module.forward = run

    for name, module in model.named_modules():
        if name in names:
            offload(module)

offload_modules({model}, {names})
"""
_CHUNK_LOSS = """\
# once, before the first loss
def take_losses_by_parts():
    import torch

    class LossByParts(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits, index, precision):
            ctx.save_for_backward(logits, index)
            ctx.rows, ctx.precision = -(-len(logits) // 16), precision
            parts = zip(logits.split(ctx.rows), index.split(ctx.rows))
            return torch.cat([part.to(precision).log_softmax(1).gather(1, at) for part, at in parts])

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, above):
            logits, index = ctx.saved_tensors
            out = torch.empty_like(logits)
            for part, at, gradient, into in zip(*(one.split(ctx.rows) for one in (logits, index, above, out))):
                logs = part.to(ctx.precision).log_softmax(1)
                below = torch.zeros_like(logs).scatter_(1, at, gradient)
                into.copy_(torch._log_softmax_backward_data(below, logs, 1, ctx.precision))
            return out, None, None

    whole_loss = torch.nn.functional.cross_entropy

    def cross_entropy(input, target, *args, ignore_index=-100, reduction="mean", **kwargs):
        if args or kwargs or not torch.is_grad_enabled() or target.dim() != input.dim() - 1 or len(input) < 2:
            return whole_loss(input, target, *args, ignore_index=ignore_index, reduction=reduction, **kwargs)
        ignored = target == ignore_index
        # Under autocast the loss is computed in another precision than the logits.
        with torch.no_grad():
            precision = whole_loss(input[:1], target[:1], reduction="sum").dtype
        picked = LossByParts.apply(input, target.masked_fill(ignored, 0).unsqueeze(1), precision)
        target = torch.zeros_like(target).masked_fill(ignored, -100)
        return torch.nn.functional.nll_loss(picked, target, reduction=reduction)

    torch.nn.functional.cross_entropy = cross_entropy

take_losses_by_parts()
"""
_STEP_IN_BACKWARD = """\
# once, after the optimizer is made: its step() then finds no gradients
def step_in_backward(optimizer):
    step = getattr(type(optimizer).step, "__wrapped__", type(optimizer).step)
    index_of = {{id(one): at for at, group in enumerate(optimizer.param_groups) for one in group["params"]}}
    def step_one(parameter):
        groups = optimizer.param_groups
        optimizer.param_groups = [{{**groups[index_of[id(parameter)]], "params": [parameter]}}]
        step(optimizer)
        optimizer.param_groups = groups
        parameter.grad = None
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(step_one)

step_in_backward({optimizer})
"""


def environment_of(changes: Changes) -> dict[str, str]:
    """Return the variables to set."""
    return {} if changes.allocator is None else {ALLOCATOR_VARIABLE: changes.allocator}


def code_of(changes: Changes, *, has_statistics: bool = False) -> str:
    """Return what to write into the program; empty where the environment and the command are all.

    With `has_statistics` there are batch norms in it, which must not be moved twice.
    """
    parts = []
    if changes.optimizer is not None:
        parts.append(f"# where the optimizer is made\noptimizer = …(model.parameters(), …, {setting_of(changes)})\n")
    if changes.sharded_states:
        parts.append(
            "# where the optimizer is made; before its state_dict(), every rank calls consolidate_state_dict(to=0)\n"
            "from torch.distributed.optim import ZeroRedundancyOptimizer\n"
            "optimizer = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=…, …)\n"
        )
    if changes.small_states:
        parts.append(
            "# where Adam or AdamW is made (pip install bitsandbytes)\nimport bitsandbytes\n"
            "optimizer = bitsandbytes.optim.AdamW8bit(model.parameters(), …)\n"
        )
    if changes.set_to_none:
        parts.append("# where gradients are cleared\noptimizer.zero_grad(set_to_none=True)\n")
    if changes.autocast is not None:
        parts.append(
            "# around the forward, with the device that the model is on\n"
            f"with torch.autocast(next(model.parameters()).device.type, dtype=torch.{changes.autocast}):\n"
            "    loss = model(…)\n"
        )
    parts += before_optimizer(changes, "model", has_statistics=has_statistics)
    parts += after_optimizer(changes, "optimizer")
    return "\n".join(parts)


def setting_of(changes: Changes) -> str:
    """Return the argument that an optimizer is made with."""
    return "fused=True" if changes.optimizer == "fused" else "foreach=False"


def before_optimizer(changes: Changes, model: str, *, has_statistics: bool) -> list[str]:
    """Return the pieces of code that need the model, by the name of its variable."""
    parts = []
    if changes.no_cache:
        parts.append(f"# once, after the model is made\n{model}.config.use_cache = False\n")
    if changes.chunk_loss:
        parts.append(_CHUNK_LOSS)
    parts += _recompute(changes, model, has_statistics=has_statistics)
    if changes.offload:
        parts.append(_OFFLOAD.format(names=names_of(changes.offload), model=model))
    return parts


def _recompute(changes: Changes, model: str, *, has_statistics: bool) -> list[str]:
    """Return the pieces that compute modules again: those of which nothing is kept, and the others."""
    kept: dict[str, list[str]] = {}
    for owner, operator in changes.saved_by_module():
        kept.setdefault(owner, []).append(operator)
    groups: dict[tuple[str, ...], list[str]] = {}
    for owner, operators in kept.items():
        groups.setdefault(tuple(sorted(operators)), []).append(owner)
    parts = []
    whole = [name for name in changes.recompute if name not in kept]
    if whole and has_statistics:
        parts.append(
            _RECOMPUTE_IN_CONTEXTS.format(
                function="recompute_modules",
                parameters="",
                imports=f"{_CONTEXTLIB}\n{_CHECKPOINT}",
                definitions=_STATISTICS,
                contexts=_STATISTICS_CONTEXTS,
                calls=f"recompute_modules({model}, {names_of(whole)})",
            )
        )
    elif whole:
        parts.append(_RECOMPUTE.format(names=names_of(whole), model=model))
    if groups:
        calls = [
            f"recompute_but({model}, {names_of(owners)}, kept={{{', '.join(map(_quoted, operators))}}})"
            for operators, owners in groups.items()
        ]
        parts.append(
            _RECOMPUTE_IN_CONTEXTS.format(
                function="recompute_but",
                parameters=", kept",
                imports=f"{_CONTEXTLIB}\n{_CHECKPOINT_BUT}" if has_statistics else _CHECKPOINT_BUT,
                definitions=_POLICY + (_STATISTICS if has_statistics else ""),
                contexts=_BOTH_CONTEXTS if has_statistics else _POLICY_CONTEXTS,
                calls="\n".join(calls),
            )
        )
    return parts


def _quoted(text: str) -> str:
    return f'"{text}"'


def after_optimizer(changes: Changes, optimizer: str) -> list[str]:
    """Return the pieces of code that need the optimizer, by the name of its variable."""
    return [_STEP_IN_BACKWARD.format(optimizer=optimizer)] if changes.step_in_backward else []


def names_of(names: Sequence[str]) -> str:
    """Return a set of paths as Python, numbered ones as ranges.

    >>> names_of(["blocks.0", "blocks.1", "blocks.2", "head"])
    '{*(f"blocks.{i}" for i in range(0, 3)), "head"}'
    >>> names_of(["blocks.0.mlp", "blocks.2.mlp"])
    '{"blocks.0.mlp", "blocks.2.mlp"}'
    """
    groups: dict[tuple[str, str], list[int]] = {}
    plain: list[str] = []
    for name in names:
        # A number of the path with a dot on each side, or the end: the first of them counts the blocks.
        found = re.fullmatch(r"((?:[^.\d][^.]*\.)+)(\d+)((?:\..*)?)", name)
        if found is None:
            plain.append(f'"{name}"')
        else:
            groups.setdefault((found[1], found[3]), []).append(int(found[2]))
    parts: list[str] = []
    for (before, after), numbers in groups.items():
        parts += [_range(before, first, last, after) for first, last in _runs(sorted(numbers))]
    return "{" + ", ".join([*parts, *plain]) + "}"


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


def _range(before: str, first: int, last: int, after: str) -> str:
    if last - first < 2:
        return ", ".join(f'"{before}{number}{after}"' for number in range(first, last + 1))
    return f'*(f"{before}{{i}}{after}" for i in range({first}, {last + 1}))'
