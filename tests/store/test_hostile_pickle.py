"""Pickles that would run code, or take memory out of proportion, are refused; nothing in them is executed."""

from __future__ import annotations

import collections
import gzip
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memtrace.errors import TraceReadError
from memtrace.store.reading.read import read_trace
from tests.builders import snapshot


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def refusal(path: Path, content: bytes) -> TraceReadError:
    path.write_bytes(content)
    with pytest.raises(TraceReadError) as caught:
        read_trace(path)
    return caught.value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("compressed", [False, True])
def test_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path, protocol: int, compressed: bool) -> None:
    target = tmp_path / "made-by-the-pickle"
    content = pickle.dumps({"segments": [], "device_traces": [[Bomb(target)]]}, protocol=protocol)
    error = refusal(tmp_path / "bomb", gzip.compress(content) if compressed else content)
    assert error.slug == "pickle-refused"
    assert "mkdir" in error.message
    assert not target.exists()


@pytest.mark.parametrize(
    "value", [collections.OrderedDict(a=1), {1, 2}.__class__, ValueError("x"), Path("x"), bytearray(b"x")]
)
def test_even_a_harmless_class_is_refused(tmp_path: Path, value: object) -> None:
    content = pickle.dumps({"segments": [], "device_traces": [], "extra": value}, protocol=2)
    assert refusal(tmp_path / "class", content).slug == "pickle-refused"


OPCODES = {
    "a persistent id": b"\x80\x02}X\x01\0\0\0aU\x01bQs.",
    "a persistent id as text": b"Pname\n.",
    "an old instance": b"(ios\nsystem\n.",
    "an object of a named class": b"(cos\nsystem\nX\x02\0\0\0lso.",
    "a name on the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.",
    "an extension code": b"\x80\x02\x82\x01.",
    "an out-of-band buffer": b"\x80\x05\x97.",
    "a call of a text": b"\x80\x02X\x02\0\0\0ls)R.",
    "a state for a text": b"\x80\x02X\x02\0\0\0ls}b.",
    "an unknown opcode": b"\x80\x02\xff.",
    "an unhashable key": b"\x80\x02}](]Ns.",
    "a memo that was never filled": b"\x80\x02h\x07.",
    "a protocol of the future": b"\x80\x09}.",
    "a text longer than the file": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"a.",
    "a bytearray longer than the file": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"a.",
    "a frame longer than the file": b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b"}.",
    "an empty stack": b"\x80\x02.",
    "nothing but a mark": b"\x80\x02(.",
}


@pytest.mark.parametrize("name", OPCODES)
def test_odd_opcodes_are_refused(tmp_path: Path, name: str) -> None:
    error = refusal(tmp_path / "odd", OPCODES[name])
    assert "\n" not in error.message


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is capped on Linux only")
@pytest.mark.parametrize("opcode", [b"r\xf0\xff\xff\xff", b"p4000000000\n"])
def test_few_bytes_cannot_ask_for_gigabytes_of_memo(tmp_path: Path, opcode: bytes) -> None:
    # The unpickler makes room for all memo entries up to the number that it is given: here 64 GiB.
    error = refusal(tmp_path / "memo", b"\x80\x02}" + opcode + b".")
    assert error.slug == "file-too-large"


def test_memory_cap_is_lifted_afterwards(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    refusal(tmp_path / "cut", b"\x80\x04}")
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.parametrize("nested", [b"\x85", b"N\x86", b"\x85\x94"])
def test_key_that_is_nested_a_million_deep_does_not_crash_the_process(tmp_path: Path, nested: bytes) -> None:
    path = tmp_path / "deep"
    path.write_bytes(b"\x80\x04}N" + nested * 1_000_000 + b"Ns.")
    # A crash would take pytest with it, so another process reads.
    code = f"from memtrace.store.reading.read import read_trace; read_trace({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "TraceReadError" in done.stderr


def test_terminal_escapes_in_a_refusal_are_shown_not_sent(tmp_path: Path) -> None:
    error = refusal(tmp_path / "escape", b"c\x1b[2Jos\nsystem\n.".replace(b"c", b"(c", 1))
    assert "\x1b" not in error.message


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_snapshot_is_read_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "plain"
    path.write_bytes(pickle.dumps(snapshot().alloc(1 << 44, 512).build(), protocol=protocol))
    assert read_trace(path).ranks[0].table("events")["address"].tolist() == [1 << 44]


def test_settings_that_no_json_could_hold_are_dropped(tmp_path: Path) -> None:
    odd: dict[str, Any] = snapshot().alloc(1, 512).build()
    odd["allocator_settings"] = {"PYTORCH_CUDA_ALLOC_CONF": float("nan"), "roundup": {"1": float("inf"), "2": 2.5}}
    path = tmp_path / "odd"
    path.write_bytes(pickle.dumps(odd))
    settings = read_trace(path).ranks[0].header["allocator_settings"]
    assert "PYTORCH_CUDA_ALLOC_CONF" not in settings
    assert settings["roundup"] == {"2": 2.5}


def test_cyclic_data_is_read_or_refused_but_ends(tmp_path: Path) -> None:
    cyclic: dict[str, Any] = snapshot().alloc(1, 512).build()
    cyclic["itself"] = cyclic
    cyclic["allocator_settings"] = cyclic
    path = tmp_path / "cyclic"
    path.write_bytes(pickle.dumps(cyclic))
    assert len(read_trace(path).ranks[0].table("events")) == 1
