"""Break inputs and ask memtrace about them: `python -m tests.fuzz --inputs 1000`, or `--seed S --only N` for one again.

Prints the seed, each failure once for all inputs that fail alike, and at the end how many, how long and how large.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.workers import LIMIT_S, Outcome, try_input, try_inputs

KEPT = Path(".fuzz")
"""Where inputs that failed are kept."""


def main() -> int:
    """Run the fuzzer; 0 if nothing failed."""
    options = _options()
    if options.only is not None:
        return _once_more(options.seed, options.only)
    print(f"seed {options.seed}", flush=True)
    numbers = iter(range(options.inputs)) if options.inputs else itertools.count()
    outcomes = try_inputs(options.seed, _until(numbers, options.seconds), num_workers=options.workers)
    return _say(options.seed, outcomes)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9), help="default: a new one")
    parser.add_argument("--inputs", type=int, help="how many inputs to try")
    parser.add_argument("--seconds", type=float, help="how long to go on; an hour if --inputs is not given either")
    parser.add_argument("--only", type=int, metavar="N", help="try one input of the seed again, in this process")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args()
    if options.seconds is None and options.inputs is None:
        options.seconds = 3600.0
    return options


def _until(numbers: Iterator[int], seconds: float | None) -> Iterator[int]:
    """Yield numbers until the time is over."""
    end = float("inf") if seconds is None else time.monotonic() + seconds
    for number in numbers:
        if time.monotonic() > end:
            return
        yield number


def _once_more(seed: int, number: int) -> int:
    """Make one input again, keep it, and say what comes of it."""
    folder = KEPT / f"{seed}-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outcome = try_input(seed, number, folder.absolute())
    for failure in outcome.failures:
        print(failure.text)
    print(f"{outcome.num_questions} questions, {outcome.seconds:.1f} s; the input is in {folder}")
    return 1 if outcome.failures else 0


def _say(seed: int, outcomes: Iterator[Outcome]) -> int:
    """Print what comes of the inputs, as it comes."""
    found: dict[str, list[int]] = {}
    num_inputs = num_questions = peak_bytes = 0
    longest = began = time.monotonic()
    longest = 0.0
    for outcome in outcomes:
        num_inputs += 1
        num_questions += outcome.num_questions
        peak_bytes, longest = max(peak_bytes, outcome.peak_bytes), max(longest, outcome.seconds)
        for failure in outcome.failures:
            found.setdefault(failure.group, []).append(outcome.number)
            if len(found[failure.group]) == 1:
                print(f"\n{failure.group}\n{failure.text}")
                print(f"again: python -m tests.fuzz --seed {seed} --only {outcome.number}", flush=True)
        if num_inputs % 1000 == 0:
            print(f"{num_inputs} inputs, {time.monotonic() - began:.0f} s, {len(found)} kinds of failure", flush=True)
    for name, numbers in sorted(found.items(), key=lambda one: -len(one[1])):
        print(f"{len(numbers):6d} × {name}: --seed {seed} --only {numbers[0]}")
    num_failed = sum(map(len, found.values()))
    print(
        f"seed {seed}: {num_inputs} inputs, {num_questions} questions, {time.monotonic() - began:.0f} s; "
        f"{num_failed} failures; longest {longest:.1f} s of {LIMIT_S:.0f}, most memory {peak_bytes / 2**20:.0f} MiB"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
