"""What kernels save, fact by fact: bytes an element by precision, backend and architecture."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memtrace.forecast.memory.kept_by_kernels import PLAIN, Kernels, kernels_of
from memtrace.forecast.model.precision import PRECISIONS
from tests.forecast.tiny_model import RUN, TINY

WRITTEN_OUT = {"attention": "explicit", "dropout": 0.1}


def kernels(architecture: str = "llama", *, norm: str = "rms", **settings: object) -> Kernels:
    run = dict(settings)
    spec = {name: run.pop(name) for name in ("activation", "gated", "has_fused_qkv", "has_fused_gate") if name in run}
    run["precision"] = PRECISIONS[str(run.get("precision", "bf16-mixed"))]
    return kernels_of(
        replace(TINY, architecture=architecture, norm=norm, **spec),  # type: ignore[arg-type]
        replace(RUN, **run),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("architecture", "norm", "input_bytes", "statistics"),
    [
        # A layer norm keeps its input of 2 bytes; mean and deviation, 4 bytes each.
        ("gpt2", "layer", 2, 8),
        (PLAIN, "rms", 2, 4),
        # Written out, in float32: the input, and the normalized values, of Gemma in float32 too.
        ("llama", "rms", 4 + 2, 4),
        ("gemma", "rms", 4 + 4, 4),
    ],
)
def test_norms(architecture: str, norm: str, input_bytes: int, statistics: int) -> None:
    found = kernels(architecture, norm=norm)
    assert (found.norm_input, found.norm_statistics) == (input_bytes, statistics)


@pytest.mark.parametrize(
    ("activation", "tensors"), [("relu", 0), ("tanh", 0), ("silu", 1), ("gelu", 1), ("gelu_new", 4), ("gelu_fast", 4)]
)
def test_functions_of_the_mlp(activation: str, tensors: int) -> None:
    assert kernels(activation=activation).activation == 2 * tensors
    assert kernels(activation=activation, precision="fp32").activation == 4 * tensors


def test_under_autocast_a_gpu_takes_powers_in_float32() -> None:
    assert kernels(activation="gelu_new", precision="autocast").activation == 3 * 4 + 2
    assert kernels(activation="gelu_new", precision="autocast", backend="cpu").activation == 4 * 2


@pytest.mark.parametrize(
    ("architecture", "precision", "backend", "softmax"),
    [
        ("llama", "bf16-mixed", "cuda", 4),
        ("gpt2", "bf16-mixed", "cuda", 2),
        ("gpt2", "fp32", "cuda", 4),
        # Autocast of CUDA has the softmax in float32, and so has what adds a float32 mask.
        (PLAIN, "autocast", "cuda", 4),
        (PLAIN, "autocast", "cpu", 2),
        ("gpt2", "autocast", "cpu", 4),
        ("bert", "autocast", "cpu", 2),
    ],
)
def test_written_out_softmax(architecture: str, precision: str, backend: str, softmax: int) -> None:
    found = kernels(architecture, precision=precision, backend=backend, attention="explicit", dropout=0.0)
    assert (found.softmax, found.keeps_weights, found.keeps_log_sum_exp) == (softmax, True, False)
    # A copy in the type of the products where they are 2 bytes and the softmax is not.
    assert found.softmax_cast == (2 if softmax == 4 and precision != "fp32" else 0)


def test_dropout_of_attention_weights() -> None:
    assert (kernels(**WRITTEN_OUT).attention_mask, kernels(**WRITTEN_OUT).dropped) == (1, 2)
    without = kernels(attention="explicit", dropout=0.0)
    assert (without.attention_mask, without.dropped) == (0, 0)
    # The CPU's mask has the type of what is dropped.
    on_cpu = kernels("gpt2", **WRITTEN_OUT, backend="cpu", precision="fp32")
    assert (on_cpu.attention_mask, on_cpu.hidden_mask) == (4, 4)
    assert kernels(dropout=0.1).hidden_mask == 1


def test_the_cpu_has_no_fused_attention_with_dropout() -> None:
    found = kernels(attention="sdpa", dropout=0.1, backend="cpu")
    assert (found.keeps_weights, found.softmax, found.query, found.value) == (True, 4, 4, 4)
    for settings in ({"dropout": 0.0, "backend": "cpu"}, {"dropout": 0.1}):
        assert kernels(attention="sdpa", **settings).keeps_weights is False


def test_autocast_casts_the_input_of_each_matrix() -> None:
    found = kernels(precision="autocast", gated=True)
    assert (found.qkv_inputs, found.gate_inputs) == (3, 2)
    fused = kernels(precision="autocast", gated=True, has_fused_qkv=True, has_fused_gate=True)
    assert (fused.qkv_inputs, fused.gate_inputs) == (1, 1)
    plain = kernels(gated=True)
    assert (plain.qkv_inputs, plain.gate_inputs) == (1, 1)


def test_partly_rotated_heads_are_joined_and_copied() -> None:
    found = [kernels(name, has_fused_qkv=True) for name in ("gpt_neox", "phi", "llama")]
    assert [one.copies_output for one in found] == [one.keeps_fused_qkv for one in found] == [True, True, False]
    assert kernels("phi").keeps_fused_qkv is False
    assert kernels("phi", attention="explicit").copies_output is False


def test_what_only_some_architectures_keep() -> None:
    assert [kernels(name).query for name in ("gptj", "llama")] == [4, 2]
    assert [kernels(name, norm="layer").log_probabilities for name in ("bert", "gpt2")] == [2, 4]
    assert [kernels(name, attention="explicit").causal_mask for name in (PLAIN, "gpt2")] == [1, 0]
    assert kernels(precision="fp8-mixed").projection_input == 1
