"""What reductions take beside their results, as the rules of predictions say and as torch's own CUDA code asks for."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.fake.kernels.reducing import Reductions  # noqa: E402
from memtrace.hooks.fake.kernels.reductions import Multiprocessors  # noqa: E402
from tests.driverless.between_marks import MARKED  # noqa: E402
from tests.driverless.conftest import Ask  # noqa: E402

NUM_CASES = 400
SIZES = (1, 2, 3, 4, 7, 8, 16, 31, 64, 100, 128, 256, 512, 768, 1000, 1024, 2048, 4096, 8192, 30522, 50257)
MAX_ELEMENTS = 64_000_000
FLOATS = ("float32", "bfloat16", "float16", "float64")
OF_NUMBERS = ("sum.dim_IntList", "prod.dim_int", "amax.default", "max.dim", "argmax.default", "all.dim", "sum.default")
OF_FLOATS = ("mean.dim", "linalg_vector_norm.default", "var.correction", "var_mean.correction", "max.default")
ONE_DIMENSION = ("prod.dim_int", "max.dim", "argmax.default", "all.dim")

PROGRAM = (
    MARKED
    + """
cases = json.loads('CASES')
outs = []
for name, kind, shape, order, dims in cases:
    one = torch.empty([shape[at] for at in order], dtype=getattr(torch, kind), device="cuda")
    one = one.permute([order.index(at) for at in range(len(order))])
    packet, overload = name.split(".")
    operator = getattr(getattr(torch.ops.aten, packet), overload)
    args = [one] if dims is None else [one, 2, dims] if packet == "linalg_vector_norm" else [one, dims]
    mark()
    made = operator(*args)
    mark()
    made = made if isinstance(made, tuple) else (made,)
    outs.append([one.untyped_storage().nbytes() for one in made])
    del one, made, args
groups = between_marks()
for group, sizes in zip(groups, outs, strict=True):
    for size in sizes:
        group.remove(size)
found = torch.cuda.get_device_properties(0)
print(json.dumps([found.multi_processor_count, found.max_threads_per_multi_processor, groups]))
"""
)

Case = tuple[str, str, list[int], list[int], Any]


def cases(seed: int) -> list[Case]:
    """Return reductions drawn at random: operator, type, shape, order in memory, dimensions."""
    drawn = random.Random(seed)
    found: list[Case] = []
    while len(found) < NUM_CASES:
        number = drawn.choice([1, 2, 2, 2, 3, 3, 4])
        shape = [drawn.choice(SIZES) for _ in range(number)]
        elements = torch.Size(shape).numel()
        if not 1 < elements <= MAX_ELEMENTS:
            continue
        name, kind = drawn.choice(OF_NUMBERS + OF_FLOATS), drawn.choice((*FLOATS, "bool", "int32", "int64"))
        if name in OF_FLOATS or (kind == "bool" and name == "argmax.default"):
            kind = drawn.choice(FLOATS)
        dims: Any = sorted(drawn.sample(range(number), drawn.randint(1, number)))
        if name in ONE_DIMENSION:
            dims = dims[0]
        elif name in ("sum.default", "max.default"):
            dims = None
        order = list(range(number))
        if drawn.random() < 0.25:
            drawn.shuffle(order)
        found.append((name, kind, shape, order, dims))
    return found


def foretold(reductions: Reductions, case: Case) -> list[int]:
    """Return what the rules say of a reduction."""
    name, kind, shape, order, dims = case
    one = torch.empty([shape[at] for at in order], dtype=getattr(torch, kind), device="meta")
    one = one.permute([order.index(at) for at in range(len(order))])
    packet, overload = name.split(".")
    operator = getattr(getattr(torch.ops.aten, packet), overload)
    args = [one] if dims is None else [one, 2, dims] if packet == "linalg_vector_norm" else [one, dims]
    return list(reductions.held(operator, args, operator(*args)))


@pytest.mark.parametrize("gpu", ["t4-16gb", "h100-80gb"])
def test_torch_asks_for_what_the_rules_say(ask_driverless: Ask, gpu: str) -> None:
    drawn = cases(seed=len(gpu))
    number, threads, asked = ask_driverless(PROGRAM.replace("CASES", json.dumps(drawn)), gpu=gpu)
    reductions = Reductions(Multiprocessors(number, threads))
    wrong = {
        str(case): (foretold(reductions, case), sizes)
        for case, sizes in zip(drawn, asked, strict=True)
        if foretold(reductions, case) != sizes
    }
    assert not wrong
    assert sum(len(sizes) > 0 for sizes in asked) > NUM_CASES / 10
