"""Descriptors that a program closes, takes, uses up and counts on."""

from __future__ import annotations

from tests.process.programs.row import Row

ROWS = [
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
    Row(
        "descriptors-used-up",
        """
import os, resource
train(1)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError as error:
    print(error.strerror, taken[0])
for _ in range(2):
    train(2)
    os.close(taken.pop())
train(1)
""",
    ),
    Row(
        "descriptors-numbered-as-ever",
        """
import os, socket, subprocess, tempfile
print([os.open(os.devnull, os.O_RDONLY) for _ in range(3)])
train(1)
print(os.pipe(), os.dup(1), socket.socket().fileno(), tempfile.TemporaryFile().fileno())
os.dup2(1, 200)
os.ftruncate(os.open("user.bin", os.O_CREAT | os.O_RDWR), 3)
train(1)
os.write(200, b"still stdout\\n")
print(subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True, close_fds=False).stdout.split())
""",
    ),
    Row(
        "standard-streams-replaced",
        """
import contextlib, io, os
train(1)
with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.redirect_stderr(text):
    train(2)
print(len(text.getvalue().splitlines()))
log = os.open("log.txt", os.O_CREAT | os.O_WRONLY)
os.dup2(log, 1); os.dup2(log, 2)
train(2)
print("to stderr", file=sys.stderr)
""",
    ),
    Row("stderr-closed", "train(1)\nsys.stderr.close()\ntrain(2)\nsys.exit(3)"),
    Row(
        "stdout-closed",
        """
import os
train(1)
os.close(1)
try:
    train(1)
except OSError as error:
    print(error, file=sys.stderr)
os._exit(2)
""",
    ),
]
