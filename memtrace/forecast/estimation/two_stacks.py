"""What an estimate of an encoder-decoder refuses, and what it says beside its numbers.

In: `ModelSpec`, `Run`, `Layout`. Out: an error, sentences, or the terms of an encoder's layer.
"""

from __future__ import annotations

from memtrace.errors import MemtraceError
from memtrace.forecast.memory.activations import activation_terms
from memtrace.forecast.memory.kept_by_kernels import T5_FAMILY
from memtrace.forecast.memory.kept_by_two_stacks import encoder_run
from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.model.spec import ModelSpec
from memtrace.units import format_bytes

_PREDICT = "memtrace predict runs the program itself, without a GPU"


def check_two_stacks(spec: ModelSpec, run: Run, layout: Layout) -> None:
    """Refuse what the formulas of an encoder and a decoder do not describe.

    Raises:
        MemtraceError: the run is such a one, or gives a model of one stack two lengths.
    """
    if spec.encoder is None:
        if run.source_sequence is not None:
            hint = "--sequence alone is how long its sequences are"
            raise MemtraceError(f"{spec.name} has no encoder, so no target sequence of its own", hint=hint)
        return
    divided = [name for name in ("tp", "pp", "cp", "ep") if getattr(layout, name) > 1]
    if divided:
        raise MemtraceError(
            f"{', '.join(divided)} of an encoder and a decoder is not estimated",
            hint=f"--dp and --zero are; {_PREDICT}",
        )
    if run.adapter is not None:
        raise MemtraceError("adapters of an encoder and a decoder are not estimated", hint=_PREDICT)
    if spec.architecture in T5_FAMILY and run.attention == "flash":
        hint = "--attention sdpa, or explicit as transformers before 5 writes it out"
        raise MemtraceError(
            f"{spec.architecture} adds learned scores to attention, which flash kernels lack", hint=hint
        )


def encoder_terms(spec: ModelSpec, run: Run, layout: Layout) -> dict[str, int]:
    """Return what one layer of the encoder keeps, by name; empty without an encoder."""
    if spec.encoder is None:
        return {}
    terms = activation_terms(spec.encoder, encoder_run(run), layout).dense_layer
    return {f"encoder, {name}": int(size) for name, size in terms.items() if size}


def about_two_stacks(spec: ModelSpec, run: Run, padding: int) -> list[str]:
    """Return what was assumed of an encoder and a decoder; `padding` is what a mask of padding would need more."""
    if spec.encoder is None:
        return []
    more = f"; a mask of padding needs {format_bytes(padding)} more, which the range holds" if padding else ""
    found = [f"The encoder reads sequences of {run.source:,} tokens, the decoder of {run.sequence:,}, all full{more}."]
    if spec.architecture in T5_FAMILY:
        matrix = f"a matrix of {spec.vocabulary:,} by {spec.hidden:,}"
        if spec.tied:
            found.append(
                f"The head shares the embedding's matrix. Published checkpoints of T5 v1.1, Flan, mT5 and umT5 have "
                f"{matrix} more: the configuration then says tie_word_embeddings false."
            )
        else:
            found.append(
                f"The head has {matrix} of its own, as published checkpoints of this configuration do; made from the "
                "configuration alone, transformers from 5 on shares the embedding's."
            )
    return found
