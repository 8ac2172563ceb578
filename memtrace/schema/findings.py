"""What a finding can be: its short names, which docs/messages.md explains, and how bad it is."""

from __future__ import annotations

SEVERITIES = ("error", "warning", "info")
"""The worst first: an error ends the run, or will; a warning is waste; info is a trade of memory for something else."""

SLUGS = (
    "oom",
    "leak",
    "fragmentation",
    "activations-in-float",
    "allocator-stall",
    "autocast-copies",
    "buckets-beside-gradients",
    "data-stall",
    "evaluation-graph",
    "evaluation-outputs",
    "expandable-segments",
    "exposed-communication",
    "flat-gradients",
    "foreach-temporaries",
    "frozen-in-float",
    "full-recomputation",
    "gradients-through-forward",
    "growing-batches",
    "kept",
    "kept-for-steps",
    "large-logits",
    "no-sync",
    "odd-batch",
    "one-backward",
    "one-fsdp-unit",
    "optimizer-state-in-float",
    "outputs-of-step-before",
    "own-sets",
    "rank-died",
    "rank-imbalance",
    "recomputation-off",
    "returned-gradients",
    "second-copy",
    "selective-recomputation",
    "several-contexts",
    "smaller-micro-batch",
    "state-on-every-rank",
    "unstepped-gradients",
    "unused-graph",
)
"""Every finding by its short name: what ends runs first, then by name."""
