"""Streams, captures and several devices, as the rules of CUDA have them."""

from __future__ import annotations

from tests.driverless.conftest import Ask

CAPTURE = """
import json, torch
side, other, graph = torch.cuda.Stream(), torch.cuda.Stream(), torch.cuda.CUDAGraph()
model, batch = torch.nn.Linear(64, 64).cuda(), torch.randn(8, 64, device="cuda")
side.wait_stream(torch.cuda.current_stream())
with torch.cuda.stream(side):
    model(batch).sum().backward()
torch.cuda.current_stream().wait_stream(side)
captured = []
with torch.cuda.graph(graph):
    output = model(batch)
    other.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(other):
        captured.append(torch.cuda.is_current_stream_capturing())
        more = output * 2
    torch.cuda.current_stream().wait_stream(other)
    captured.append(torch.cuda.is_current_stream_capturing())
captured.append(torch.cuda.is_current_stream_capturing())
with torch.cuda.stream(other):
    captured.append(torch.cuda.is_current_stream_capturing())
before = torch.cuda.memory_stats()["allocation.all.allocated"]
for _ in range(3):
    graph.replay()
after = torch.cuda.memory_stats()["allocation.all.allocated"]
pools = [one["segment_pool_id"] != (0, 0) for one in torch.cuda.memory_snapshot()]
print(json.dumps([captured, after - before, any(pools), all(pools)]))
"""


def test_a_capture_takes_in_streams_that_wait_for_it_and_ends_on_all(ask_driverless: Ask) -> None:
    assert ask_driverless(CAPTURE) == [[True, True, False, False], 0, True, False]


def test_waiting_for_the_device_inside_a_capture_ends_it_with_an_error(ask_driverless: Ask) -> None:
    program = """
import json, torch
graph, said = torch.cuda.CUDAGraph(), None
try:
    with torch.cuda.graph(graph):
        torch.zeros(3, device="cuda").sum().item()
except RuntimeError as error:
    said = str(error)
print(json.dumps([said, torch.zeros(3, device="cuda").sum().item()]))
"""
    said, after = ask_driverless(program)
    assert "capture" in said
    assert after == 0


def test_a_block_that_another_stream_uses_is_reused_once_that_is_done(ask_driverless: Ask) -> None:
    program = """
import json, torch
side = torch.cuda.Stream()
tensor = torch.ones(5 << 20, device="cuda")
place = tensor.data_ptr()
with torch.cuda.stream(side):
    tensor.add_(1)
tensor.record_stream(side)
del tensor
# Nothing runs, so the other stream is done at once, which torch sees when it is next asked for memory.
again = [torch.ones(5 << 20, device="cuda").data_ptr() for _ in range(2)]
print(json.dumps([place in again, torch.cuda.memory_allocated()]))
"""
    assert ask_driverless(program) == [True, 0]


def test_each_device_has_memory_of_its_own(ask_driverless: Ask) -> None:
    program = """
import json, torch
first = torch.arange(4.0).to("cuda:0")
second = first.to("cuda:1").tolist()
torch.cuda.set_device(1)
third = torch.zeros(1000, device="cuda")
model = torch.nn.DataParallel(torch.nn.Linear(4, 4).to("cuda:0"), device_ids=[0, 1])
model(torch.randn(6, 4, device="cuda:0")).sum().backward()
print(json.dumps([
    second, str(third.device), torch.cuda.memory_reserved(0) > 0, torch.cuda.memory_reserved(1) > 0,
    torch.cuda.memory_allocated(2), [torch.cuda.mem_get_info(device)[0] for device in range(3)],
]))
"""
    values, device, has_first, has_second, third, free = ask_driverless(program, gpu="a100-40gb", num_devices=3)
    assert (values, device, has_first, has_second, third) == ([0, 1, 2, 3], "cuda:1", True, True, 0)
    assert free[2] > max(free[:2])


def test_events_order_and_measure_time(ask_driverless: Ask) -> None:
    program = """
import json, time, torch
start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
start.record()
time.sleep(0.05)
end.record()
end.synchronize()
print(json.dumps([start.query(), end.query(), start.elapsed_time(end)]))
"""
    start, end, milliseconds = ask_driverless(program)
    assert (start, end) == (True, True)
    assert 50 <= milliseconds < 5000
