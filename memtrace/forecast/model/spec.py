"""What a transformer consists of: the dimensions and choices that decide its parameters and activations.

A `ModelSpec` comes from a `config.json` (model_config.py), from the name of a well-known model (presets.py), from a
number of parameters (shapes.py) or from dimensions. parameters.py counts what it describes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from memtrace.errors import MemtraceError

MAX_LAYERS = 4_000
"""Four times those of the deepest model: an estimate goes through a step layer by layer, and so many take seconds."""
MAX_DIMENSION = 2**31
"""Largest dimension that is believed: beyond it sums of bytes would leave 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A transformer as its parameters and activations depend on it. Counts are numbers of elements."""

    name: str
    """What the model is called in output."""
    architecture: str = "gpt2"
    """The `model_type` of its configuration: which code runs, so which tensors autograd keeps."""
    num_layers: int
    hidden: int
    num_heads: int
    num_kv_heads: int
    """Heads of keys and values: fewer than `num_heads` with grouped-query attention, 1 with multi-query."""
    head_dim: int
    """Of queries and keys; of values as well, unless they have a width of their own."""
    value_dim: int = 0
    """Width of a head's value where it is not `head_dim`."""
    rotated_dim: int = 0
    """Elements of a head with a cosine and a sine of their own; 0 where all of them have."""
    query_rank: int = 0
    """Width of the vector that queries are compressed to (DeepSeek); 0 where they are made at once."""
    kv_rank: int = 0
    """Width of the vector that keys and values are compressed to (latent attention); 0 without it."""
    has_sinks: bool = False
    """Whether each head learns a score that no value belongs to (gpt-oss)."""
    ffn: int
    """Inner width of a dense layer's MLP."""
    vocabulary: int
    """Rows of the embedding, padding included."""
    embedding_dim: int | None = None
    """Width of the embedding where it is not `hidden`: two projections lead in and out (OPT-350m)."""
    max_positions: int | None = None
    """Longest sequence the model is made for; `None` where it states none."""
    learned_positions: int = 0
    """Rows of a learned position embedding; 0 with rotary embeddings or ALiBi."""
    token_types: int = 0
    """Rows of a token type embedding (BERT)."""
    gated: bool = False
    """Whether the MLP has a gate beside the up projection (SwiGLU, GeGLU)."""
    activation: str = "gelu"
    """Function of the MLP, as `transformers` names it."""
    num_experts: int = 0
    """Routed experts of a mixture-of-experts layer; 0 for a dense model."""
    experts_per_token: int = 0
    expert_ffn: int = 0
    """Inner width of one routed expert."""
    shared_ffn: int = 0
    """Inner width of the shared expert; 0 without one."""
    has_expert_bias: bool = False
    """Whether router and experts have biases (gpt-oss)."""
    has_shared_gate: bool = False
    """Whether a vector decides how much of the shared expert counts."""
    num_dense_layers: int = 0
    """Layers of a mixture-of-experts model that have a plain MLP."""
    tied: bool = True
    """Whether the head shares the weight of the embedding."""
    has_head: bool = True
    num_head_biases: int = 0
    """Biases as long as the vocabulary: BERT without tied weights has two."""
    has_head_transform: bool = False
    """Whether a linear layer and a norm stand before the head (BERT)."""
    has_qkv_bias: bool = True
    has_out_bias: bool = True
    """Whether the projection after attention has a bias."""
    has_mlp_bias: bool = True
    has_fused_qkv: bool = True
    """Whether one matrix makes queries, keys and values."""
    has_fused_gate: bool = False
    """Whether one matrix makes gate and up projection."""
    norm: str = "layer"
    """layer or rms."""
    has_norm_weight: bool = True
    has_norm_bias: bool = True
    norms_per_layer: int = 2
    qk_norm: str = "none"
    """Norm of queries and keys: none, head (one weight for all heads), or full (a weight an element)."""
    caps_scores: bool = False
    """Whether scores are squeezed by a tanh before the softmax (Gemma 2)."""
    caps_logits: bool = False
    has_final_norm: bool = True
    has_embedding_norm: bool = False
    is_parallel: bool = False
    """Whether attention and MLP read the same input (GPT-NeoX, Falcon, Phi)."""
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    """Probability with which an attention weight is dropped."""
    hidden_dropout: float = 0.0
    """Probability with which an output of attention or MLP is dropped."""
    inner_dropout: float = 0.0
    """Probability with which what the MLP's function returned is dropped, before the down projection."""
    final_dropout: float = 0.0
    """The same of what the final norm returned."""
    position_buckets: int = 0
    """Rows of a table of learned scores by distance, a column a head, added to attention (T5); 0 without one."""
    has_positions_each_layer: bool = False
    """Whether each layer has such a table of its own (umT5), rather than all of a stack one."""
    encoder: ModelSpec | None = None
    """The stack of layers whose output this one attends to: this one is then the decoder, with a second attention in
    each layer. Its embedding is this one's."""
    extra_parameters: int = 0
    """Parameters beyond the listed shapes, spread over the layers; negative where the shapes have more than stated."""

    def __post_init__(self) -> None:
        """Refuse what no model can be."""
        optional = {"embedding_dim", "max_positions"}
        positive = {"num_layers", "hidden", "num_heads", "num_kv_heads", "head_dim", "vocabulary"}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "float" and not 0 <= value < 1:
                raise MemtraceError(f"{field.name} must be at least 0 and below 1, not {value!r}")
            if (value is None and field.name in optional) or field.type not in ("int", "int | None"):
                continue
            least = 1 if field.name in positive | optional else 0
            if field.name != "extra_parameters" and not least <= value < MAX_DIMENSION:
                raise MemtraceError(f"{field.name} must be at least {least} and below 2^31, not {value!r}")
        if self.num_layers > MAX_LAYERS:
            raise MemtraceError(f"num_layers must be at most {MAX_LAYERS}, not {self.num_layers!r}")
        if self.num_heads % self.num_kv_heads:
            raise MemtraceError(f"{self.num_heads} heads cannot share {self.num_kv_heads} heads of keys and values")
        if self.num_dense_layers > self.num_layers or self.experts_per_token > self.num_experts:
            raise MemtraceError("more dense layers than layers, or more experts a token than experts")

    def check_one_stack(self, what: str) -> None:
        """Refuse an encoder-decoder where formulas describe one stack of layers; `what` is what was asked for.

        Raises:
            MemtraceError: the model has an encoder.
        """
        if self.encoder is not None:
            hint = "memtrace estimate describes it on one GPU, or with --dp and --zero"
            raise MemtraceError(
                f"{what} of {self.name}: it is an encoder and a decoder, which no plan knows", hint=hint
            )

    @property
    def num_encoder_layers(self) -> int:
        """Layers of the encoder; 0 without one."""
        return 0 if self.encoder is None else self.encoder.num_layers

    @property
    def query_width(self) -> int:
        """Elements of all query heads of a token."""
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Elements of all key heads of a token."""
        return self.num_kv_heads * self.head_dim

    @property
    def value_width(self) -> int:
        """Elements of all value heads of a token."""
        return self.num_kv_heads * (self.value_dim or self.head_dim)

    @property
    def output_width(self) -> int:
        """Elements of what attention makes of a token."""
        return self.num_heads * (self.value_dim or self.head_dim)

    @property
    def num_moe_layers(self) -> int:
        """Layers whose MLP is a mixture of experts."""
        return self.num_layers - self.num_dense_layers if self.num_experts else 0
