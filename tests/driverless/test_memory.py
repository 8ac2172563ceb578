"""Memory of a device that is not there: pages, capacity, and what can be read back from it."""

from __future__ import annotations

from memtrace.driverless.environment import CONTEXT_BYTES, KEEP_COPY_BYTES
from tests.driverless.conftest import Ask

MIB = 1024**2

LEVELS = """
import json, torch
def levels():
    free, total = torch.cuda.mem_get_info()
    return [torch.cuda.memory_allocated(), torch.cuda.memory_reserved(), total - free]
torch.cuda.init()
said = [levels()]
kept = [torch.empty(11 << 20, dtype=torch.uint8, device="cuda") for _ in range(3)]
said.append(levels())
del kept
torch.cuda.empty_cache()
said.append(levels())
print(json.dumps(said))
"""


def test_a_segment_takes_whole_pages_of_the_device(ask_driverless: Ask) -> None:
    start, full, end = ask_driverless(LEVELS)
    # torch asks for 12 MiB for each 11, which the driver gives in pages of 2 MiB, and splits none off.
    assert full == [36 * MIB, 36 * MIB, CONTEXT_BYTES + 36 * MIB]
    assert start == end == [0, 0, CONTEXT_BYTES]


def test_expandable_segments_map_whole_granules(ask_driverless: Ask) -> None:
    _, full, end = ask_driverless(LEVELS, environ={"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"})
    # 33 MiB in granules of 20.
    assert full == [33 * MIB, 40 * MIB, CONTEXT_BYTES + 40 * MIB]
    assert end == [0, 0, CONTEXT_BYTES]


def test_pools_of_the_driver_grow_by_32_mib(ask_driverless: Ask) -> None:
    _, full, end = ask_driverless(LEVELS, environ={"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"})
    assert full == [33 * MIB, 64 * MIB, CONTEXT_BYTES + 64 * MIB]
    assert end == [0, 0, CONTEXT_BYTES]


def test_without_caching_every_tensor_takes_pages_of_its_own(ask_driverless: Ask) -> None:
    _, full, end = ask_driverless(LEVELS, environ={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    assert full[2] == CONTEXT_BYTES + 3 * 12 * MIB
    assert end[2] == CONTEXT_BYTES


def test_what_does_not_fit_ends_in_torchs_own_error(ask_driverless: Ask) -> None:
    program = """
import json, torch
seen = []
torch._C._cuda_attach_out_of_memory_observer(lambda *facts: seen.append(facts))
kept = []
try:
    while True:
        kept.append(torch.empty(100 << 20, dtype=torch.uint8, device="cuda"))
except torch.cuda.OutOfMemoryError as error:
    print(json.dumps([len(kept), str(error), seen]))
"""
    memory = 1024 * MIB
    count, message, seen = ask_driverless(program, memory_bytes=memory, context_bytes=100 * MIB)
    assert count == (1024 - 100) // 100
    assert "GPU 0 has a total capacity of 1024.00 MiB of which 24.00 MiB is free" in message
    assert "this process has 1000.00 MiB memory in use" in message
    assert seen == [[0, 100 * MIB, memory, 24 * MIB]]


def test_what_is_sent_to_the_device_is_read_back_exactly(ask_driverless: Ask) -> None:
    program = """
import json, torch
def back(tensor):
    return bool((tensor.cuda().cpu() == tensor).all())
lengths = torch.tensor([5, 3, 9]).cuda()
print(json.dumps({
    "random": [back(torch.randint(1, 255, (size,), dtype=torch.uint8)) for size in (1, 511, 4097, 1 << 20)],
    "larger": int(torch.ones((1 << 20) + 1, dtype=torch.uint8).cuda().cpu().sum()),
    "one": lengths[1].item(),
    "list": lengths.tolist(),
    "copy": lengths.clone().tolist(),
    "pinned": torch.arange(4).pin_memory().cuda(non_blocking=True).tolist(),
    "zeros": torch.zeros(3, device="cuda").tolist(),
}))
"""
    assert ask_driverless(program) == {
        "random": [True] * 4,
        "larger": 0,
        "one": 3,
        "list": [5, 3, 9],
        "copy": [5, 3, 9],
        "pinned": [0, 1, 2, 3],
        "zeros": [0, 0, 0],
    }
    assert KEEP_COPY_BYTES == 1 << 20, "the program above copies that much, and one byte more"


def test_old_bytes_are_not_taken_for_the_result_of_a_kernel(ask_driverless: Ask) -> None:
    program = """
import json, torch
sent = torch.full((64,), 7).cuda()
place = sent.data_ptr()
del sent
made = torch.ones(64, dtype=torch.int64, device="cuda") * 3
other = torch.full((64,), 7).cuda()
other.mul_(2)
print(json.dumps([made.data_ptr() == place or other.data_ptr() == place, made.tolist(), other.tolist()]))
"""
    assert ask_driverless(program) == [True, [0] * 64, [0] * 64]


def test_tensors_of_another_process_are_opened(ask_driverless: Ask, tmp_path: object) -> None:
    program = """
import json, sys, torch, torch.multiprocessing
def child(queue, answers):
    tensor = queue.get()
    answers.put([str(tensor.device), list(tensor.shape), torch.cuda.memory_reserved()])
    del tensor
if __name__ == "__main__":
    context = torch.multiprocessing.get_context("fork")
    queue, answers = context.Queue(), context.Queue()
    process = context.Process(target=child, args=(queue, answers))
    process.start()
    queue.put(torch.ones(3, 5, device="cuda"))
    print(json.dumps(answers.get(timeout=60)))
    process.join(60)
"""
    assert ask_driverless(program) == ["cuda:0", [3, 5], 0]
