"""A run of 512 ranks: reported by the processes of one machine and by a Dask cluster of two workers.

    python benchmarks/ranks.py [--ranks 512] [--events 20000] [--folder FOLDER] [--no-write]

The ranks are made up (`tests/generated_ranks.py`), each a little different, one compressed file each. `memtrace report
--json` runs as a user runs it, start included. Beside it stands the processor time of the report of one rank alone, in
a process that has loaded everything, before and after. What other programs took of the machine meanwhile is not ours
to use: of the rest, idle or not, each rank got its share, and that is compared with the one rank.

Then three files are damaged and, while the report is made, a worker is killed: the other ranks must be reported as
before. The table is written to `benchmarks/results/ranks-<date>.md`. Exit status 1 says that a target
was missed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.load import finish, machine, today  # noqa: E402
from tests.generated_ranks import write_ranks  # noqa: E402

MIB = 1 << 20
MAX_BYTES = 500_000_000
MIN_RATIO = 0.8
NUM_WORKERS = 2
NUM_ALONE = 12
"""Ranks of which the time of one is the median."""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

ALONE = """
import json, sys, time
from memtrace.parallel.run import report_of
from memtrace.report.json.report import report_json
times = []
for path in sys.argv[1:]:
    start = time.process_time()
    report_json(report_of([path]))
    times.append(time.process_time() - start)
print(json.dumps(times[2:]))
"""
"""The first two warm up."""

REPORT = """
import atexit, sys
from memtrace.cli import group
path = sys.argv.pop(1)
@atexit.register
def write_peak():
    # Not getrusage, whose figure a child inherits from the process that started it.
    with open(path, "w") as file:
        file.write(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
group.main(sys.argv[1:], prog_name="memtrace")
"""


@dataclass(frozen=True, kw_only=True)
class Reported:
    """One report of all ranks."""

    content: bytes
    seconds: float
    peak_bytes: int
    """Of the process that the user started."""
    num_killed: int
    other_cores: float
    """Cores that were busy with anything else than this."""


def report(
    folder: Path, work: Path, *args: str, kill_after: float | None = None, cluster: int | None = None
) -> Reported:
    """Report a folder; `cluster` is the process that holds a cluster. A worker is killed after some processor time."""
    output, peak = work / "report.json", work / "peak"
    command = [sys.executable, "-c", REPORT, str(peak), "report", str(folder), "--json", *args]
    busy, own = busy_seconds(), cpu_seconds(cluster)
    start = time.perf_counter()
    with output.open("wb") as file, subprocess.Popen(command, stdout=file, env=ENVIRONMENT) as running:
        num_killed = 0
        if kill_after is not None:
            at_work = running.pid if cluster is None else cluster
            before = cpu_seconds(at_work)
            while cpu_seconds(at_work) - before < kill_after or not workers_of(at_work):
                time.sleep(0.1)
            num_killed = kill_one(workers_of(at_work))
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    own_seconds = usage.ru_utime + usage.ru_stime + cpu_seconds(cluster) - own
    assert running.returncode == 0, command
    print(f"{' '.join(command[4:])}: {seconds:.0f} s, {num_killed} killed", file=sys.stderr, flush=True)
    return Reported(
        content=output.read_bytes(),
        seconds=seconds,
        peak_bytes=int(peak.read_text()) * 1024,
        num_killed=num_killed,
        other_cores=(busy_seconds() - busy - own_seconds) / seconds,
    )


def alone_seconds(folder: Path) -> float:
    """Return the processor time that the report of one rank takes, when nothing else of ours runs."""
    paths = sorted(folder.glob("*.gz"))
    chosen = paths[:: max(1, len(paths) // (NUM_ALONE + 2))][: NUM_ALONE + 2]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, chosen)], check=True, capture_output=True, env=ENVIRONMENT
    )
    return statistics.median(json.loads(done.stdout))


def busy_seconds() -> float:
    """Return the seconds that all processors of this machine have been busy."""
    # user, nice, system, idle, waiting for a disk, interrupts of two kinds, taken by other virtual machines
    times = list(map(int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]))
    return (sum(times) - times[3] - times[4]) / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int | None) -> float:
    """Return the processor time of a process and those that it started, as far as they live; 0 for none."""
    if pid is None:
        return 0.0
    total = 0.0
    for one in (pid, *children_of(pid)):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for one in lists for child in one.read_text().split()]


def workers_of(pid: int) -> list[int]:
    """Return those of them that do the work: neither the one that tracks resources nor a server of forks."""
    return [one for one in children_of(pid) if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


def kill_one(workers: Sequence[int]) -> int:
    """Kill a worker as the system does for want of memory; return how many that were."""
    for worker in workers[:1]:
        os.kill(worker, signal.SIGKILL)
    return len(workers[:1])


@contextlib.contextmanager
def local_cluster() -> Iterator[tuple[str, int]]:
    """Start a Dask cluster of two workers; yields the address of its scheduler and its process."""
    command = [sys.executable, str(ROOT / "tests/parallel/local_cluster.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    ) as running:
        assert running.stdout is not None
        yield running.stdout.readline().decode().strip(), running.pid
        running.communicate()


def damage(folder: Path, numbers: Sequence[int]) -> None:
    """Cut one file off, scramble one, empty one."""
    for at, number in enumerate(numbers):
        path = folder / f"rank-{number:05}.json.gz"
        content = path.read_bytes()
        path.write_bytes((content[: len(content) // 2], b"\x1f\x8b" + b"\xff" * 100, b"")[at])


def write_run(folder: Path, num_ranks: int, num_events: int) -> None:
    """Write the run, some ranks in each of two processes, unless the folder is there."""
    if folder.exists():
        return
    with ProcessPoolExecutor(NUM_WORKERS) as pool:
        parts = [range(at, num_ranks, NUM_WORKERS) for at in range(NUM_WORKERS)]
        for done in [pool.submit(write_ranks, folder, num_ranks, num_events=num_events, ranks=part) for part in parts]:
            done.result()


def row(name: str, done: Reported, alone: float, num_ranks: int, same: str) -> tuple[str, bool]:
    """Return a row of the table, and whether its targets are met."""
    share = done.seconds * (NUM_WORKERS - done.other_cores) / num_ranks
    ratio = alone / share
    met = ratio >= MIN_RATIO and done.peak_bytes <= MAX_BYTES
    cells = (
        name,
        f"{done.seconds:.1f} s",
        f"{done.other_cores:.2f}",
        f"{1000 * share:.0f} ms",
        f"{1000 * alone:.0f} ms",
        f"{ratio:.2f}×",
        f"{done.peak_bytes / 1e6:.0f} MB",
        same,
    )
    return f"| {' | '.join(cells)} |", met


COLUMNS = ("where", "all ranks", "cores of others", "core time a rank", "one alone", "ratio", "peak RSS", "result")


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=512)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="where the run is, or is written to be used again")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = options.folder or work / "run"
        write_run(folder, options.ranks, options.events)
        size_mib = sum(path.stat().st_size for path in folder.iterdir()) / MIB
        lines, met = measure(folder, work, options.ranks)
    head = [
        f"# Ranks, {today()}",
        "",
        f"{options.ranks} ranks of at least {options.events:,} events, a file each, {size_mib:.0f} MiB compressed. "
        f"{NUM_WORKERS} processes, or {NUM_WORKERS} Dask workers.",
        machine(),
        "",
    ]
    finish("ranks", [*head, *lines, ""], no_write=options.no_write)
    return 0 if met else 1


def measure(folder: Path, work: Path, num_ranks: int) -> tuple[list[str], bool]:
    """Return the lines about a run folder, and whether all targets are met."""
    with local_cluster() as (address, cluster):
        alone = [alone_seconds(folder)]
        here = report(folder, work)
        alone.append(alone_seconds(folder))
        there = report(folder, work, "--cluster", address, cluster=cluster)
        alone.append(alone_seconds(folder))
        numbers = [num_ranks // 7, num_ranks // 3, num_ranks // 2]
        damaged = work / "run-damaged"
        shutil.copytree(folder, damaged)
        damage(damaged, numbers)
        middle = statistics.mean(alone) * num_ranks / 2
        killed_here = report(damaged, work, kill_after=middle)
        killed_there = report(damaged, work, "--cluster", address, kill_after=middle, cluster=cluster)
    rows = [
        row("processes", here, statistics.mean(alone[:2]), num_ranks, digest(here.content)),
        row("Dask", there, statistics.mean(alone[1:]), num_ranks, digest(there.content)),
    ]
    others = [("processes", killed_here), ("Dask", killed_there)]
    whole = expected_without(json.loads(here.content), numbers)
    facts = [
        ("the same bytes from both", here.content == there.content),
        ("throughput a core ≥ 0.8× of one rank alone, coordinating process ≤ 500 MB", all(met for _, met in rows)),
        ("a worker was killed in each of the two", killed_here.num_killed == killed_there.num_killed == 1),
        ("three damaged files are named, their ranks counted as missing", tells_of(killed_here.content, numbers)),
        ("nothing is lost: all other ranks are as before", json.loads(killed_here.content)["ranks"] == whole),
        ("the same bytes from both again", killed_here.content == killed_there.content),
        ("coordinating process ≤ 500 MB there too", max(one.peak_bytes for _, one in others) <= MAX_BYTES),
    ]
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(one for one, _ in rows),
        "",
        "With three damaged files, and a worker killed in the middle:",
        "",
        "| where | all ranks | peak RSS | result |",
        "|---|---|---|---|",
        *(
            f"| {name} | {one.seconds:.1f} s | {one.peak_bytes / 1e6:.0f} MB | {digest(one.content)} |"
            for name, one in others
        ),
        "",
        *(f"- {what}: {'yes' if holds else 'NO'}" for what, holds in facts),
    ]
    return lines, all(holds for _, holds in facts)


def digest(content: bytes) -> str:
    """Return how a report is named in the table: its size and the beginning of its hash."""
    return f"{len(content) / 1e6:.1f} MB, {hashlib.sha256(content).hexdigest()[:12]}"


def expected_without(document: dict[str, object], numbers: Sequence[int]) -> list[object]:
    """Return the ranks of a report but for some."""
    ranks = document["ranks"]
    assert isinstance(ranks, list)
    return [one for one in ranks if one["rank"] not in numbers]


def tells_of(content: bytes, numbers: Sequence[int]) -> bool:
    """Return whether a report names each of the damaged files, and their ranks as missing."""
    warnings = json.loads(content)["warnings"]
    unreadable = [one["message"] for one in warnings if one["slug"] == "file-unreadable"]
    missing = [one for one in warnings if one["slug"] == "missing-ranks"]
    named = all(f"rank-{number:05}" in message for number, message in zip(numbers, unreadable, strict=True))
    return named and [one["count"] for one in missing] == [len(numbers)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
