"""What a rank exchanges with others, as a part of the JSON document."""

from __future__ import annotations

from typing import Any

from memtrace.analysis.results.communication import CommunicationResult, ReplicaResult
from memtrace.report.json.plain import plain


def communication_document(communication: CommunicationResult) -> dict[str, Any]:
    """Return the value of `communication` of a rank."""
    return {
        "replicas": [_replica(one) for one in communication.replicas],
        "shard_groups": plain(communication.shard_groups),
        "num_shard_steps": communication.num_shard_steps,
        "collectives": plain(communication.collectives),
    }


def _replica(replica: ReplicaResult) -> dict[str, Any]:
    return {
        "replica": replica.replica,
        "num_buckets": len(replica.bucket_bytes),
        "bucket_bytes": list(replica.bucket_bytes),
        "total_bytes": replica.total_bytes if replica.bucket_bytes else None,
        "rebuilt": replica.rebuilt,
        "bucket_starts_ns": list(replica.bucket_starts_ns),
        "backward_ns": replica.backward_ns,
        "num_steps": replica.num_steps,
        "num_backwards": replica.num_backwards,
        "num_reductions": replica.num_reductions,
        "num_needless": replica.num_needless,
        "needless_bytes": replica.needless_bytes if replica.bucket_bytes else None,
        "unused_bytes": replica.unused_bytes,
        "time": plain(replica.time),
    }
