"""What belongs to the process: folders, variables, limits, signals, files."""

from __future__ import annotations

from tests.process.programs.row import Row

ROWS = [
    Row(
        "folders-and-variables-changed",
        """
import os, tempfile
for name in ("there", "home", "temporary"):
    os.mkdir(name)
here = os.getcwd()
os.environ.update(HOME=f"{here}/home", TMPDIR=f"{here}/temporary", PYTHONPATH="", LANG="C")
tempfile.tempdir = None
train(1)
os.chdir("there")
train(2)
tempfile.NamedTemporaryFile(delete=False, prefix="kept", dir=None).close()
open("relative.txt", "w").write("here")
print(len(os.listdir(os.environ["TMPDIR"])), os.listdir("."), os.path.relpath(os.getcwd(), here))
for path in os.listdir(os.environ["TMPDIR"]):
    os.unlink(os.path.join(os.environ["TMPDIR"], path))
os.rmdir(os.environ["TMPDIR"])
os.chdir("/")
train(1)
""",
    ),
    Row(
        "its-folder-removed",
        """
import os, shutil
os.mkdir("there"); os.chdir("there")
train(1)
os.rmdir(os.path.join(os.pardir, "there"))
train(2)
try:
    os.getcwd()
except FileNotFoundError as error:
    print(error.strerror)
train(1)
""",
    ),
    Row(
        "parts-removed",
        """
import glob, shutil
train(2)
for path in glob.glob("*.parts"):
    shutil.rmtree(path)
train(3)
""",
        trains=False,  # the steps before the removal are gone
    ),
    Row(
        "umask",
        """
import os
for mask in (0o077, 0o777, 0o000):
    os.umask(mask)
    train(1)
    open(f"mask-{mask:o}.txt", "w").close()
    print(oct(os.umask(0o022)))
os.chmod("mask-777.txt", 0o600)
""",
    ),
    Row(
        "a-limit-of-file-sizes",
        """
import os, resource, signal
train(2)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    open("large.bin", "wb").write(b"U" * 30_000)
except OSError as error:
    print(error.strerror, os.path.getsize("large.bin"))
train(30)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
train(3)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
open("whole.bin", "wb").write(b"U" * 30_000)
train(1)
""",
        says="the recording stopped",
    ),
    Row(
        "signals-and-timers",
        """
import os, signal, time
print({one.name: str(signal.getsignal(one)) for one in signal.valid_signals() if isinstance(one, signal.Signals)})
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), os.getpgid(0) == os.getpid(), signal.getitimer(signal.ITIMER_REAL))
seen = []
for one in (signal.SIGUSR1, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD):
    signal.signal(one, lambda number, frame: seen.append(number))
train(2, at=lambda step: (os.kill(os.getpid(), signal.SIGUSR1), os.kill(os.getpid(), signal.SIGTERM)))
signal.setitimer(signal.ITIMER_REAL, 0.001)
while signal.SIGALRM not in seen:
    train(1) if len(seen) < 4 else time.sleep(0.001)
signal.signal(signal.SIGALRM, signal.SIG_DFL)
print(sorted(set(seen)))
class Stop(Exception): pass
def stop(number, frame): raise Stop
signal.signal(signal.SIGUSR2, stop)
for _ in range(2):
    try:
        train(1, at=lambda step: signal.raise_signal(signal.SIGUSR2))
    except Stop:
        print("stopped")
try:
    train(1, at=lambda step: signal.raise_signal(signal.SIGINT))
except KeyboardInterrupt:
    print("interrupted")
train(1)
""",
    ),
    Row(
        "signals-that-are-waited-for",
        """
import os, signal
train(2)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
os.kill(os.getpid(), signal.SIGUSR2); os.kill(os.getpid(), signal.SIGTERM)
train(1)
print(signal.sigpending(), signal.sigwait([signal.SIGUSR2]), signal.sigwaitinfo([signal.SIGTERM]).si_signo)
train(1)
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
""",
    ),
    Row(
        "a-fault-handler",
        """
import faulthandler, os, resource, signal
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
faulthandler.enable(open(os.devnull, "w")); print(faulthandler.is_enabled())
train(2)
faulthandler.dump_traceback_later(60, exit=True); train(1); faulthandler.cancel_dump_traceback_later()
os.kill(os.getpid(), signal.SIGSEGV)
""",
    ),
    Row(
        "much-that-fails-and-is-caught",
        """
train(1)
for size in (1 << 60, -1):
    try:
        torch.empty(size)
    except RuntimeError as error:
        print(str(error).splitlines()[0])
for _ in range(3):
    try:
        train(1, at=lambda step: 1 / 0)
    except ZeroDivisionError as error:
        print(error.__traceback__.tb_lineno, error.__context__)
x = torch.ones(2, requires_grad=True)
y = (x * 2).exp()
y.add_(1)
try:
    y.sum().backward()
except RuntimeError as error:
    print("modified" if "modified by an inplace operation" in str(error) else error)
train(2)
""",
    ),
]
