"""What torch says of a device that is not there is what its data sheet says."""

from __future__ import annotations

import pytest

from memtrace.driverless.environment import CONTEXT_BYTES
from memtrace.schema.gpu_cards import CARDS, LIMITS
from tests.driverless.conftest import Ask

FACTS = """
import json, torch
before = torch.cuda.is_initialized()
facts = torch.cuda.get_device_properties(torch.cuda.device_count() - 1)
free, total = torch.cuda.mem_get_info()
print(json.dumps({
    "before": before,
    "available": torch.cuda.is_available(),
    "count": torch.cuda.device_count(),
    "nvml": torch.cuda._raw_device_count_nvml(),
    "name": facts.name,
    "capability": [facts.major, facts.minor],
    "total": facts.total_memory,
    "multiprocessors": facts.multi_processor_count,
    "l2": facts.L2_cache_size,
    "threads": facts.max_threads_per_multi_processor,
    "shared": facts.shared_memory_per_block_optin,
    "info": [free, total],
    "peers": torch.cuda.device_count() > 1 and torch.cuda.can_device_access_peer(0, 1),
    "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
}))
"""


@pytest.mark.parametrize(("gpu", "num_devices"), [("t4-16gb", 1), ("rtx3090-24gb", 2), ("b200-192gb", 8)])
def test_torch_says_what_the_data_sheet_says(ask_driverless: Ask, gpu: str, num_devices: int) -> None:
    card = CARDS[gpu]
    said = ask_driverless(FACTS, gpu=gpu, num_devices=num_devices)
    assert said == {
        "before": False,
        "available": True,
        "count": num_devices,
        "nvml": num_devices,
        "name": card.name,
        "capability": list(card.capability),
        "total": card.memory_bytes,
        "multiprocessors": card.multiprocessors,
        "l2": card.l2_bytes,
        "threads": LIMITS[card.capability].threads,
        "shared": LIMITS[card.capability].shared_block_bytes,
        "info": [card.memory_bytes - CONTEXT_BYTES, card.memory_bytes],
        "peers": num_devices > 1 and card.has_peers,
        "bf16": card.capability >= (8, 0),
    }


@pytest.mark.parametrize(("visible", "expected"), [("", 0), ("-1", 0), ("1", 1), ("2,0", 2), ("0,7,1", 1)])
def test_visible_devices_are_counted_as_the_driver_counts_them(
    ask_driverless: Ask, visible: str, expected: int
) -> None:
    program = "import json, torch; print(json.dumps(torch._C._cuda_getDeviceCount()))"
    assert ask_driverless(program, num_devices=3, environ={"CUDA_VISIBLE_DEVICES": visible}) == expected


def test_a_forked_child_uses_the_device_only_if_its_parent_did_not(ask_driverless: Ask) -> None:
    program = """
import json, os, torch
def child():
    pid = os.fork()
    if pid == 0:
        try:
            torch.zeros(3).cuda()
        except RuntimeError as error:
            os._exit(2 if "re-initialize" in str(error) else 3)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
before = child()
torch.zeros(3).cuda()
print(json.dumps([before, child()]))
"""
    assert ask_driverless(program) == [1, 2]
