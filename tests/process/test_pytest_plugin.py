"""The plugin for pytest in real runs of pytest: bodies of marked tests are measured to the byte, others left alone."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from memtrace.units import format_bytes

pytest_plugins = ("pytester",)

PLUGIN = "memtrace.integrations.pytest_plugin"
ROOT = Path(__file__).parent.parent.parent
FLOATS = 1000
"""Elements of a float32 tensor of 4000 bytes, below which the CPU allocator is asked for just that."""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> object:
    """A function that runs pytest in a process of its own on a file, with this plugin and those that are named."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run_file(source: str, *args: str) -> pytest.RunResult:
        pytester.makepyfile(source)
        return pytester.runpytest_subprocess("-p", PLUGIN, "--strict-markers", "-W", "error", *args, timeout=120)

    return run_file


TESTS = f"""
import pytest, torch
limit = pytest.mark.limit_accelerator_memory
kept = []

def hold():
    # Two are live together; a third only after the first has gone.
    a, b = torch.empty({FLOATS}), torch.empty({FLOATS})
    del a
    return torch.empty({FLOATS} // 2), b

@limit("{8 * FLOATS} B")
def test_at_the_limit():
    kept.append(hold())

@limit({8 * FLOATS - 1})
def test_a_byte_over():
    hold()

@limit({2 * FLOATS})
def test_what_was_there_before_does_not_count():
    assert kept
    kept.append(torch.empty({FLOATS} // 2))

@limit(1)
def test_frees_what_was_there_before():
    kept.clear()

def test_without_the_mark():
    hold()

@limit(1)
def test_that_fails_by_itself():
    hold()
    assert "its own reason" == ""

@limit(1)
def test_that_is_skipped():
    pytest.skip("for a reason")

@limit("much")
def test_of_a_wrong_mark():
    pass

@limit("1 B", device="tpu")
def test_of_a_wrong_device():
    pass

@limit("1 KiB")
def test_training():
    model = torch.nn.Linear(64, 64)
    for _ in range(2):
        model(torch.ones(2, 64)).sum().backward()
"""


def test_limits_hold_to_the_byte_and_failures_say_where_the_memory_is(run) -> None:  # type: ignore[no-untyped-def]
    result = run(TESTS, "-v")
    outcomes = result.parseoutcomes()
    assert outcomes == {"passed": 4, "failed": 5, "skipped": 1}, result.stdout.str()
    out = result.stdout.str()
    size_of_linear = format_bytes(4 * (64 * 64 + 64))
    for name in ("test_at_the_limit", "test_what_was_there_before_does_not_count", "test_without_the_mark"):
        assert f"::{name} PASSED" in out
    result.stdout.fnmatch_lines(
        [
            f"*::test_a_byte_over peaks at 7.81 KiB ({8 * FLOATS:,} bytes) requested on cpu: 1 B (1 bytes) more than*",
            "At the peak:",
            "*7.81 KiB  unattributed",
            "Largest stacks at the peak:",
            f"*7.81 KiB  *py:{line_of('a, b = torch')} hold  (2 allocations)",
            f"*py:{line_of('    hold()')} test_a_byte_over",
            "*its own reason*",
        ]
    )
    assert "_pytest" not in out
    assert "limit_accelerator_memory: not a size: 'much'" in out
    assert "limit_accelerator_memory takes one size, and a device (auto, cpu, cuda, xpu)" in out
    result.stdout.fnmatch_lines(["*::test_training peaks at *", "At the peak:", "*parameter*", "Largest *"])
    assert f"{size_of_linear}  gradient" in out
    assert f"{size_of_linear}  parameter" in out


def line_of(text: str) -> int:
    """Return the first line of the tests that holds a text, after makepyfile has dropped the empty one at the top."""
    return next(at for at, line in enumerate(TESTS.strip().splitlines(), start=1) if text in line)


def test_it_works_in_the_processes_of_xdist(run) -> None:  # type: ignore[no-untyped-def]
    source = f"""
    import pytest, torch
    @pytest.mark.limit_accelerator_memory({4 * FLOATS})
    @pytest.mark.parametrize("num", [{FLOATS}, {FLOATS} + 1] * 2)
    def test_one(num):
        torch.empty(num)
    """
    result = run(source, "-p", "xdist", "-n", "2")
    assert result.parseoutcomes() == {"passed": 2, "failed": 2}, result.stdout.str()


def test_unmarked_tests_load_neither_torch_nor_the_analysis(run) -> None:  # type: ignore[no-untyped-def]
    source = """
    import sys
    def test_nothing_is_loaded():
        assert not {"torch", "numpy", "pandas", "memtrace.api", "memtrace.hooks.recorder"} & set(sys.modules)
    """
    assert run(source).parseoutcomes() == {"passed": 1}


def test_a_test_that_records_itself_is_told_and_a_process_that_is_recorded_is_left_alone(
    run,  # type: ignore[no-untyped-def]
    tmp_path: Path,
) -> None:
    source = """
    import memtrace, pytest, torch
    memtrace.start("outer.json")
    @pytest.mark.limit_accelerator_memory(1)
    def test_two_recordings():
        torch.empty(10)
    """
    result = run(source)
    assert "a recording runs already" in result.stdout.str()


def test_pytest_finds_the_plugin_by_its_entry_point() -> None:
    try:
        points = importlib.metadata.distribution("memtrace").entry_points
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("memtrace is not installed")
    found = [point.value for point in points if point.group == "pytest11"]
    if not found:
        # An editable install does not follow pyproject.toml.
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        section = text.partition("[project.entry-points.pytest11]\n")[2].partition("\n\n")[0]
        found = [line.partition(" = ")[2].strip('"') for line in section.splitlines()]
    assert found == [PLUGIN]
