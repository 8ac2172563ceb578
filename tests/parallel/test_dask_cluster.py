"""Ranks read by the workers of a real Dask cluster: the same report as here, whatever happens to a worker."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from memtrace.cli import group
from memtrace.errors import MemtraceError, TraceReadError
from memtrace.parallel import dask_cluster
from memtrace.parallel.one_file import FileAnalysis
from memtrace.parallel.sources import find_sources
from tests.conftest import ROOT
from tests.parallel.conftest import NUM_RANKS, damage
from tests.parallel.dying import analyze_or_die

pytest.importorskip("distributed")

InTurn = Callable[[Path], bytes]


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster of two worker processes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    log = tmp_path_factory.mktemp("cluster") / "log.txt"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, ROOT / "tests/parallel/local_cluster.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            cwd=log.parent,
        ) as running,
    ):
        assert running.stdout is not None
        address = running.stdout.readline().decode().strip()
        assert address.startswith("tcp://"), log.read_text()
        yield address
        running.communicate(timeout=60)


def report(*args: str | Path) -> Result:
    return CliRunner().invoke(group, ["report", *map(str, args)])


def test_a_cluster_gives_the_same_bytes_and_reports_corrupt_ranks(
    scheduler: str, own_ranks: Path, in_turn: InTurn
) -> None:
    damage(own_ranks, 2, 5, 11)
    result = report(own_ranks, "--json", "--cluster", scheduler)
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes == in_turn(own_ranks)
    assert result.stdout.count("file-unreadable") == 3


def test_workers_read_urls_where_they_are(scheduler: str, ranks: Path) -> None:
    url = ranks.as_uri()
    result = report(url, "--json", "--cluster", scheduler)
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes == report(url, "--json").stdout_bytes


def test_a_killed_worker_loses_nothing_but_a_file_that_kills_all(scheduler: str, ranks: Path, tmp_path: Path) -> None:
    poisonous, unlucky = "rank-00000.json.gz", "rank-00007.json.gz"
    work = functools.partial(analyze_or_die, notes=str(tmp_path), deaths={poisonous: 99, unlucky: 1})
    found = dict(dask_cluster.analyze_on_cluster(work, find_sources([ranks]), address=scheduler))
    # The cluster allows a file no death: one together with others, one alone.
    assert len(list(tmp_path.glob(f"{poisonous}.*"))) == 2
    assert len(list(tmp_path.glob(f"{unlucky}.*"))) == 1
    given_up = found.pop(0)
    assert isinstance(given_up, TraceReadError)
    assert poisonous in given_up.message
    assert [isinstance(found[at], FileAnalysis) for at in range(1, NUM_RANKS)] == [True] * (NUM_RANKS - 1)


def test_another_memtrace_on_a_worker_is_an_error(scheduler: str, ranks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "__version__", "999.0")
    result = report(ranks, "--cluster", scheduler)
    assert result.exit_code == 1
    assert result.output.startswith("error: memtrace 999.0 here, and memtrace ")


def test_no_scheduler_is_one_sentence(ranks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "_CONNECT_SECONDS", 0.5)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        result = report(ranks, "--cluster", address)
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"error: {address}: no Dask scheduler answers there",
        "hint: name one that runs, as in tcp://scheduler:8786",
    ]


@pytest.mark.parametrize("address", ["scheduler", "carrier-pigeon://scheduler:8786", "tcp://"])
def test_what_is_no_address_is_refused(ranks: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "_CONNECT_SECONDS", 0.5)
    result = report(ranks, "--cluster", address)
    assert result.exit_code == 1
    assert result.output.startswith(f"error: {address}: no Dask scheduler answers there\n")


def test_without_dask_the_extra_is_named(ranks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = report(ranks, "--cluster", "tcp://127.0.0.1:1")
    assert result.exit_code == 1
    assert "pip install 'memtrace[cluster]'" in result.output


def test_a_scheduler_that_goes_away_is_an_error_and_not_a_report_of_a_part(ranks: Path) -> None:
    class Lost:
        status = "cancelled"

    with pytest.raises(MemtraceError, match="went away"):
        dask_cluster._outcome(Lost(), find_sources([ranks])[0], "tcp://scheduler:8786")
