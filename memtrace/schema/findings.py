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
    "data-stall",
    "expandable-segments",
    "exposed-communication",
    "foreach-temporaries",
    "full-recomputation",
    "gradients-through-forward",
    "kept",
    "large-logits",
    "no-sync",
    "optimizer-state-in-float",
    "outputs-of-step-before",
    "rank-died",
    "rank-imbalance",
    "selective-recomputation",
    "smaller-micro-batch",
    "state-on-every-rank",
)
"""Every finding by its short name: what ends runs first, then by name."""
