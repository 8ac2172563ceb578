"""Signals reach the program once, and the launcher ends as the program ended."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.process.conftest import split_said

COUNT = """
import os, signal, sys, time
def note(number, frame):
    os.write(1, f"got {signal.Signals(number).name}\\n".encode())
for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(one, note)
os.write(1, b"ready\\n")
end = time.monotonic() + 1.5
while time.monotonic() < end:
    time.sleep(0.05)
"""
"""Says which signals it gets."""


def wait_for(process, line):
    """Read the program's output until it says a line; return what came before."""
    seen = []
    for said in process.stdout:
        if said == line:
            return seen
        seen.append(said)
    pytest.fail(f"{line!r} was never said: {seen} {process.stderr.read()}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
@pytest.mark.parametrize("target", ["launcher", "group"])
def test_a_signal_is_received_exactly_once(work, python, number, target):
    work.write("count.py", COUNT, trains=False)
    process = work.start(python, "count.py")
    wait_for(process, b"ready\n")
    (os.kill if target == "launcher" else os.killpg)(process.pid, number)
    out, _ = process.communicate(timeout=30)
    assert out == f"got {number.name}\n".encode()
    assert process.returncode == 0


def test_signals_one_after_the_other_all_arrive(work, python):
    work.write("count.py", COUNT, trains=False)
    process = work.start(python, "count.py")
    wait_for(process, b"ready\n")
    os.killpg(process.pid, signal.SIGUSR1)
    time.sleep(0.4)
    os.kill(process.pid, signal.SIGUSR1)
    time.sleep(0.4)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert out.split() == b"got SIGUSR1 got SIGUSR1 got SIGINT".split()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGABRT, signal.SIGINT])
def test_death_by_a_signal_looks_the_same_to_a_shell(work, python, number):
    program = f"import os, signal; signal.signal({int(number)}, signal.SIG_DFL) if {int(number)} != 9 else 0; "
    work.write("die.py", program + f"os.kill(os.getpid(), {int(number)})", trains=False)
    assert work.record(python, "die.py").returncode == work.bare(python, "die.py").returncode == -number


def test_ignored_signals_stay_ignored(work, python):
    """As under nohup."""
    program = "import signal; print(signal.getsignal(signal.SIGHUP).name, signal.getsignal(signal.SIGINT).name)"
    work.write("look.py", program, trains=False)
    line = " ".join(work.line(python, "look.py", options=["-o", "t.json"]))
    assert work.bare("sh", "-c", f"trap '' HUP INT; {line}").stdout == b"SIG_IGN SIG_IGN\n"


def test_ctrl_c_in_training_keeps_what_was_recorded(work, python):
    work.write("train.py", "train(10**9, at=lambda step: __import__('time').sleep(0.05))")
    process = work.start(python, "train.py")
    wait_for_step(process, 4)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    own, said = split_said(err)
    assert process.returncode == -signal.SIGINT
    assert own.rstrip().endswith(b"KeyboardInterrupt")
    assert own.count(b"Traceback") == 1
    assert b"memtrace" not in own
    assert said.startswith("Wrote t.json")
    rank = work.rank()
    assert rank.complete
    assert rank.header["exception"]["type"] == "KeyboardInterrupt"
    assert work.trace().header["exit_status"] == -signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_step_three_keeps_steps_one_and_two(work, python, number):
    work.write(
        "train.py", f"import os\ntrain(9, at=lambda step: os.kill(os.getpid(), {int(number)}) if step == 3 else 0)"
    )
    ran = work.record(python, "train.py")
    assert ran.returncode == -number
    assert ran.stderr == b""
    assert "incomplete" in ran.said
    trace, rank = work.trace(), work.rank()
    assert trace.header["exit_status"] == -number
    assert not rank.complete
    steps = {row["step"]: row for row in rank.table("steps").rows()}
    assert steps[1]["recorded"]
    assert steps[2]["recorded"]
    assert "host-kill-possible" not in {warning.slug for warning in trace.warnings}


def test_the_launcher_killed_itself_leaves_parts_that_merge_takes(work, python, run_memtrace):
    work.write("train.py", "train(10**9, at=lambda step: __import__('time').sleep(0.05))")
    process = work.start(python, "train.py")
    wait_for_step(process, 3)
    os.kill(process.pid, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert not (work.folder / "t.json").exists()
    again = work.record(python, "-c", "pass")
    assert again.returncode == 1
    assert b"parts of an earlier recording" in again.stderr
    merged = run_memtrace("merge", "t.json.parts", cwd=work.folder)
    assert merged.returncode == 0, merged.stderr
    assert {1, 2} <= set(work.rank().table("steps")["step"].tolist())
    assert work.trace().header["command"][-1] == "train.py"


def wait_for_step(process, step):
    for said in process.stdout:
        if said.startswith(f"{step} ".encode()):
            return
    pytest.fail(process.stderr.read().decode())
