"""Forks, and every way in which a forked child ends."""

from __future__ import annotations

from tests.process.programs.row import Row

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

def of_multiprocessing(end):
    one = multiprocessing.Process(target=end)
    one.start()
    one.join()
    print("multiprocessing", end.__name__, one.exitcode, flush=True)

def daemon():
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
"""
ROWS = [
    Row(
        "forks",
        FORKS
        + """
if end := fork(leave, fail, go_on, leave_hard, be_killed, abort, fork_again):
    end()
    sys.exit(0)
train(2)
if end := fork(leave, fail, go_on, leave_hard, be_killed, abort, fork_again):
    end()
    sys.exit(0)
of_multiprocessing(leave)
of_multiprocessing(go_on)
thread = threading.Thread(target=of_multiprocessing, args=(fail,))
thread.start()
thread.join()
with multiprocessing.Pool(2) as pool:
    print(pool.map(abs, [-1, -2]))
train(1)
daemon()
""",
        ends_in_full=True,
    ),
    Row(
        "forks-inside-a-pass",
        FORKS
        + """
def fork_inside(end):
    def inside(*_):
        if fork(end):
            ends.append(end)
            end()
    return inside

def go_back(): pass
def become(): os.execv("/bin/true", ["true"])
def leave_at_once(): sys.exit(4)
ends = []
for end in (leave_hard, become, go_back, leave_at_once):
    for hang in (model.register_forward_hook, model.weight.register_hook):
        handle = hang(fork_inside(end))
        train(1)
        handle.remove()
        if ends:
            sys.exit(5)
""",
        ends_in_full=True,
    ),
    Row(
        "forks-after-the-recording",
        FORKS
        + """
train(2)
if "memtrace.hooks.recorder" in sys.modules:
    sys.modules["memtrace.hooks.recorder"].uninstall()
if end := fork(leave, fail, go_on):
    end()
    sys.exit(0)
""",
        ends_in_full=True,
    ),
]
