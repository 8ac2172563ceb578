"""What a distributed tensor's row says beyond its local part. Meshes here are stand-ins: no process group is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch.distributed.tensor")

from torch.distributed.tensor import Partial, Replicate, Shard  # noqa: E402
from torch.distributed.tensor.placement_types import _StridedShard  # noqa: E402

from memtrace.hooks.ownership.dtensor_layout import Placements  # noqa: E402


def tensor(placements: tuple[Any, ...], *, names: tuple[str, ...] | None = None, at: Any = (1, 0)) -> Any:
    """Return what of a DTensor of 51x8 is looked at, on a mesh of 4 times 2 ranks."""
    mesh = SimpleNamespace(mesh_dim_names=names, shape=(4, 2), ndim=2, get_coordinate=lambda: at)
    return SimpleNamespace(_spec=SimpleNamespace(mesh=mesh, placements=placements), shape=torch.Size([51, 8]))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (tensor((Shard(0), Replicate()), names=("dp", "tp")), "dp Shard(0) 1 of 4, tp Replicate 0 of 2"),
        (tensor((_StridedShard(0, split_factor=2), Shard(0))), "Shard(0) 1 of 4, Shard(0) 0 of 2"),
        (tensor((Partial(), Shard(1))), "Partial 1 of 4, Shard(1) 0 of 2"),
        (tensor((Replicate(), Shard(1)), at=None), "Replicate of 4, Shard(1) of 2"),
    ],
)
def test_each_axis_says_its_part_of_how_many(given: Any, text: str) -> None:
    assert Placements().of(given) == ("51x8", text)


def test_two_placements_on_one_mesh_are_told_apart() -> None:
    first, second = tensor((Shard(0), Replicate())), tensor((Replicate(), Shard(1)))
    second._spec.mesh = first._spec.mesh
    placements = Placements()
    assert placements.of(first)[1] == "Shard(0) 1 of 4, Replicate 0 of 2"
    assert placements.of(second)[1] == "Replicate 1 of 4, Shard(1) 0 of 2"
    assert placements.of(first)[1] == "Shard(0) 1 of 4, Replicate 0 of 2"


def test_a_plain_tensor_has_no_placement() -> None:
    assert Placements().of(torch.zeros(2)) == (None, None)
