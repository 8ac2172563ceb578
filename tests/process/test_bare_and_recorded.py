"""Programs that do to their process what programs do: recorded, each ends, prints and writes as it does bare.

A row is a program. It is run bare and recorded, each in a folder of its own, and compared are exit status or signal,
stdout (losses to the bit), stderr, and every file that it leaves. A hang is a failure like any other.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from memtrace.store.reading.read import read_trace
from tests.process.conftest import TRAIN, split_said
from tests.warm.start import warm_python

LIMIT_S = 90


@dataclass(frozen=True)
class Row:
    """A program, and how much of it a recording may lose."""

    name: str
    source: str
    options: tuple[str, ...] = ()
    is_warm: bool = False
    """Whether it is run by the Python that has torch already: what happens then is no matter of the start."""
    says: str | None = None
    """How the one line starts, behind `memtrace: `, that the recording may add to stderr."""


@dataclass
class Ended:
    """All that a program can be told by."""

    status: int
    stdout: str
    stderr: str
    files: dict[str, bytes]


def run(folder: Path, row: Row, *, is_recorded: bool) -> tuple[Ended, str]:
    """Run a program in a folder of its own; return how it ended and what memtrace said of it."""
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN + row.source)
    python = warm_python() if row.is_warm else sys.executable
    own = [sys.executable, "-m", "memtrace", "record", "-o", "t.json", *row.options, "--"] if is_recorded else []
    process = subprocess.Popen(
        [*own, python, "train.py"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        pytest.fail(f"did not end within {LIMIT_S} s: {stdout.decode()}\n{stderr.decode()}")
    program_stderr, said = split_said(stderr)
    own_stderr = program_stderr.decode().replace(str(folder), "FOLDER")
    ended = Ended(process.returncode, stdout.decode(), own_stderr, files_in(folder))
    return ended, said


def files_in(folder: Path) -> dict[str, bytes]:
    """Return what a program left, without the trace and what Python keeps of its modules."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith(("t.json", "__pycache__")):
            found[name] = path.read_bytes()
    return found


def without_one_line(text: str, start: str) -> str:
    """Return a text without the first line that starts so."""
    lines = text.splitlines(keepends=True)
    ours = next((number for number, line in enumerate(lines) if line.startswith(start)), len(lines))
    return "".join(lines[:ours] + lines[ours + 1 :])


DESCRIPTORS = [
    Row(
        "descriptors-closed",
        """
import os, socket
train(1)
os.closerange(3, 256)
files = [os.open(f"user{n}.bin", os.O_CREAT | os.O_RDWR) for n in range(6)]
pair = [one for _ in range(3) for one in socket.socketpair()]
for one in files:
    os.write(one, b"U" * 2000)
train(2)
for one in pair:
    one.setblocking(False)
    try:
        print("got", one.recv(100))
    except BlockingIOError:
        print("nothing")
for one in files:
    os.close(one)
print(files)
""",
    ),
    Row(
        "descriptors-taken",
        """
import os
train(1)
data = os.open("user.bin", os.O_CREAT | os.O_RDWR)
os.write(data, b"U" * 5000)
taken = [n for n in map(int, os.listdir("/proc/self/fd")) if n > data]
for number in taken:
    try:
        os.fstat(number)
    except OSError:
        continue
    os.dup2(data, number)
train(3)
for number in taken:
    try:
        os.fstat(number)
    except OSError:
        print("somebody closed it") if number < 100 else None
print(os.fstat(data).st_size)
""",
        says="the recording stopped",
    ),
    Row(
        "every-descriptor-closed-and-stderr-a-file",
        """
import os
train(1)
os.closerange(3, 70000)
os.close(2)
print(os.open("user.bin", os.O_CREAT | os.O_RDWR), flush=True)
os.write(2, b"U" * 5000)
train(3)
""",
    ),
]


FORKS = """
import atexit, multiprocessing, os, resource, signal, sys, threading
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
multiprocessing.set_start_method("fork")
atexit.register(print, "exit of", "parent", flush=True)

def fork(*ends):
    for end in ends:
        sys.stdout.flush()
        if (child := os.fork()) == 0:
            atexit.unregister(print)
            atexit.register(print, "exit of", end.__name__, flush=True)
            return end
        print(end.__name__, os.waitpid(child, 0)[1], flush=True)

def leave(): train(1); sys.exit(3)
def fail(): raise ValueError("of the child")
def go_on(): train(2)
def leave_hard(): os._exit(5)
def be_killed(): os.kill(os.getpid(), signal.SIGTERM)
def abort(): os.abort()
def fork_again():
    if os.fork() == 0:
        os.setsid()
        train(1)
        sys.exit(4)
    print("grandchild", os.wait()[1])
ENDS = leave, fail, go_on, leave_hard, be_killed, abort, fork_again

def fork_all():
    if end := fork(*ENDS):
        end()
        sys.exit(0)

def of_multiprocessing(end):
    one = multiprocessing.Process(target=end)
    one.start()
    one.join()
    print("multiprocessing", end.__name__, one.exitcode, flush=True)
"""
FORKING = [
    Row("forks-before-training", FORKS + "fork_all()\ntrain(2)"),
    Row("forks-after-training", FORKS + "train(2)\nfork_all()\ntrain(1)"),
    Row(
        "forks-by-multiprocessing-and-from-a-thread",
        FORKS
        + """
train(1)
of_multiprocessing(leave)
of_multiprocessing(go_on)
thread = threading.Thread(target=of_multiprocessing, args=(go_on,))
thread.start()
thread.join()
with multiprocessing.Pool(2) as pool:
    print(pool.map(abs, [-1, -2]))
train(1)
""",
    ),
    Row(
        "forks-after-the-recording",
        FORKS
        + """
train(2)
if "memtrace.hooks.recorder" in sys.modules:
    sys.modules["memtrace.hooks.recorder"].uninstall()
fork_all()
""",
    ),
    Row(
        "a-daemon",
        """
import os, sys
train(1)
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        sys.stdout = sys.stderr = open("daemon.log", "w", buffering=1)
        train(2)
        sys.exit(0)
    sys.exit(7)
os.close(write)
print(os.wait()[1], os.read(read, 1), flush=True)
os._exit(6)
""",
    ),
]


WRAP = """
import functools, sys
real = torch.nn.Module.__call__

def timed(*args, **kwargs):
    return real(*args, **kwargs)

def of_anything(self, *args):
    return real(self, *args)

class Timed:
    def __get__(self, module, kind):
        return functools.partial(real, module)

def forgetful(self, *args):
    module = self
    del self
    return real(module, *args)
"""
WRAPPED = [
    Row(f"calls-wrapped-{name}-{when}", f"{WRAP}\n{before}\ntorch.nn.Module.__call__ = {how}\ntrain(3)", is_warm=True)
    for name, how in (
        ("by-arguments", "functools.wraps(real)(timed)"),
        ("by-self", "of_anything"),
        ("by-an-object", "Timed()"),
        ("by-a-partial", "functools.partialmethod(real)"),
        ("by-one-that-deletes-self", "forgetful"),
    )
    for when, before in (("early", ""), ("late", "train(1)"))
    if name in ("by-arguments", "by-an-object") or when == "early"
]
NET = """
from torch import nn
net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
sgd = torch.optim.SGD(net.parameters(), lr=0.01)
x = torch.ones(2, 8)

def steps(model):
    for number in range(2):
        loss = model(x).sum(); loss.backward(); sgd.step(); sgd.zero_grad(); print(number, loss.item())
"""
SYMBOLIC = [
    Row(
        "jit",
        NET
        + """
class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 4)
    def forward(self, x):
        sgd = torch.optim.SGD(self.inner.parameters(), lr=0.1)
        self.inner(x).sum().backward(); sgd.step()
        return x * 2

traced = torch.jit.trace(net, x)
print(traced.code)
steps(traced)
print(torch.jit.trace(Inner(), x, check_trace=False).code)

@torch.jit.script
def scripted(x):
    with torch.autograd.profiler.record_function("range"):
        return torch.autograd.grad([(x * x).sum()], [x])[0]

print(scripted(torch.ones(3, requires_grad=True)))
steps(torch.jit.script(net))
""",
    ),
    Row(
        "export-and-fx",
        NET
        + """
print(torch.export.export(net, (x,)).graph)
graph = torch.fx.symbolic_trace(net)
print(graph.code)
from torch.fx.experimental.proxy_tensor import make_fx
print(make_fx(net)(x).code)
steps(graph)
print(torch.fx.symbolic_trace(net).code)
""",
    ),
    Row(
        "fake-modes-and-functorch",
        NET
        + """
from torch._subclasses.fake_tensor import FakeTensorMode
mode = FakeTensorMode(allow_non_fake_inputs=True)
with mode:
    fake = nn.Linear(8, 4); adam = torch.optim.Adam(fake.parameters())
    fake(torch.randn(2, 8)).sum().backward(); adam.step()
    print(type(net(mode.from_tensor(x))).__name__)
fake(mode.from_tensor(x)).sum().backward()
adam.step()
of = lambda parameters, x: torch.func.functional_call(net, parameters, (x,)).sum()
print(torch.func.grad(of)(dict(net.named_parameters()), x)["0.bias"])
print(torch.vmap(net)(x), torch.func.jvp(net, (x,), (x,))[1])
steps(net)
""",
    ),
]
ROWS = DESCRIPTORS + FORKING + WRAPPED + SYMBOLIC


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_recorded_is_bare(tmp_path: Path, row: Row) -> None:
    bare, _ = run(tmp_path / "bare", row, is_recorded=False)
    recorded, said = run(tmp_path / "recorded", row, is_recorded=True)
    if row.says is not None:
        recorded.stderr = without_one_line(recorded.stderr, "memtrace: " + row.says)
    assert recorded == bare
    assert "Wrote t.json" in said
    warnings = [one for rank in read_trace(tmp_path / "recorded/t.json").ranks for one in rank.warnings]
    assert [one for one in warnings if one.slug == "hook-failed"] == []
