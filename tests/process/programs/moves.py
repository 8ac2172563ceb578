"""All the ways in which a program puts modules and tensors onto a GPU: each with the bytes and the devices it led to.

Prints them as JSON, by kind and form. The first of each kind is the plainest.
"""

from __future__ import annotations

import gc
import io
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import comm
from torch.nn.parallel.scatter_gather import scatter
from torch.nn.utils.rnn import pack_padded_sequence

N = 64
THERE = torch.zeros(1, device="cuda")
DEVICES = (torch.device("cuda"), torch.device("cuda", 0), torch.device(0), torch.device(type="cuda", index=0))
SAID = ("cuda", "cuda:0", 0, *DEVICES, THERE.device, THERE.get_device(), torch.cuda.current_device())
ACCELERATOR = (torch.accelerator.current_accelerator(), torch.accelerator.current_device_index())

Make = Callable[[], Any]


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(N, N), nn.BatchNorm1d(N))


def made_on(device: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(N, N, device=device), nn.BatchNorm1d(N, device=device))


def within(make: Make, device: Any) -> Any:
    with torch.device(device):
        return make()


def with_default(make: Make, device: Any) -> Any:
    torch.set_default_device(device)
    try:
        return make()
    finally:
        torch.set_default_device(None)


def with_default_type(make: Make) -> Any:
    torch.set_default_tensor_type(torch.cuda.FloatTensor)
    try:
        return make()
    finally:
        torch.set_default_tensor_type(torch.FloatTensor)


def in_stream(make: Make) -> Any:
    with torch.cuda.stream(torch.cuda.Stream()), torch.cuda.device_of(THERE), torch.accelerator.device_index(0):
        return make()


def loaded(make: Make, location: Any) -> Any:
    file = io.BytesIO()
    torch.save(make(), file)
    file.seek(0)
    return torch.load(file, map_location=location)


def assigned(state: Any) -> nn.Module:
    made = within(model, "meta")
    made.load_state_dict(state, assign=True)
    return made


def by_data() -> nn.Module:
    made = model()
    for one in (*made.parameters(), *made.buffers()):
        one.data = one.data.to(device="cuda")
    return made


def materialized() -> Any:
    made: Any = nn.UninitializedParameter(device="cuda")
    made.materialize((N, N))
    return made


def tensor() -> torch.Tensor:
    return torch.rand(N, N)


def packed() -> Any:
    return pack_padded_sequence(torch.rand(8, 16, N), torch.full((8,), 16), batch_first=True)


def numbers() -> list[list[float]]:
    return [[1.0] * N] * N


F32 = torch.float32
MODULES: dict[str, Make] = {
    **{f"to {one!r}": lambda one=one: model().to(one) for one in (*SAID, *ACCELERATOR, THERE)},
    **{f"to device={one!r}": lambda one=one: model().to(device=one) for one in SAID},
    **{f"to {one!r}, dtype": lambda one=one: model().to(one, F32) for one in SAID},
    **{f"cuda {one!r}": lambda one=one: model().cuda(one) for one in (None, *SAID)},
    **{f"made on {one!r}": lambda one=one: made_on(one) for one in SAID},
    **{f"to_empty {one!r}": lambda one=one: within(model, "meta").to_empty(device=one) for one in SAID},
    **{f"with {one!r}": lambda one=one: within(model, one) for one in SAID},
    **{f"default {one!r}": lambda one=one: with_default(model, one) for one in SAID},
    "to both": lambda: model().to(device="cuda", dtype=F32, non_blocking=True),
    "to all by place": lambda: model().to("cuda", F32, True),
    "to tensor=": lambda: model().to(tensor=THERE),
    "cuda device=": lambda: model().cuda(device=0),
    "back": lambda: model().to(device="cuda").cpu().to("cuda"),
    "half": lambda: model().half().to(0).float(),
    "_apply": lambda: model()._apply(lambda one: one.cuda()),
    "data": by_data,
    "assign": lambda: assigned(model().to("cuda").state_dict()),
    "assign loaded": lambda: assigned(loaded(lambda: model().state_dict(), "cuda")),
    "state": lambda: loaded(lambda: model().state_dict(), DEVICES[1]),
    "state by name": lambda: loaded(lambda: model().state_dict(), {"cpu": "cuda:0"}),
    "state by function": lambda: loaded(lambda: model().state_dict(), lambda storage, _: storage.cuda(0)),
    "state of the GPU": lambda: loaded(lambda: model().cuda().state_dict(), None),
}
TENSORS: dict[str, Make] = {
    **{f"to {one!r}": lambda one=one: tensor().to(one) for one in (*SAID, *ACCELERATOR, THERE)},
    **{f"to device={one!r}": lambda one=one: tensor().to(device=one) for one in SAID},
    **{f"to {one!r}, dtype": lambda one=one: tensor().half().to(one, F32) for one in SAID},
    **{f"cuda {one!r}": lambda one=one: tensor().cuda(one) for one in (None, *SAID)},
    **{f"empty {one!r}": lambda one=one: torch.empty(N, N, device=one) for one in SAID},
    **{f"as_tensor {one!r}": lambda one=one: torch.as_tensor(tensor().numpy(), device=one) for one in SAID},
    "to tensor=": lambda: tensor().to(tensor=THERE),
    "to flags": lambda: tensor().to("cuda", F32, True, True),
    "to copy=": lambda: tensor().to(device="cuda", copy=True, memory_format=torch.preserve_format),
    "cuda non_blocking": lambda: tensor().cuda(non_blocking=True),
    "cuda by place": lambda: tensor().cuda(0, True),
    "pinned": lambda: tensor().pin_memory().cuda(),
    "made pinned": lambda: torch.rand(N, N, pin_memory=True).to("cuda", non_blocking=True),
    "type": lambda: tensor().type(torch.cuda.FloatTensor),
    "type by name": lambda: tensor().type("torch.cuda.FloatTensor"),
    "old class": lambda: torch.cuda.FloatTensor(N, N),
    "old class of numbers": lambda: torch.cuda.FloatTensor(numbers()),
    "old default": lambda: with_default_type(lambda: torch.rand(N, N)),
    "tensor": lambda: torch.tensor(numbers(), device=0),
    "asarray": lambda: torch.asarray(tensor(), device="cuda"),
    "new_empty": lambda: THERE.new_empty((N, N)),
    "new_tensor": lambda: THERE.new_tensor(numbers()),
    "new_tensor elsewhere": lambda: tensor().new_tensor(numbers(), device="cuda"),
    "new": lambda: THERE.new(N, N),
    "like": lambda: torch.rand_like(tensor(), device=0),
    "generator": lambda: torch.randn(N, N, device="cuda", generator=torch.Generator("cuda")),
    "copy_": lambda: torch.empty(N, N, device="cuda").copy_(tensor(), non_blocking=True),
    "get_default_device": lambda: within(lambda: torch.rand(N, N, device=torch.get_default_device()), "cuda"),
    "loaded": lambda: loaded(tensor, "cuda"),
    "in a stream": lambda: in_stream(lambda: tensor().cuda()),
    "materialized": materialized,
    "unbound": lambda: torch.Tensor.to(tensor(), device="cuda"),
    "broadcast": lambda: comm.broadcast(tensor(), devices=[0])[0],
    "scatter": lambda: scatter(tensor(), [0])[0],
}
PACKED: dict[str, Make] = {
    "to": lambda: packed().to("cuda").data,
    "to device=": lambda: packed().to(device="cuda").data,
    "to 0": lambda: packed().to(0).data,
    "cuda": lambda: packed().cuda().data,
    "cuda device=": lambda: packed().cuda(device=0).data,
}


def devices(kept: Any) -> set[str]:
    if isinstance(kept, torch.Tensor):
        return {str(kept.device)}
    if isinstance(kept, nn.Module):
        kept = [*kept.parameters(), *kept.buffers()]
    return {device for one in (kept.values() if isinstance(kept, dict) else kept) for device in devices(one)}


def outcome(make: Make) -> list[Any]:
    gc.collect()
    before = torch.cuda.memory_allocated()
    kept = make()
    gc.collect()
    return [torch.cuda.memory_allocated() - before, sorted(devices(kept))]


def main() -> None:
    # What torch itself made is looked at no more, which a collection would take most of its time for.
    gc.freeze()
    kinds = {"modules": MODULES, "tensors": TENSORS, "packed sequences": PACKED}
    print(json.dumps({kind: {name: outcome(make) for name, make in table.items()} for kind, table in kinds.items()}))
    trained = model().to(device="cuda")
    trained(torch.rand(4, N, device="cuda")).sum().backward()
    torch.optim.SGD(trained.parameters(), lr=0.1).step()


if __name__ == "__main__":
    main()
