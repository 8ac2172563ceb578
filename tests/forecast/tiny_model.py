"""A transformer so small that its parameters are counted on paper, and a GPU whose seconds are round.

Two layers, hidden 4, two heads of 2 that share one head of keys and values, MLP 8, vocabulary 10, no biases:

    embedding  10 x 4 = 40
    a layer    norms 4 + 4, query 4 x 4 = 16, key 2 x 4 = 8, value 8, out 4 x 4 = 16, up 8 x 4 = 32, down 4 x 8 = 32:
               120 together
    head       norm 4, matrix 10 x 4 = 40: 44 together
"""

from __future__ import annotations

from memtrace.forecast.gpus import Gpu
from memtrace.forecast.memory.layout import Run
from memtrace.forecast.model.precision import PRECISIONS
from memtrace.forecast.model.spec import ModelSpec
from memtrace.forecast.step_time.speed import Speed

EMBEDDING, LAYER, HEAD = 40, 120, 44
PARAMETERS = EMBEDDING + 2 * LAYER + HEAD

TINY = ModelSpec(
    name="tiny",
    architecture="llama",
    num_layers=2,
    hidden=4,
    num_heads=2,
    num_kv_heads=1,
    head_dim=2,
    ffn=8,
    vocabulary=10,
    tied=False,
    activation="silu",
    norm="rms",
    has_norm_bias=False,
    has_qkv_bias=False,
    has_out_bias=False,
    has_mlp_bias=False,
    has_fused_qkv=False,
)
RUN = Run(micro_batch=2, sequence=8, precision=PRECISIONS["bf16-mixed"])
"""16 tokens a micro-batch: the values between two layers are 16 x 4 numbers of 2 bytes."""
TOKENS, HIDDEN_BYTES = 16, 128

TOKEN_FLOPS = 6 * (2 * LAYER + HEAD) + 12 * 2 * 4 * 8
"""Six operations a weight that multiplies (the embedding is looked up), and the scores of 8 tokens in 2 layers."""
GPU = Gpu(
    name="paper",
    memory_bytes=10**9,
    flops=2.0 * TOKENS * TOKEN_FLOPS,
    intra_bytes_s=2048.0,
    inter_bytes_s=256.0,
    gpus_per_node=4,
    memory_bytes_s=1e30,
)
HALF = Speed(compute_share=0.5, attention_share=0.25, memory_share=1.0, layer_bytes=0, bandwidth_share=0.5)
"""With it the GPU computes a micro-batch in 1 second, and its links carry 1024 and 128 bytes a second.

A fused attention kernel leaves half of the scores out, so that with half of the share it takes as long as the whole.
"""
