"""Other processes that a program starts, and what it learns of them."""

from __future__ import annotations

from tests.process.programs.row import Row

WORK = """
import multiprocessing, time

def trains(number):
    train(2)
    print("trained", number, flush=True)

def fails(number):
    model(torch.ones(2, 3))

def is_idle(number):
    print("idle", number, flush=True)

def leaves(number):
    train(1)
    sys.exit(number)

if __name__ == "__main__":
    train(1)
    context = multiprocessing.get_context(sys.argv[1])
    for number, work in enumerate((trains, fails, is_idle, leaves)[: int(sys.argv[2])]):
        one = context.Process(target=work, args=(number,), name=f"worker-{number}")
        one.start()
        one.join()
        print(one.name, one.exitcode, flush=True)
"""
DATA = """
from torch.utils.data import DataLoader, Dataset

class Numbers(Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, number):
        if number == self.bad:
            raise IndexError("of the dataset")
        return torch.full((16,), float(number)) + torch.rand(16)
    bad = None

def epoch(num_workers):
    shuffled = torch.Generator().manual_seed(1)
    loader = DataLoader(Numbers(), batch_size=2, num_workers=num_workers, shuffle=True, generator=shuffled)
    for batch in loader:
        loss = model(batch).sum(); loss.backward(); optimizer.step(); optimizer.zero_grad()
        print(batch.sum().item(), loss.item())

epoch(2)
torch.utils.data.get_worker_info()
Numbers.bad = 3
epoch(1)
"""
ROWS = [
    # The parent, the worker that trains, the one that leaves.
    Row("workers-of-a-fork-server", WORK, words=("train.py", "forkserver", "4"), num_processes=3),
    Row("a-spawned-worker", WORK, words=("train.py", "spawn", "1"), num_processes=2),
    Row("data-loading-workers", DATA),
    Row(
        "commands",
        """
import os, subprocess
train(1)
print(subprocess.run(["sh", "-c", "echo $OMP_NUM_THREADS; exit 3"], capture_output=True))
look = ["-c", "import sys; print(sys.flags.isolated)"]
for words, environ in ((look, None), (["-I", *look], None), (look, {})):
    print(subprocess.run([sys.executable, *words], capture_output=True, env=environ, close_fds=False))
print(os.system("exit 2"), os.popen("echo 4").read(), os.spawnlp(os.P_WAIT, "true", "true"))
train(1)
os.environ.clear()
print(subprocess.run([sys.executable, "-c", "import os; print(sorted(os.environ))"], capture_output=True).returncode)
train(1)
""",
    ),
    Row(
        "calls-by-rpc",
        """
import os, torch.distributed.rpc as rpc
options = rpc.TensorPipeRpcBackendOptions(init_method=f"file://{os.getcwd()}/store")
rpc.init_rpc("alone", rank=0, world_size=1, rpc_backend_options=options)
for number in range(2):
    train(1)
    print(rpc.rpc_sync("alone", torch.add, args=(torch.ones(2), number)))
print(rpc.remote("alone", torch.add, args=(torch.ones(2), 1)).to_here())
rpc.shutdown()
os.remove("store")
""",
    ),
]
