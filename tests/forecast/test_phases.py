"""Each moment of a step, added up on paper for a model of 324 parameters: see tiny_model.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memtrace.forecast.memory.activations import activation_terms
from memtrace.forecast.memory.layout import Layout
from memtrace.forecast.memory.optimizers import OPTIMIZERS
from memtrace.forecast.memory.phases import moments
from memtrace.forecast.model.precision import PRECISIONS
from memtrace.forecast.model.spec import ModelSpec
from tests.forecast.tiny_model import EMBEDDING, HEAD, HIDDEN_BYTES, LAYER, PARAMETERS, RUN, TINY, TOKENS

LAYER_TERMS = {
    # Two norms: 4 bytes of their input and 2 of the normalized values, and a deviation a token.
    "norms: inputs": 2 * TOKENS * 4 * (4 + 2),
    "norms: statistics": 2 * TOKENS * 4,
    "attention: input": HIDDEN_BYTES,
    "attention: queries": TOKENS * 4 * 2,
    "attention: keys": TOKENS * 2 * 2,
    "attention: values": TOKENS * 2 * 2,
    "attention: output": TOKENS * 4 * 2,
    "attention: log-sum-exp": TOKENS * 2 * 4,
    "MLP: input": HIDDEN_BYTES,
    "MLP: saved by its function": TOKENS * 8 * 2,
    "MLP: input of the down projection": TOKENS * 8 * 2,
}
"""What one layer keeps for backward."""
KEPT = sum(LAYER_TERMS.values())
ROTATIONS = 2 * 8 * 2 * 2
"""Cosine and sine of eight positions and a head of two."""
LOGITS, LOG_PROBABILITIES = TOKENS * 10 * 2, TOKENS * 10 * 4
IN_HEAD = TOKENS * (4 * 6 + 4) + HIDDEN_BYTES + LOGITS + LOG_PROBABILITIES
INNER = TOKENS * 8 * 2
"""A gradient as wide as the MLP."""


def at(where: str, layout: Layout | None = None, *, is_last: bool = False, spec: ModelSpec = TINY, **more: object):  # type: ignore[no-untyped-def]
    """Return the bytes by category of one moment in the steady state."""
    run = replace(RUN, **more)  # type: ignore[arg-type]
    found = moments(spec, run, layout or Layout(), is_last=is_last, steady=True)
    (moment,) = [one for one in found if one.where == where]
    return moment.by_category


def test_the_terms_of_a_layer() -> None:
    terms = activation_terms(TINY, RUN, Layout())
    assert terms.dense_layer == LAYER_TERMS
    assert (sum(terms.embedding.values()), sum(terms.head.values())) == (ROTATIONS, IN_HEAD)
    assert (terms.layer_input, terms.attention_core, terms.moe_layer) == (HIDDEN_BYTES, 0, {})


def test_written_out_attention_keeps_a_weight_for_each_pair_of_tokens() -> None:
    terms = activation_terms(TINY, replace(RUN, attention="explicit", dropout=0.1), Layout())
    pairs = 2 * 2 * 8 * 8
    # In float32 after the softmax; with dropout a mask of a byte and 2 bytes of what is left.
    kept = {name: size for name, size in terms.dense_layer.items() if "weights" in name and size}
    assert kept == {
        "attention: weights after softmax": 4 * pairs,
        "attention: weights, dropout mask": pairs,
        "attention: weights after dropout": 2 * pairs,
    }
    assert terms.attention_core == 7 * pairs
    # Keys and values are repeated for both heads of queries.
    assert terms.dense_layer["attention: keys"] == TOKENS * 4 * 2
    assert terms.dense_layer["MLP: dropout mask"] == TOKENS * 4


def test_experts_keep_each_token_as_often_as_it_is_sent() -> None:
    mixture = replace(TINY, num_experts=4, experts_per_token=2, expert_ffn=8)
    terms = activation_terms(mixture, RUN, Layout()).moe_layer
    assert terms["experts, MLP: input"] == 2 * HIDDEN_BYTES
    assert terms["experts, MLP: input of the down projection"] == 2 * INNER
    assert terms["experts: outputs"] == 2 * HIDDEN_BYTES
    # Probabilities of four experts, before and after the softmax, in float32.
    assert terms["router: probabilities"] == 2 * TOKENS * 4 * 4


def test_tensor_parallelism_divides_heads_and_what_stands_between_them() -> None:
    terms = activation_terms(TINY, RUN, Layout(tp=2)).dense_layer
    assert terms == {name: size // 2 for name, size in LAYER_TERMS.items()}
    whole = activation_terms(TINY, RUN, Layout(tp=2, sequence_parallel=False)).dense_layer
    left_whole = {"norms: inputs", "norms: statistics", "attention: input", "MLP: input"}
    assert {name for name, size in whole.items() if size == LAYER_TERMS[name]} == left_whole


def test_forward_ends_with_all_layers_and_a_copy_of_the_logits() -> None:
    last, loss = at("in the last layer"), at("at the loss")
    assert (last["activation"], last["temporary"]) == (2 * KEPT + ROTATIONS, 0)
    assert (loss["activation"], loss["temporary"]) == (2 * KEPT + ROTATIONS + IN_HEAD, LOG_PROBABILITIES)
    assert (loss["parameter"], loss["gradient"], loss["optimizer_state"]) == (2 * 324, 0, 12 * 324)
    assert at("at the loss", precision=PRECISIONS["fp32"])["temporary"] == 0


def test_full_recomputation_keeps_inputs_and_needs_room_for_a_layer_that_runs() -> None:
    found = at("in the last layer", recompute=2)
    assert (found["activation"], found["temporary"]) == (2 * HIDDEN_BYTES + ROTATIONS, 2 * INNER + HIDDEN_BYTES)
    # All of a layer but its input is there once more when its backward begins.
    found = at("in the MLP of the last layer", recompute=2)
    assert found["activation"] == 2 * HIDDEN_BYTES + ROTATIONS + LOGITS + KEPT - HIDDEN_BYTES


@pytest.mark.parametrize(
    ("where", "activation", "temporary", "gradient"),
    [
        ("in the loss", 2 * KEPT + ROTATIONS + IN_HEAD, 2 * LOG_PROBABILITIES, 0),
        (
            "in the head",
            2 * KEPT + ROTATIONS + IN_HEAD - LOG_PROBABILITIES,
            LOG_PROBABILITIES + LOGITS + HIDDEN_BYTES,
            2 * 40,
        ),
        ("in the MLP of the last layer", 2 * KEPT + ROTATIONS + LOGITS, INNER + HIDDEN_BYTES, 2 * (40 + 32)),
        (
            "in the attention of the last layer",
            2 * KEPT + ROTATIONS + LOGITS - (2 * 16 * 4 * 6 + 128 + 128 + 2 * INNER),
            2 * HIDDEN_BYTES,
            2 * (40 + 32),
        ),
        (
            "in the MLP of the first layer",
            LOGITS + ROTATIONS + KEPT,
            INNER + HIDDEN_BYTES,
            2 * (PARAMETERS - EMBEDDING - LAYER + 32),
        ),
        ("in the embedding", LOGITS, HIDDEN_BYTES, 2 * PARAMETERS),
    ],
)
def test_backward_gives_activations_back_and_makes_gradients(
    where: str, activation: int, temporary: int, gradient: int
) -> None:
    found = at(where)
    assert (found["activation"], found["temporary"], found["gradient"]) == (activation, temporary, gradient)


def test_a_gate_makes_a_second_gradient_of_its_width() -> None:
    gated = at("in the MLP of the last layer", spec=replace(TINY, gated=True))
    assert gated["temporary"] == 2 * INNER + HIDDEN_BYTES


def test_where_gradients_are_added_up_they_stand_from_the_start() -> None:
    found = at("in the MLP of the last layer", accumulation=2)
    # One new gradient, of the down projection, stands beside the sum.
    assert (found["gradient"], found["temporary"]) == (2 * 324, INNER + HIDDEN_BYTES + 2 * 32)


def test_a_tied_head_has_its_gradient_pending() -> None:
    tied = replace(TINY, tied=True)
    found = at("in the embedding", spec=tied)
    assert (found["gradient"], found["temporary"]) == (2 * (PARAMETERS - 40), HIDDEN_BYTES + 2 * 2 * 40)
    assert at("in the head", spec=tied)["gradient"] == 0


def test_zero_3_holds_gathered_weights_in_forward_and_gradients_to_scatter_in_backward() -> None:
    layout = Layout(dp=2, zero=3)
    gathered = 2 * (2 * LAYER + EMBEDDING + HEAD)
    assert at("at the loss", layout)["communication"] == gathered
    assert at("in the loss", layout)["communication"] == gathered + 2 * (LAYER + EMBEDDING + HEAD)
    assert at("in the optimizer", layout)["communication"] == 0


def test_the_first_stage_keeps_a_micro_batch_for_each_stage() -> None:
    layout = Layout(pp=2)
    first = at("in the last layer", layout, accumulation=4)
    last = at("in the last layer", layout, is_last=True, accumulation=4)
    assert (first["activation"], last["activation"]) == (2 * KEPT + ROTATIONS, KEPT)
    # Only the last one has a head.
    assert at("at the loss", layout, accumulation=4)["temporary"] == 0
    assert at("at the loss", layout, is_last=True, accumulation=4)["temporary"] == LOG_PROBABILITIES


@pytest.mark.parametrize(
    ("settings", "temporary"),
    [
        # AdamW under foreach: a float32 tensor as large as the model.
        ({}, 4 * PARAMETERS),
        ({"is_fused": True}, 0),
        ({"optimizer": OPTIMIZERS["sgd-momentum"]}, 0),
        # On the CPU one tensor after the other, the largest of 40 elements: a root, and what is divided by it.
        ({"backend": "cpu"}, 2 * 4 * 40),
        ({"precision": PRECISIONS["fp32"]}, 4 * PARAMETERS),
    ],
)
def test_temporaries_of_the_optimizer(settings: dict[str, object], temporary: int) -> None:
    found = at("in the optimizer", **settings)
    assert found["temporary"] == temporary
    assert found["activation"] == LOGITS * (2 if settings.get("precision") else 1)
    assert found["gradient"] == (4 if settings.get("precision") else 2) * PARAMETERS


def test_states_come_with_the_first_optimizer_step() -> None:
    found = {one.where: one.by_category for one in moments(TINY, RUN, Layout(), is_last=False, steady=False)}
    made = {where for where, categories in found.items() if categories["optimizer_state"]}
    assert made == {"in the optimizer"}
