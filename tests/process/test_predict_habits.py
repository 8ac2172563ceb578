"""What programs ask of `torch.cuda` and of tensors on it, in a prediction: no error, and the bytes that follow."""

from __future__ import annotations

from pathlib import Path

from tests.process.predicted_programs import notes, predict, predicted_rank

STEP = """
model = nn.Linear(64, 64).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model(torch.ones(2, 64, device="cuda")).sum().backward()
optimizer.step()
print("done")
"""

DEVICE = """
import copy, pickle
import torch
from torch import nn
from torch.nn import functional as F

# Generators and random states
generator = torch.Generator(device="cuda")
generator.manual_seed(3)
assert generator.device.type == "cuda"
assert torch.randn(4, generator=generator, device="cuda").is_cuda
torch.empty(3, device="cuda").normal_(generator=generator)
assert isinstance(torch.default_generator, torch.Generator)
first = torch.randn(3, generator=torch.Generator().manual_seed(1))
assert torch.equal(first, torch.randn(3, generator=torch.Generator().manual_seed(1)))
torch.cuda.manual_seed_all(1)
torch.cuda.set_rng_state(torch.cuda.get_rng_state())
assert len(torch.cuda.get_rng_state_all()) == 1
with torch.random.fork_rng():
    torch.manual_seed(0)

# Streams, events, graphs, ranges
start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
start.record(); end.record(); end.synchronize()
assert start.elapsed_time(end) > 0
side = torch.cuda.Stream()
with torch.cuda.stream(side), torch.cuda.device(0):
    one = torch.ones(100, device="cuda")
torch.cuda.current_stream().wait_stream(side)
one.record_stream(torch.cuda.current_stream())
assert isinstance(side, torch.cuda.Stream)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    one = one * 2
graph.replay()
with torch.cuda.nvtx.range("part"):
    torch.cuda.synchronize()

# Memory: as the caching allocator counts it
before = torch.cuda.memory_allocated()
many = torch.empty(1000, device="cuda")
assert torch.cuda.memory_allocated() - before == 4096  # 4000 in units of 512
torch.cuda.reset_peak_memory_stats()
two = torch.empty(1 << 20, device="cuda"); del two
assert torch.cuda.max_memory_allocated() - before == 4096 + (4 << 20)
assert torch.cuda.memory_stats()["allocated_bytes.all.peak"] == torch.cuda.max_memory_allocated()
free, total = torch.cuda.mem_get_info()
assert 0 < free < total == torch.cuda.get_device_properties(0).total_memory == 24 << 30
assert torch.cuda.memory_reserved() >= torch.cuda.memory_allocated()
torch.cuda.empty_cache(); torch.cuda.memory_snapshot(); torch.cuda.memory_summary(); torch.cuda.utilization()
assert torch.version.cuda and torch.backends.cudnn.is_available() and torch.cuda.is_bf16_supported()

# Where a tensor is made, and what it says of itself
cuda = torch.device("cuda:0")
for made in (
    torch.zeros(3, device=0), torch.ones(3).to(torch.device(0)), torch.ones(3).cuda(0), torch.ones(3).to(one),
    torch.ones(3).pin_memory().to("cuda", non_blocking=True), one.new_tensor([1, 2]), torch.cuda.FloatTensor([1.0]),
    torch.cuda.LongTensor(5), torch.ones(3).type("torch.cuda.HalfTensor"), torch.tensor(3.0, device="cuda"),
    torch.randperm(3, device="cuda", generator=generator), pickle.loads(pickle.dumps(cuda)) and one,
):
    assert made.is_cuda and made.device == cuda and not made.is_meta
assert isinstance(cuda, torch.device) and type(cuda) == torch.device and torch.device("cpu").type == "cpu"
assert one.type() == "torch.cuda.FloatTensor" and torch.ones(1).type() == "torch.FloatTensor"
assert isinstance(one, torch.cuda.FloatTensor) and not isinstance(torch.ones(1), torch.cuda.FloatTensor)
assert "cuda:0" in repr(one) and f"{one.sum():.1f}" == "200.0" and str(torch.ones(1)) == "tensor([1.])"
assert torch.empty(3, pin_memory=True).device.type == "cpu"
torch.set_default_device("cuda")
assert torch.ones(3).is_cuda and torch.tensor([1.0]).is_cuda and not torch.ones(3, device="cpu").is_cuda
torch.set_default_device(None)
assert not torch.ones(3).is_cuda
before = torch.cuda.memory_allocated()
with torch.device("cuda"):
    layer, table = nn.Linear(1024, 1024, bias=False), torch.tensor([1, 2, 3])
assert torch.cuda.memory_allocated() - before == (4 << 20) + 512
"""


def test_the_device_answers_as_the_named_gpu_would(tmp_path: Path) -> None:
    predict(tmp_path, DEVICE + STEP, "--gpu", "24GiB")
    assert "predicted-graphs" in notes(tmp_path)


TRAINING = """
import copy, functools, gc
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

def held():
    gc.collect()
    return torch.cuda.memory_allocated()

# A copy of a model for averages is as large as the model
model = nn.Linear(256, 256, bias=False).cuda()
before = held()
average = copy.deepcopy(model)
assert average.weight.is_cuda and held() - before == 4 * 256 * 256
swa = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
assert held() - before == 2 * 4 * 256 * 256
swa.update_parameters(model); swa.update_parameters(model)
del average, swa

# A model that goes to the host and back takes its gradients along
model(torch.ones(2, 256, device="cuda")).sum().backward()
assert held() - before == 4 * 256 * 256 + CUBLAS
model.cpu()
assert not model.weight.is_cuda and not model.weight.grad.is_cuda and held() - before == CUBLAS - 4 * 256 * 256
model.cuda()
assert model.weight.grad.is_cuda and held() - before == 4 * 256 * 256 + CUBLAS

# Loss scaling, clipping, schedules
optimizer = torch.optim.AdamW(model.parameters())
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
for scaler in (torch.cuda.amp.GradScaler(), torch.amp.GradScaler("cuda")):
    with torch.cuda.amp.autocast():
        out = model(torch.ones(2, 256, device="cuda"))
    assert out.dtype is torch.float16
    scaler.scale(out.float().sum()).backward()
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
    assert not torch.isnan(norm) and norm.item() == 1.0
    scaler.step(optimizer); scaler.update(); scheduler.step(); optimizer.zero_grad()
    scaler.load_state_dict(scaler.state_dict())

# Evaluation
for quiet in (torch.no_grad, torch.inference_mode):
    with quiet():
        out = model(torch.ones(8, 256).cuda())
        right = (out.argmax(dim=1) == torch.zeros(8, dtype=torch.long, device="cuda")).sum().item()
        out.softmax(-1).cpu().numpy()

# Layouts, compilation, one replica
image = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True)).to("cuda")
image = image.to(memory_format=torch.channels_last)
out = image(torch.randn(2, 3, 16, 16).to("cuda", memory_format=torch.channels_last))
assert out.is_contiguous(memory_format=torch.channels_last)
out.sum().backward()
compiled = torch.compile(image, mode="max-autotune")
assert compiled._orig_mod is image and "_orig_mod" not in "".join(compiled.state_dict())
nn.DataParallel(model)(torch.ones(2, 256)).sum().backward()

# Recomputation and saved tensors on the host
block = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.1), nn.Linear(16, 16)).cuda()
x = torch.ones(2, 16, device="cuda", requires_grad=True)
keep = functools.partial(create_selective_checkpoint_contexts, [torch.ops.aten.addmm.default])
for options in ({"use_reentrant": True}, {"use_reentrant": False}, {"use_reentrant": False, "context_fn": keep}):
    checkpoint(block, x, **options).sum().backward()
with torch.autograd.graph.save_on_cpu(pin_memory=True):
    out = block(x)
out.sum().backward()

class Square(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx, g):
        assert g.is_cuda
        return 2 * g * ctx.saved_tensors[0]

Square.apply(x).sum().backward()
with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as profiler:
    block(x)
    profiler.step()
"""
CUBLAS = 4096 * 1024 * 2 + 16 * 1024 * 8
"""cuBLAS's workspace; on the 24 GiB of no GPU in particular it is the default one."""


def test_training_as_programs_write_it(tmp_path: Path) -> None:
    workspaces = 2 * CUBLAS  # forward's and backward's
    predict(tmp_path, TRAINING.replace("CUBLAS", str(workspaces)) + STEP, "--gpu", "24GiB")
    assert "predicted-eager" in notes(tmp_path)


SEQUENCES = """
import queue, threading
from concurrent.futures import ThreadPoolExecutor
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

# Batches that a thread moves, and work on the GPU in a pool of threads
batches = queue.Queue(2)

def load():
    for step in range(2):
        batches.put(torch.ones(4, 8).to("cuda", non_blocking=True))
    batches.put(None)

threading.Thread(target=load, daemon=True).start()
while (batch := batches.get(timeout=60)) is not None:
    assert batch.is_cuda
with ThreadPoolExecutor(2) as pool:
    assert all(pool.map(lambda size: torch.empty(size, device="cuda").is_cuda, (8, 16)))

# Sequences of unequal length, whose lengths come from a mask
ids = torch.tensor([[5, 3, 0, 0], [1, 2, 3, 0]]).cuda()
lengths = (ids != 0).sum(1)
table, layer = nn.Embedding(10, 8).cuda(), nn.LSTM(8, 16, 2, batch_first=True, bidirectional=True).cuda()
packed = nn.utils.rnn.pack_padded_sequence(table(ids), lengths.cpu(), batch_first=True, enforce_sorted=False)
assert packed.batch_sizes.tolist() == [2, 2, 1]
out, _ = nn.utils.rnn.pad_packed_sequence(layer(packed)[0], batch_first=True)
assert out.shape == (2, 3, 32)
out.sum().backward()

# A loss over all alignments: forward variables of every time and place between the longest labels
before = torch.cuda.memory_allocated()
probabilities = torch.randn(50, 4, 20, device="cuda", requires_grad=True)
loss = F.ctc_loss(probabilities, torch.ones(4, 10, dtype=torch.long), (50,) * 4, (10, 9, 8, 7), reduction="sum")
kept = (4 * 50 * 4 * 20, 4 * 4 * 50 * (2 * 10 + 1), 8 * 4 * 10, 4 * 4, 4)  # with the targets, moved there
assert torch.cuda.memory_allocated() - before == sum(-(-size // 512) * 512 for size in kept)
loss.backward()
assert torch.istft(torch.stft(batch := torch.ones(2, 64).cuda(), 16, return_complex=True), 16).shape == batch.shape

# Generation: it ends at its longest, whatever else might have ended it
unfinished, finished = torch.ones(2, dtype=torch.long, device="cuda"), torch.zeros(2, device="cuda").bool()
for length in range(1000):
    by_token = torch.rand(2, device="cuda") > 0.5
    finished = finished | torch.full((2,), length >= 5, device="cuda") | by_token
    unfinished = unfinished & ~finished
    if unfinished.max() == 0:
        break
assert length == 5

# What is allocated while the program's own profiler runs counts as ever
with torch.profiler.profile(schedule=torch.profiler.schedule(wait=0, warmup=1, active=1)) as profiler:
    for step in range(3):
        torch.empty(512 << 20, dtype=torch.uint8, device="cuda")
        profiler.step()

# Batch norm over all ranks
dist.init_process_group("nccl")
model = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))).cuda()
nn.parallel.DistributedDataParallel(model)(torch.ones(2, 3, 8, 8).cuda()).sum().backward()
"""


def test_threads_sequences_and_ranks(tmp_path: Path) -> None:
    predict(tmp_path, SEQUENCES + STEP, "--engine", "meta", "--gpu", "24GiB", "--world-size", "2")
    assert predicted_rank(tmp_path).header["prediction"]["allocated"]["predicted_bytes"] > 512 << 20


def test_a_sparse_tensor_is_refused_in_words(tmp_path: Path) -> None:
    program = (
        "import torch\ntorch.nn.Embedding(9, 4, sparse=True).cuda()(torch.ones(2).long().cuda()).sum().backward()\n"
    )
    done = predict(tmp_path, program, "--engine", "meta", status=1)
    assert "a sparse tensor is on the GPU" in done.stderr
    assert "--engine driverless" in done.stderr
