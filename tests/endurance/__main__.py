"""What only very many tries show: `python -m tests.endurance kills --times 200`, `python -m tests.endurance pairs`.

Prints the seed, each failure as it comes, and at the end how many there were. 1 if any.
"""

from __future__ import annotations

import argparse
import random
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.endurance.kills import kill_once
from tests.endurance.pairs import start_pair
from tests.warm.start import warm_python


def main() -> int:
    """Try, and say what came of it."""
    options = _options()
    with ThreadPoolExecutor(options.workers) as pool:
        return (_kills if options.what == "kills" else _pairs)(pool, options.times, options.seed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=__doc__)
    parser.add_argument("what", choices=["kills", "pairs"])
    parser.add_argument("--times", type=int, default=200, help="how often")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="default: a new one")
    parser.add_argument("--workers", type=int, default=2, help="at the same time")
    return parser.parse_args()


def _kills(pool: ThreadPoolExecutor, times: int, seed: int) -> int:
    """Kill so many programs."""
    print(f"seed {seed}", flush=True)
    num_early = num_ended = num_lost = 0
    for number, killed in enumerate(pool.map(lambda number: kill_once(number, seed), range(times))):
        num_early += killed.num_ended == 0
        num_ended, num_lost = num_ended + killed.num_ended, num_lost + len(killed.lost)
        if killed.lost:
            print(f"{number}: --steps {killed.window}: of {killed.num_ended}, lost {killed.lost}", flush=True)
    print(
        f"{times} SIGKILLs ({num_early} before a step had ended), {num_ended} finished steps, {num_lost} of them lost"
    )
    return 1 if num_lost else 0


def _pairs(pool: ThreadPoolExecutor, times: int, _seed: int) -> int:
    """Start so many pairs."""
    python = warm_python()
    pairs = list(pool.map(lambda _: start_pair(python), range(times)))
    refused, shared = sum(one.num_refused for one in pairs), sum(one.num_traces < 2 for one in pairs)
    print(f"{times} pairs of launchers: {refused} refused, {shared} shared one name")
    return 1 if refused or shared else 0


if __name__ == "__main__":
    sys.exit(main())
