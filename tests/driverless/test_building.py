"""What is built: the symbols that a library wants, the C text that answers them, and what is refused in a sentence."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from memtrace.driverless.build import SOURCES, built_libraries, compiler
from memtrace.driverless.elf import ElfFile, Symbol
from memtrace.driverless.environment import Devices, described_devices, environment
from memtrace.driverless.rules import LIBRARIES, library_of
from memtrace.driverless.stubs import answered_in, stub_source, version_script
from memtrace.driverless.symbols import OF_TRITON, Wanted, wanted_symbols
from memtrace.driverless.torch_build import read_build, torch_of
from memtrace.errors import MemtraceError
from memtrace.schema.gpu_cards import CARDS, LIMITS, is_amd


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """A folder with a library that takes a versioned symbol from another."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    (tmp_path / "given.map").write_text("libcudart.so.13 { global: *; };", encoding="utf-8")
    (tmp_path / "given.c").write_text("int cudaMalloc(void) { return 0; }", encoding="utf-8")
    text = 'int cudaMalloc(void); int nvmlInit_v2(void); const char *name = "cuMemCreate";'
    text += "int go(void) { return cudaMalloc() + nvmlInit_v2(); }"
    (tmp_path / "taker.c").write_text(text, encoding="utf-8")
    made = {"libcudart.so.13": ["given.c", "-Wl,--version-script=given.map"], "taker.so": ["taker.c"]}
    for name, options in made.items():
        after = ["./libcudart.so.13"] if name == "taker.so" else []
        command = ["cc", "-shared", "-fPIC", "-o", name, *options, f"-Wl,-soname,{name}", *after]
        subprocess.run(command, cwd=tmp_path, check=True)
    (tmp_path / "libcudart.so.13").unlink()
    return tmp_path


def test_symbols_are_read_with_the_library_and_version_that_they_must_come_from(compiled: Path) -> None:
    elf = ElfFile(compiled / "taker.so")
    assert "libcudart.so.13" in elf.needed()
    found = {symbol.name: symbol for symbol in elf.undefined()}
    assert found["cudaMalloc"] == Symbol(name="cudaMalloc", library="libcudart.so.13", version="libcudart.so.13")
    assert found["nvmlInit_v2"] == Symbol(name="nvmlInit_v2")
    assert elf.words(r"cu[A-Z]\w+") == {"cuMemCreate"}


def test_each_symbol_goes_to_its_library(compiled: Path) -> None:
    wanted = wanted_symbols(compiled)
    assert wanted["libcudart.so.13"].names == {"cudaMalloc"}
    assert wanted["libcudart.so.13"].version == "libcudart.so.13"
    assert wanted["libnvidia-ml.so.1"].names == {"nvmlInit_v2"}
    assert wanted["libcuda.so.1"].names == {"cuMemCreate", *OF_TRITON.split()}


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x02\x01", b"#!/bin/sh\n" * 10])
def test_what_is_no_library_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(content)
    with pytest.raises(MemtraceError, match=r"lib\.so"):
        ElfFile(path)


def test_a_function_is_answered_by_a_file_by_a_rule_or_by_a_refusal() -> None:
    library = library_of("cublasSgemm_v2")
    assert library is not None
    wanted = Wanted(library=library, file="libcublas.so.13", version="libcublas.so.13")
    wanted.names |= {"cublasSgemm_v2", "cublasSrotmg_v2", "cublasSetStream_v2"}
    text = stub_source(wanted, {"cublasSetStream_v2"})
    assert answered_in(text) == {"cublasSgemm_v2", "cublasSrotmg_v2"}
    assert f'dl_refuse("cublasSrotmg_v2", {library.refusal})' in text
    assert 'dl_refuse("cublasSgemm_v2"' not in text
    assert version_script(wanted) == "libcublas.so.13 { global: *; };\n"


def test_every_file_of_c_belongs_to_a_library_and_answers_its_functions_only() -> None:
    own = {path.name for path in SOURCES.glob("lib*.c")}
    assert own <= {library.file.replace(".so", ".c") for library in LIBRARIES}
    for library in LIBRARIES:
        path = SOURCES / library.file.replace(".so", ".c")
        if path.is_file():
            answered = answered_in(path.read_text(encoding="utf-8"))
            # What begins so is asked by memtrace, of what the library saw.
            strange = {one for one in answered if library_of(one) is not library and not one.startswith("dl_")}
            assert strange == set(), path.name


def test_rules_of_a_library_name_its_functions_only() -> None:
    for library in LIBRARIES:
        for rule in library.rules:
            prefix = re.match(r"\w*", rule.names.replace("(?:", "")).group()  # type: ignore[union-attr]
            assert re.match(r"cu|nccl|nvtx", prefix), rule.names


def test_every_card_of_nvidias_can_be_described() -> None:
    for name, card in CARDS.items():
        if is_amd(card):
            with pytest.raises(MemtraceError, match="not NVIDIA's"):
                described_devices(Devices(gpu=name), cuda_major=13)
            continue
        fields = dict(one.split("=") for one in described_devices(Devices(gpu=name), cuda_major=12).split(";"))
        assert (int(fields["major"]), int(fields["minor"])) in LIMITS
        assert int(fields["memory"]) == card.memory_bytes


@pytest.mark.parametrize(
    ("devices", "sentence"),
    [
        (Devices(gpu="h200"), "there is no GPU 'h200'"),
        (Devices(num_devices=0), "0 devices"),
        (Devices(num_devices=17), "17 devices"),
        (Devices(memory_bytes=2**20), "no room for a context"),
    ],
)
def test_devices_that_cannot_be_are_refused_in_a_sentence(devices: Devices, sentence: str) -> None:
    with pytest.raises(MemtraceError, match=re.escape(sentence)):
        described_devices(devices, cuda_major=13)


@pytest.mark.parametrize(
    ("version", "cuda", "sentence"),
    [
        ("2.13.0+cpu", "None", "not built for CUDA"),
        ("2.5.1+cu124", "'12.4'", "needs torch 2.6"),
        ("2.6.0+cu118", "'11.8'", "CUDA 11.8"),
    ],
)
def test_a_torch_that_cannot_do_it_is_refused(tmp_path: Path, version: str, cuda: str, sentence: str) -> None:
    text = f"from typing import Optional\n__version__ = '{version}'\ncuda: Optional[str] = {cuda}\ngit_version = 'x'\n"
    (tmp_path / "version.py").write_text(text, encoding="utf-8")
    with pytest.raises(MemtraceError) as refused:
        read_build(tmp_path)
    assert sentence in f"{refused.value.message} {refused.value.hint}"


def test_versions_that_torch_asks_for_are_read_from_its_metadata(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    facts = "__version__ = '2.13.0+cu130'\ncuda = '13.0'\ngit_version = 'abc'\n"
    (tmp_path / "torch" / "version.py").write_text(facts, encoding="utf-8")
    (tmp_path / "torch-2.13.0.dist-info").mkdir()
    asked = 'Requires-Dist: nvidia-cudnn-cu13==9.20.0.48; platform_system == "Linux"\n'
    (tmp_path / "torch-2.13.0.dist-info" / "METADATA").write_text(asked, encoding="utf-8")
    build = read_build(tmp_path / "torch")
    assert (build.version, build.cuda, build.revision, build.cudnn) == ("2.13.0+cu130", (13, 0), "abc", 92000)


def test_a_machine_without_a_compiler_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MemtraceError) as refused:
        compiler()
    assert "memtrace[driverless]" in str(refused.value.hint)


def test_a_library_that_nobody_knows_is_named(compiled: Path) -> None:
    text = (compiled / "taker.so").read_bytes().replace(b"libcudart.so.13", b"libcuother.so.1")
    (compiled / "taker.so").write_bytes(text)
    with pytest.raises(MemtraceError, match="needs libcuother"):
        wanted_symbols(compiled)


def test_every_symbol_of_the_installed_torch_has_an_answer(cuda_python: str, tmp_path: Path) -> None:
    torch = torch_of(cuda_python)
    libraries = {path.name: path for path in built_libraries(torch, cache=tmp_path)}
    for file, wanted in wanted_symbols(torch.libraries).items():
        done = subprocess.run(
            ["nm", "-D", "--defined-only", libraries[file]], capture_output=True, text=True, check=True
        )
        defined = {line.split()[-1].split("@")[0] for line in done.stdout.splitlines()}
        assert wanted.names <= defined, file
    assert built_libraries(torch, cache=tmp_path) == list(libraries.values()), "built once"


@pytest.mark.process
def test_libraries_of_the_program_are_preloaded_as_before(cuda_python: str) -> None:
    found = environment(Devices(), python=cuda_python, inherited={"LD_PRELOAD": "/lib/one.so /lib/two.so"})
    assert found["LD_PRELOAD"].split(":")[-2:] == ["/lib/one.so", "/lib/two.so"]
    assert Path(found["LD_PRELOAD"].split(":")[0]).is_file()
