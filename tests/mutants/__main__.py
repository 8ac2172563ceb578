"""`make mutants`: put small faults into memtrace, one at a time, and see whether a fast test fails."""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.accepted import ACCEPTED_FILE, key_of, load_accepted
from tests.mutants.choose_tests import tests_for
from tests.mutants.fault_runs import Trial, failing_without_fault, try_faults
from tests.mutants.faults import Fault, faults_of, sample_of
from tests.mutants.fork import copy_checkout, import_what_is_slow
from tests.mutants.known_names import KnownNames
from tests.mutants.reach import Reach, load_or_observe
from tests.mutants.source import Source

ROOT = Path(__file__).parents[2]
TARGETS = (
    "memtrace/allocator/",
    "memtrace/analysis/",
    "memtrace/forecast/",
    "memtrace/report/",
    "memtrace/store/",
    "memtrace/hooks/loop",
    "memtrace/hooks/ownership/",
)


def main() -> int:
    """Run a sample and print what survived. The exit status is 0 whatever survives: a sample is no verdict."""
    asked = _arguments()
    import_what_is_slow()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="memtrace-mutants-") as folder:
        copy = copy_checkout(asked.checkout, Path(folder))
        reach = load_or_observe(copy, asked.checkout / ".mutants", asked.checkout, asked.jobs)
        sources = [_source(copy, path) for path in sorted((copy / "memtrace").rglob("*.py"))]
        known = KnownNames(sources)
        prefixes = tuple(asked.only or TARGETS)
        faults = [fault for source in sources if source.path.startswith(prefixes) for fault in faults_of(source, known)]
        sample = sample_of(faults, asked.sample, asked.seed)
        print(
            f"seed {asked.seed}: {len(sample)} of {len(faults):,} faults, {len(reach.tests):,} fast tests", flush=True
        )
        chosen = [_with_tests(fault, reach, known) for fault in sample]
        trials = []
        for trial in try_faults(copy, chosen, asked.jobs):
            trials.append(trial)
            print(_line(trial, len(trials)), flush=True)
        killers = sorted({trial.killer for trial in trials if trial.killer})
        unsound = bool(killers) and failing_without_fault(copy, killers)
    _print_summary(trials, load_accepted(ACCEPTED_FILE), time.monotonic() - began)
    if unsound:
        print("Tests that killed faults fail without a fault too: this rate is worth nothing. Run `make test`.")
    return int(unsound)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="repeat this sample")
    parser.add_argument("--sample", type=int, default=300, metavar="N", help="how many faults (default: 300)")
    parser.add_argument("--only", action="append", metavar="PREFIX", help="only files that begin so; repeatable")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="how many at a time")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="another checkout than this one")
    return parser.parse_args()


def _source(copy: Path, path: Path) -> Source:
    return Source(path.relative_to(copy).as_posix(), path.read_bytes())


def _with_tests(fault: Fault, reach: Reach, known: KnownNames) -> tuple[Fault, list[str], float]:
    nodeids = tests_for(fault, reach, known)
    return fault, nodeids, sum(reach.tests[nodeid].seconds for nodeid in nodeids)


def _line(trial: Trial, number: int) -> str:
    fault = trial.fault
    by = f" by {trial.killer}" if trial.killer else ""
    return f"{number:4} {trial.verdict:11} {fault.source.path}:{fault.line}{by}"


def _print_summary(trials: Sequence[Trial], accepted: dict[tuple[str, str, str], str], seconds: float) -> None:
    alive = [trial for trial in trials if trial.verdict in {"survived", "not reached"}]
    open_ones = [trial for trial in alive if key_of(trial.fault) not in accepted]
    print("\nSurvivors (file:line, the line as it is, the line with the fault):\n")
    for trial in sorted(open_ones, key=lambda trial: (trial.fault.source.path, trial.fault.line)):
        fault = trial.fault
        said = "no fast test reaches it" if trial.verdict == "not reached" else f"{trial.num_tests} tests passed"
        print(f"{fault.source.path}:{fault.line}  ({said})\n    {fault.old_line}\n    {fault.new_line}\n")
    counts = Counter(trial.verdict for trial in trials)
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())), f"in {seconds:.0f} s")
    num_judged = len(trials) - (len(alive) - len(open_ones))
    if num_judged:
        rate = (num_judged - len(open_ones)) / num_judged
        print(f"killed {rate:.1%} of {num_judged} ({len(alive) - len(open_ones)} accepted survivors left out)")


if __name__ == "__main__":
    raise SystemExit(main())
