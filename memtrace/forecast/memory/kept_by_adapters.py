"""What autograd keeps of a frozen model with low-rank adapters, from what it keeps of one that is trained whole.

In: terms of a layer or of the head. Out: the same terms, changed. A frozen matrix gives a gradient to its input alone,
which needs no more than the matrix: its own input is kept only where an adapter reads it. A norm that is written out
keeps no normalized values, which only the gradient of its weight needs.

Source: PEFT `lora.Linear.forward`: `base(x) + B(A(x.to(A)))·scaling`. `A` keeps its input in its own type, a copy for
each adapter where that is another type, and `B` the output of `A`.
"""

from __future__ import annotations

from memtrace.forecast.memory.formulas import Size
from memtrace.forecast.memory.kept_by_kernels import SAVED_BY_ACTIVATION, Kernels
from memtrace.forecast.memory.layout import Run
from memtrace.forecast.model.adapters import Adapter, adapted
from memtrace.forecast.model.spec import ModelSpec

Terms = dict[str, Size]


def with_adapters(terms: Terms, spec: ModelSpec, run: Run, kernels: Kernels, tokens: Size) -> Terms:
    """Return the terms of a dense layer or of the head with the run's adapters; without any, as they are."""
    if run.adapter is None:
        return terms
    changed = dict(terms)
    per_norm = tokens * spec.hidden
    if _is_written_out(spec, kernels, run):
        for name, elements in (("norms: inputs", spec.norms_per_layer * per_norm), ("final norm", per_norm)):
            if name in changed:
                changed[name] -= elements * (kernels.norm_input - 4)
        if "norms: queries and keys" in changed:
            changed["norms: queries and keys"] = 4 * tokens * (spec.query_width + spec.kv_width)
    changed.pop("head: input", None)
    return (
        changed | _inputs(changed, spec, run, run.adapter, kernels, tokens) if "attention: input" in terms else changed
    )


def _is_written_out(spec: ModelSpec, kernels: Kernels, run: Run) -> bool:
    return spec.norm == "rms" and kernels.norm_input > run.precision.residual_bytes


def _inputs(terms: Terms, spec: ModelSpec, run: Run, adapter: Adapter, kernels: Kernels, tokens: Size) -> Terms:
    """Return the inputs of a layer's matrices as adapters keep them, and what is between `A` and `B`."""
    compute, is_float32 = run.precision.compute_bytes, run.precision.master_bytes > 0
    width = 4 if is_float32 else compute
    names = [one.name.removesuffix(".weight") for one in adapted(spec, adapter)]
    reading = {
        "attention: input": sum(one.startswith("attention.") and one != "attention.out" for one in names),
        "MLP: input": sum(one in ("mlp.gate", "mlp.up", "mlp.gate up") for one in names),
        "attention: output": names.count("attention.out"),
        "MLP: input of the down projection": names.count("mlp.down"),
    }
    elements = dict.fromkeys(("attention: input", "MLP: input"), tokens * spec.hidden)
    elements |= {"attention: output": tokens * spec.query_width}
    elements |= {"MLP: input of the down projection": tokens * spec.ffn}
    copied = is_float32 or run.precision.is_autocast
    found: Terms = {
        name: elements[name] * width * (number if copied else min(number, 1)) for name, number in reading.items()
    }
    if spec.is_parallel and spec.norms_per_layer == 1 and not copied and found["attention: input"]:
        # Attention and MLP read one tensor.
        del found["MLP: input"]
    if not kernels.keeps_weights and not kernels.copies_output:
        # The kernel keeps what it returned; an adapter reads it as it is, or a copy in its own type.
        cast = found["attention: output"] if copied else 0
        found["attention: output"] = terms["attention: output"] + cast
    if not spec.gated and not SAVED_BY_ACTIVATION.get(spec.activation, 1):
        # Its function keeps its result, whoever reads it.
        cast = found["MLP: input of the down projection"] if copied else 0
        found["MLP: input of the down projection"] = terms["MLP: input of the down projection"] + cast
    found["adapters: between A and B"] = tokens * adapter.rank * width * len(names)
    return found
