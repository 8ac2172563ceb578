"""How a distributed tensor lies over its mesh of ranks, as text: what the local part alone does not tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from memtrace.schema.shapes import shape_text


class Placements:
    """Describes the tensors of one sweep, in which meshes stay alive and can be told apart by identity."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, Any], str] = {}

    def of(self, tensor: Any) -> tuple[str | None, str | None]:
        """Return the whole shape and the placement of a DTensor; of any other tensor nothing."""
        spec = getattr(tensor, "_spec", None)
        placements = getattr(spec, "placements", None)
        if spec is None or placements is None:
            return None, None
        key = id(spec.mesh), placements
        text = self._known.get(key)
        if text is None:
            text = self._known[key] = ", ".join(_axes(spec.mesh, placements))
        return shape_text(tensor.shape), text


def _axes(mesh: Any, placements: Sequence[Any]) -> Iterator[str]:
    """Yield what each axis of a mesh does: its name, the placement, and which of how many parts this rank has."""
    # A rank outside the mesh has no coordinate.
    at = mesh.get_coordinate() or [None] * mesh.ndim
    for axis, placement in enumerate(placements):
        name = f"{mesh.mesh_dim_names[axis]} " if mesh.mesh_dim_names else ""
        number = "" if at[axis] is None else f" {at[axis]}"
        yield f"{name}{_word(placement)}{number} of {mesh.shape[axis]}"


def _word(placement: Any) -> str:
    """Return a placement in a word; a shard that is strided over another axis is a shard of its dimension."""
    if placement.is_replicate():
        return "Replicate"
    if placement.is_partial():
        return "Partial"
    return f"Shard({placement.dim})" if hasattr(placement, "dim") else type(placement).__name__
