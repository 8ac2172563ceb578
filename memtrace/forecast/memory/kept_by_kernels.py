"""What kernels of one backend and code of one architecture save for backward, in bytes an element.

In: `ModelSpec` and `Run`. Out: `Kernels`, small numbers that activations.py multiplies with sizes. Each is a fact about
torch or `transformers`, found by listing what autograd saves; on the CPU tests/forecast/test_activations.py checks them
against models that run. Those of CUDA are from source code and have not been compared with a recording.
"""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.forecast.memory.layout import RECOMPUTE, Run
from memtrace.forecast.model.spec import ModelSpec

SAVED_BY_ACTIVATION = {
    "relu": 0,
    "gelu_new": 4,
    "gelu_fast": 4,
    "tanh": 0,
    "clamped_swiglu": 4,
}
"""Tensors of the MLP's width that the function saves beside its output: 1 where not listed (the input).

`relu` saves its output alone, which the next matrix saves too. `gelu_new` is five operations in Python: it keeps its
input, half of it, the tanh, and one plus the tanh. `clamped_swiglu` keeps its gate clamped, the sigmoid of that, their
product, and one plus the clamped up projection.
"""
PLAIN = "plain"
"""The architecture of a model of torch's own modules, as in samples/train_gpt.py, rather than of `transformers`."""
FLOAT32_NORM = frozenset({"gemma", "gemma2", "gemma3_text", "gpt_oss", "helium", "olmo2", "olmo3"})
"""Architectures whose RMS norm keeps the normalized values in float32 too."""
BIDIRECTIONAL = frozenset({"bert", "camembert", "roberta", "xlm-roberta"})
"""Architectures without a causal mask."""
T5_FAMILY = frozenset({"t5", "mt5", "umt5"})
"""Architectures that add learned scores to attention; their RMS norm, written out, multiplies its input as given."""
BIASED_LOGITS = frozenset({"bart", "mbart"})
"""Architectures that add a buffer to the logits, and that fill no cache where they are given labels."""
TWO_STACKS = T5_FAMILY | BIASED_LOGITS | {"m2m_100"}
"""Architectures of an encoder without a causal mask, and a decoder; their loss stays in the type of the logits."""
NO_UPCAST_SOFTMAX = BIDIRECTIONAL | TWO_STACKS | {"gpt2", "gpt_oss", "falcon", PLAIN}
"""Architectures whose written-out attention takes the softmax in the type of the scores; the others ask for float32."""
NARROW_LOSS = BIDIRECTIONAL | TWO_STACKS
"""Architectures whose loss stays in the type of the logits."""
ROTARY = frozenset(
    {"deepseek_v2", "deepseek_v3", "gemma", "gemma2", "gpt_oss", "granite", "llama", "mistral", "mixtral", "olmo2"}
    | {"cohere", "cohere2", "exaone4", "gemma3_text", "olmo", "olmo3", "seed_oss", "smollm3"}
    | {"phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "starcoder2"}
)
"""Architectures that keep one cosine and one sine for each position and element of a head."""
FUSED = frozenset({"megatron", "nanotron", "torchtitan"})
"""Frameworks whose norms are one kernel, which keeps its input in the type that it has."""
FUSED_GATE = frozenset({"megatron"})
"""Frameworks whose SwiGLU is one kernel, which keeps gate and up projection alone (`bias_swiglu_fusion`)."""
FLOAT32_SCORES = frozenset({"gpt_neo", "gptj"})
"""Architectures that turn queries and keys to float32 before they are multiplied."""
PARTIAL_ROTARY = frozenset({"glm", "glm4", "gpt_neox", "phi", "phi3", "stablelm"})
"""Architectures that join a rotated and an unrotated part of each head: the kernel's output, laid out like the joined
queries, is copied before the next matrix, and both are kept."""
ROTATED_BACK = frozenset({"cohere", "cohere2", "olmo", "olmo2", "olmo3"})
"""Architectures that cast rotated queries and keys back to the type that they had."""
ROTATION_SETS = {"gemma3_text": 2}
"""How many sets of cosines and sines there are, where layers of the whole and of a window differ."""
OWN_ROTATIONS = {"ernie4_5": 4, "glm": 0, "glm4": 0, "helium": 0}
"""Architectures each of whose layers makes cosines and sines of its own, and bytes an element; 0: as queries have."""
NORMED_OUTPUTS = {"exaone4": 2, "glm4": 2}
"""How many of a layer's norms read what attention or MLP returned, in the type of products."""
LAYER_NORM_BYTES = {"cohere": 12, "cohere2": 12, "olmo": 4}
"""Of LayerNorms that are written out, or given a float32 copy: what they keep of an element of their input."""
UNROTATED = frozenset({"gpt2", "gpt_bigcode"})
"""Architectures whose fused matrix is read through views alone: the view of the queries keeps all of it alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """Bytes an element, or numbers of copies, of what is saved."""

    norm_input: int
    """Of a norm's input, and of the normalized values where it saves them."""
    norm_statistics: int
    """A token and norm: mean and reciprocal deviation, or the latter alone."""
    projection_input: int
    """Of one copy of a linear layer's input."""
    qkv_inputs: int
    """Copies of the input of queries, keys and values: under autocast each matrix casts its own, two or three."""
    gate_inputs: int
    """The same for gate and up projection."""
    hidden_mask: int
    """Of the mask of a dropout after attention or MLP."""
    softmax: int
    """Of attention weights as the softmax returns them."""
    softmax_cast: int
    """Of their copy in the type of the products, where that differs and no dropout stands between."""
    attention_mask: int
    """Of the mask of the dropout of attention weights."""
    dropped: int
    """Of attention weights after dropout."""
    query: int
    """Of queries and keys."""
    value: int
    keeps_fused_qkv: bool
    """Whether the values are a view of what the fused matrix made, and keep all of it alive beside rotated copies."""
    cached_kv: int
    """Of a key and a value that the cache copied, beside what the kernels keep; both together."""
    copies_output: bool
    """Whether the output of the attention kernel and the input of the next matrix are two tensors."""
    qk_norm_input: int
    """Of the input of a norm of queries and keys, and of the normalized values."""
    logits: int
    """Of the logits; 0 where the loss makes them a part of the tokens at a time, and again in backward."""
    log_probabilities: int
    """Of the loss's log-softmax; 0 where it works in place of the logits, or on parts of them."""
    expands_kv: bool
    """Whether keys and values are repeated for all query heads."""
    keeps_weights: bool
    """Whether attention weights are kept at all."""
    causal_mask: int
    """Of one pair of tokens in the mask that `masked_fill` keeps; `transformers` adds its mask instead."""
    keeps_log_sum_exp: bool
    gate: int
    """Of what the function of a gate returned."""
    activation: int
    """Of everything the MLP's function saves, a unit of the MLP's width."""


def kernels_of(spec: ModelSpec, run: Run, *, crosses: bool = False) -> Kernels:
    """Return what this model's kernels save in this run; of a decoder `crosses` means the attention to the encoder."""
    precision, on_cpu = run.precision, run.backend == "cpu"
    compute = precision.compute_bytes
    drops_weights = dropout_of(spec.attention_dropout, run) > 0
    learns_scores = spec.position_buckets > 0 and not crosses
    # The CPU has no fused attention with dropout, or with a gradient of what is added to the scores: torch falls back
    # to operations, in float32.
    falls_back = run.attention != "explicit" and on_cpu and (drops_weights or learns_scores)
    keeps_weights = run.attention == "explicit" or falls_back
    softmax = 4 if falls_back else _softmax_bytes(spec, run, crosses=crosses)
    weights = 4 if falls_back else compute
    return Kernels(
        norm_input=_norm_bytes(spec, run, precision.residual_bytes),
        qk_norm_input=_norm_bytes(spec, run, compute),
        norm_statistics=_statistics_bytes(spec, run),
        projection_input=precision.linear_input_bytes,
        qkv_inputs=1 if spec.has_fused_qkv or not precision.is_autocast else 2 if spec.kv_rank else 3,
        gate_inputs=2 if spec.gated and not spec.has_fused_gate and precision.is_autocast else 1,
        hidden_mask=compute if on_cpu else 1,
        softmax=softmax,
        softmax_cast=weights if softmax != weights and not drops_weights else 0,
        attention_mask=_weight_mask_bytes(spec, run, softmax=softmax, weights=weights) if drops_weights else 0,
        dropped=weights if drops_weights else 0,
        query=4 if falls_back or spec.architecture in FLOAT32_SCORES else compute,
        value=4 if falls_back else compute,
        # The cache copies the values, so that nothing holds the fused matrix any more.
        keeps_fused_qkv=not keeps_weights
        and spec.has_fused_qkv
        and spec.architecture in PARTIAL_ROTARY
        and not fills_cache(spec, run),
        cached_kv=_cached_bytes(spec, run, keeps_weights=keeps_weights) if fills_cache(spec, run) else 0,
        copies_output=not keeps_weights and spec.architecture in PARTIAL_ROTARY,
        logits=0 if run.loss == "chunked" else 4 if _has_wide_logits(spec, run) else compute,
        log_probabilities=0 if run.loss in ("fused", "chunked") else loss_bytes(spec, run),
        expands_kv=keeps_weights,
        keeps_weights=keeps_weights,
        causal_mask=1 if spec.architecture == PLAIN and run.attention == "explicit" else 0,
        keeps_log_sum_exp=not keeps_weights,
        gate=4 if _is_widened(spec, run) else compute,
        activation=_activation_bytes(spec, run),
    )


def _statistics_bytes(spec: ModelSpec, run: Run) -> int:
    """Return the bytes a token of the mean and the reciprocal deviation that a norm keeps, or of the latter alone."""
    own = LAYER_NORM_BYTES.get(spec.architecture)
    if spec.norm != "layer" or (own is not None and own > 4):
        return 4
    # The CPU keeps them in the type of the norm's weight.
    is_narrow = run.backend == "cpu" and run.precision.residual_bytes < 4 and own is None
    return 2 * run.precision.residual_bytes if is_narrow else 8


def is_encoder(spec: ModelSpec) -> bool:
    """Return whether this is the encoder of an encoder-decoder, whose attention has no causal mask."""
    return spec.architecture in TWO_STACKS and spec.encoder is None


def _is_masked(spec: ModelSpec) -> bool:
    """Return whether a model of `transformers` adds a causal mask to its scores."""
    return spec.architecture != PLAIN and spec.architecture not in BIDIRECTIONAL and not is_encoder(spec)


def is_loss_wider(spec: ModelSpec, run: Run) -> bool:
    """Return whether the loss copies the logits to float32."""
    is_narrow = spec.architecture in NARROW_LOSS and not run.precision.is_autocast
    return run.precision.compute_bytes < 4 and not is_narrow and not _has_wide_logits(spec, run)


def loss_bytes(spec: ModelSpec, run: Run) -> int:
    """Return the bytes of one logit as the loss works on it."""
    return 4 if is_loss_wider(spec, run) or _has_wide_logits(spec, run) else run.precision.compute_bytes


def _has_wide_logits(spec: ModelSpec, run: Run) -> bool:
    """Return whether float32 is added to 16-bit logits (`final_logits_bias`)."""
    return run.precision.is_autocast and spec.architecture in BIASED_LOGITS


def fills_cache(spec: ModelSpec, run: Run) -> bool:
    """Return whether the forward pass fills a cache of keys and values.

    Source: `use_cache` of a configuration of `transformers` is true by default, in training as well; the layers turn it
    off where they are checkpointed (`GradientCheckpointingLayer`).
    """
    return bool(run.caches_kv) and can_cache(spec, run)


def can_cache(spec: ModelSpec, run: Run) -> bool:
    """Return whether a model could fill a cache in this run: a causal one of `transformers`, not computed again."""
    is_filled = _is_masked(spec) and spec.architecture not in BIASED_LOGITS
    return is_filled and run.framework == "none" and bool(run.recompute != RECOMPUTE.index("full"))


def _cached_bytes(spec: ModelSpec, run: Run, *, keeps_weights: bool) -> int:
    """Return the bytes of a key and a value that only the cache holds, or of the fused matrix beside its copies.

    Source: `transformers` `DynamicLayer.update` joins keys and values to what is cached (`torch.cat`), which copies
    them; attention then works on the copies. The cache lives as long as the model's output.
    """
    compute, is_autocast = run.precision.compute_bytes, run.precision.is_autocast
    if spec.architecture in TWO_STACKS:
        # The fallback keeps scaled keys; of 16-bit ones and of their values it keeps copies in float32.
        return 4 * (keeps_weights and run.attention != "explicit")
    if spec.kv_rank:
        # What is cached is compressed, and but for the rotated part what the next matrix reads.
        return 0
    if spec.architecture in UNROTATED:
        # Written-out attention copies keys and values of the fused matrix anyway.
        return 0 if keeps_weights else 2 * compute
    if spec.architecture in FLOAT32_SCORES:
        return compute * (compute < 4)
    if is_autocast and spec.architecture in (ROTARY | PARTIAL_ROTARY | {"helium"}) - ROTATED_BACK:
        # Rotated keys are float32, and the cache takes values in the type of the keys; kernels keep cast copies.
        return 2 * 4
    is_repeated = keeps_weights and spec.num_kv_heads < spec.num_heads
    return 2 * compute * is_repeated


def dropout_of(probability: float, run: Run) -> float:
    """Return the probability of a dropout in a run."""
    return probability if run.dropout is None else run.dropout


def _norm_bytes(spec: ModelSpec, run: Run, given: int) -> int:
    """Return the bytes an element of what a norm saves of its width, where its input has `given` bytes."""
    if spec.norm == "layer" or spec.architecture == PLAIN or run.framework in FUSED:
        return given if run.framework in FUSED else LAYER_NORM_BYTES.get(spec.architecture, given)
    if spec.architecture in T5_FAMILY:
        return 4 + given + (given if given < 4 else 0)
    # An RMS norm of `transformers` is written out in float32: it saves its input so, and the normalized values.
    return 4 + (4 if spec.architecture in FLOAT32_NORM else given)


def _softmax_bytes(spec: ModelSpec, run: Run, *, crosses: bool) -> int:
    """Return the bytes of one attention weight as a written-out softmax returns it."""
    precision = run.precision
    if spec.architecture not in NO_UPCAST_SOFTMAX:
        return 4
    # Learned scores are float32 under autocast as well, and are added as a mask is.
    is_masked = (_is_masked(spec) or spec.position_buckets > 0) and not crosses
    if precision.is_autocast and (run.backend == "cuda" or is_masked):
        # CUDA's autocast has softmax on its list of float32; in `transformers` a float32 mask is added to the scores.
        return 4
    return precision.compute_bytes


def _weight_mask_bytes(spec: ModelSpec, run: Run, *, softmax: int, weights: int) -> int:
    """Return the bytes of the dropout mask of one attention weight: on the CPU it has the type of what is dropped."""
    if run.backend != "cpu":
        return 1
    if spec.architecture in TWO_STACKS:
        return softmax
    is_rotary = spec.architecture not in NO_UPCAST_SOFTMAX and not spec.learned_positions
    # Under autocast rotated queries are float32, and the weights are dropped in the type of the queries.
    return 4 if run.precision.is_autocast and run.attention == "explicit" and is_rotary else weights


def inner_dropout_of(spec: ModelSpec, run: Run) -> float:
    """Return the probability of a dropout inside the MLP; what has none has none whatever is asked for."""
    return dropout_of(spec.inner_dropout, run) if spec.architecture in TWO_STACKS else 0.0


def final_dropout_of(spec: ModelSpec, run: Run) -> float:
    """Return the same of a dropout after the final norm."""
    return dropout_of(spec.final_dropout, run) if spec.architecture in T5_FAMILY else 0.0


def _is_widened(spec: ModelSpec, run: Run) -> bool:
    """Return whether the MLP's function returns float32 where products are in 16 bits."""
    return run.precision.is_autocast and run.backend == "cuda" and spec.activation == "gelu_new"


def _activation_bytes(spec: ModelSpec, run: Run) -> int:
    compute = run.precision.compute_bytes
    if spec.gated and run.framework in FUSED_GATE:
        return 0
    if _is_widened(spec, run):
        # CUDA's autocast has pow on its list of float32: the input is cast, and all that follows is float32.
        return 3 * 4 + compute
    return compute * SAVED_BY_ACTIVATION.get(spec.activation, 1)
