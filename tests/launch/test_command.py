"""The environment and the file that a command runs with; processes themselves are in tests/process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from memtrace.errors import RecordError
from memtrace.launch.command import BOOTSTRAP_DIR, PACKAGE_DIR, build_environment, resolve
from memtrace.launch.host_memory import HostMemory, possible_kill, read_host_memory
from memtrace.launch.trigger import find_parts, trigger
from memtrace.schema.options import OPTIONS_VARIABLE, RecordOptions

OPTIONS = RecordOptions(parts_dir="/parts", steps="1-2")


def test_the_bootstrap_is_where_the_launcher_says() -> None:
    assert (BOOTSTRAP_DIR / "sitecustomize.py").is_file()
    assert (PACKAGE_DIR / "memtrace" / "__init__.py").is_file()


@pytest.mark.parametrize("before", [None, "", "/mine", "/mine:/yours", ":/mine"])
def test_the_path_is_only_added_to(before: str | None) -> None:
    environ = {"HOME": "/home"} | ({} if before is None else {"PYTHONPATH": before})
    after = build_environment(OPTIONS, environ)
    assert after["PYTHONPATH"] == os.pathsep.join([str(BOOTSTRAP_DIR), *([before] if before else [])])
    assert RecordOptions.from_json(after[OPTIONS_VARIABLE]) == OPTIONS
    assert after["HOME"] == "/home"
    assert OPTIONS_VARIABLE not in environ


def test_a_command_is_found_as_by_a_shell(tmp_path: Path) -> None:
    program = tmp_path / "train"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(RecordError) as caught:
        resolve("train", {"PATH": str(tmp_path)})
    assert caught.value.exit_code == 127
    with pytest.raises(RecordError) as caught:
        resolve(str(program), {})
    assert caught.value.exit_code == 126
    program.chmod(0o755)
    assert resolve("train", {"PATH": str(tmp_path)}) == str(program)


def memory(kills: int | None, peak: int, limit: int | None = 1000) -> HostMemory:
    return HostMemory(num_oom_kills=kills, limit_bytes=limit, peak_child_rss_bytes=peak)


@pytest.mark.parametrize(
    ("before", "after", "is_possible"),
    [
        (memory(3, 0), memory(4, 100), True),
        (memory(3, 0), memory(3, 100), False),
        (memory(3, 0), memory(3, 900), True),
        (memory(None, 0), memory(None, 900, None), False),
        (memory(None, 0), memory(1, 10), False),
    ],
)
def test_when_a_kill_by_the_host_is_possible(before: HostMemory, after: HostMemory, is_possible: bool) -> None:
    assert (possible_kill(before, after) is not None) == is_possible


def test_this_host_tells_its_memory() -> None:
    now = read_host_memory()
    assert now.limit_bytes is not None
    assert now.limit_bytes > 2**28
    assert possible_kill(now, now) is None


def test_parts_are_found_from_any_name_of_a_run(tmp_path: Path) -> None:
    beside = tmp_path / "t.json.parts"
    shared = [tmp_path / "run" / f"launcher-0000{rank}.parts" for rank in range(2)]
    for folder in (beside, *shared):
        folder.mkdir(parents=True)
        (folder / "launcher.json").write_text("{}")
    assert find_parts(str(tmp_path / "t.json")) == find_parts(str(beside)) == [beside]
    assert find_parts(str(tmp_path / "run")) == shared
    assert find_parts(str(tmp_path / "other")) == find_parts("999999999") == find_parts(".") == []
    with pytest.raises(RecordError, match="its recording has ended"):
        trigger(str(beside), 1)
