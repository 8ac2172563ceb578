"""What a change is called where there is room for four words, and what it costs where there is room for two."""

from __future__ import annotations

from memtrace.analysis.results.report import Finding

_NAMES = {
    "kept": ("let go of what is kept", "none"),
    "leak": ("let go of what piles up", "none"),
    "fragmentation": ("keep sizes of blocks alike", "varies"),
    "activations-in-float": ("autocast to bfloat16", "rounding"),
    "allocator-stall": ("fewer device mallocs", "none"),
    "autocast-copies": ("autocast per forward", "none"),
    "buckets-beside-gradients": ("gradient_as_bucket_view", "none"),
    "data-stall": ("load data ahead", "host memory"),
    "expandable-segments": ("expandable segments", "none"),
    "evaluation-graph": ("evaluate under no_grad()", "none"),
    "evaluation-outputs": ("keep outputs on the CPU", "a copy"),
    "exposed-communication": ("overlap communication", "none"),
    "flat-gradients": ("reduce gradients in place", "none"),
    "foreach-temporaries": ("optimizer without foreach", "launches"),
    "frozen-in-float": ("frozen part in 16 bits", "rounding"),
    "full-recomputation": ("full recomputation", "a forward"),
    "gradients-through-forward": ("zero_grad before forward", "none"),
    "growing-batches": ("largest batches first", "none"),
    "kept-for-steps": ("keep numbers, not tensors", "none"),
    "large-logits": ("loss in chunks", "a few lines"),
    "no-sync": ("no_sync() in accumulation", "none"),
    "odd-batch": ("bound the longest batch", "varies"),
    "one-backward": ("a backward per forward", "none"),
    "one-fsdp-unit": ("fully_shard each layer", "messages"),
    "optimizer-state-in-float": ("8-bit optimizer", "rounded state"),
    "outputs-of-step-before": ("del outputs after a step", "none"),
    "own-sets": ("averages on the CPU", "copies"),
    "rank-imbalance": ("balance the ranks", "none"),
    "recomputation-off": ("model.train() again", "a forward"),
    "returned-gradients": ("del gradients after use", "none"),
    "second-copy": ("drop the second copy", "none"),
    "selective-recomputation": ("selective recomputation", "part of a forward"),
    "several-contexts": ("set_device(local_rank)", "none"),
    "smaller-micro-batch": ("half the micro-batch", "more passes"),
    "state-on-every-rank": ("shard state over ranks", "communication"),
    "unstepped-gradients": ("freeze what is not stepped", "none"),
    "unused-graph": ("no graph without backward", "none"),
}
"""By finding: the change, and its cost; sentences stand in the finding itself."""


def name_of(finding: Finding) -> tuple[str, str]:
    """Return name and price of a change; of a finding without one its title and the first words of its cost."""
    known = _NAMES.get(finding.slug)
    if known is not None:
        return known
    return finding.title, finding.cost.partition(".")[0].partition(":")[0]
