"""Holds `memtrace plan --evaluate` against thousands of published runs, and cross-validates what is fitted to them.

    python benchmarks/plan_published.py [--data FOLDER] [--seed 1 2 3] [--no-fit] [--no-write]

Every run of ../shared/data/published is evaluated as a user would evaluate it, with the numbers that memtrace ships.
Then groups of runs (a model on a cluster) are dealt to two halves by each seed (1 to 20 unless told): the numbers of
each framework are fitted to one half and judged on the other, both ways; a table says what came of all seeds, the
median and the least and most, so that no lucky deal decides. Figures go to
`benchmarks/results/plan-published-<date>.md`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks.published.fit import FITTED, Case, cases_of, fitted, grouped, throughputs  # noqa: E402
from benchmarks.published.rows import PublishedRun, published_runs  # noqa: E402
from memtrace.errors import MemtraceError  # noqa: E402
from memtrace.forecast.evaluation.evaluate import evaluate_table  # noqa: E402
from memtrace.forecast.evaluation.measured import rank_correlation  # noqa: E402
from memtrace.forecast.planning.doubt import CLOSE, NO, YES  # noqa: E402
from memtrace.forecast.results import EvaluatedLayout  # noqa: E402

DATA = ROOT.parent / "shared" / "data" / "published"
LEAST_OF_A_GROUP = 4
"""Runs of a group from which on their order says something."""
ORDER = (NO, CLOSE, YES)
"""Verdicts as a plan ranks them, the best last."""
SMALL_NODES, SMALL_TP = 8, 8
"""The part of the playbook's sweep whose figures have a target."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One published run beside what was predicted."""

    run: PublishedRun
    throughput: float
    row: EvaluatedLayout | None


def evaluated(runs: Sequence[PublishedRun]) -> tuple[list[Scored], list[str]]:
    """Return every run with its evaluation, and the reasons for which some are refused."""
    found, refused = [], []
    for cells, of_cells in _by_columns(runs).items():
        try:
            rows = evaluate_table(json.dumps([run.cells for run in of_cells]), {})
            found += [
                Scored(run=run, throughput=row.tokens_per_second_per_gpu, row=row)
                for run, row in zip(of_cells, rows, strict=True)
            ]
        except MemtraceError as error:
            refused += [f"{error.message} ({len(of_cells)} runs of {cells[:40]})"]
    return found, refused


def _by_columns(runs: Sequence[PublishedRun]) -> dict[str, list[PublishedRun]]:
    """Return runs by dataset, and by group where one of them alone would have all of a dataset refused."""
    groups: defaultdict[str, list[PublishedRun]] = defaultdict(list)
    for run in runs:
        ran = "" if run.tokens_per_second_per_gpu else f" failed {json.dumps(run.cells)}"
        groups[f"{run.dataset} {run.group}{ran}"].append(run)
    return groups


def cross_validated(
    cases: Sequence[Case], framework: str, seed: int, rows: Mapping[int, EvaluatedLayout | None]
) -> list[Scored]:
    """Return each run of a framework as numbers predict it that were fitted to the other half of the groups.

    `rows` has the evaluation of each run by the run's identity: memory is not fitted here.
    """
    first = _first_half(cases, seed)
    halves = [[], []]
    for case in cases:
        halves[f"{case.run.dataset} {case.run.group}" in first].append(case)
    found = []
    for fit_on, judge_on in (halves, halves[::-1]):
        if fit_on and judge_on:
            predicted = throughputs(grouped(judge_on), fitted(framework, fit_on))
            found += [
                Scored(run=c.run, throughput=float(p), row=rows[id(c.run)])
                for c, p in zip(judge_on, predicted, strict=True)
            ]
    return found


def _first_half(cases: Sequence[Case], seed: int) -> set[str]:
    """Return half of the groups, by chance and of each data set, the odd one to the half that has fewer."""
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for case in cases:
        groups[case.run.dataset].add(f"{case.run.dataset} {case.run.group}")
    chance = random.Random(seed)
    # Data set by data set, every second name: each half has groups of every set that has two.
    names = [
        name for dataset in sorted(groups) for name in chance.sample(sorted(groups[dataset]), len(groups[dataset]))
    ]
    return set(names[::2])


def lines_of(name: str, scored: Sequence[Scored]) -> str:
    """Return a line of the table of throughputs."""
    published = np.array([one.run.tokens_per_second_per_gpu for one in scored])
    ratio = np.array([one.throughput for one in scored]) / published
    off = np.abs(ratio - 1)
    orders, regrets = _choices(scored)
    order = f"{np.median(orders):.2f}" if orders else "–"
    regret = f"{np.median(regrets):.1%} / {np.mean(regrets):.1%}" if regrets else "–"
    return (
        f"| {name} | {len(scored)} | {np.median(ratio):.2f} | {np.median(off):.1%} | {np.mean(off):.1%} | "
        f"{ratio.min():.2f}–{ratio.max():.2f} | {order} | {regret} |"
    )


HEAD = [
    "| data | runs | median ratio | median error | mean error | worst ratios | Spearman | regret, median / mean |",
    "|---|---|---|---|---|---|---|---|",
]


def _choices(scored: Iterable[Scored]) -> tuple[list[float], list[float]]:
    """Return rank correlations within groups, and how much slower the first pick is than the published best.

    The first pick is a plan's: of those that surely fit the fastest, else of those that may.
    """
    groups: defaultdict[str, list[Scored]] = defaultdict(list)
    for one in scored:
        groups[f"{one.run.dataset} {one.run.group}"].append(one)
    orders, regrets = [], []
    for group in groups.values():
        if len(group) < LEAST_OF_A_GROUP:
            continue
        ours = np.array([one.throughput for one in group])
        theirs = np.array([one.run.tokens_per_second_per_gpu for one in group])
        order = rank_correlation(ours.tolist(), theirs.tolist())
        orders += [] if order is None else [order]
        pick = max(group, key=lambda one: (0 if one.row is None else ORDER.index(one.row.fits), one.throughput))
        regrets.append(float(1 - pick.run.tokens_per_second_per_gpu / theirs.max()))
    return orders, regrets


def memory_lines(scored: Sequence[Scored]) -> list[str]:
    """Return the table of memory, and who was said not to fit although it ran."""
    lines = [
        "| data | runs | median ratio | median error | worst ratios | ran, and said to fit / close / not |",
        "|---|---|---|---|---|---|",
    ]
    for name, group in _by_dataset(scored).items():
        ran = [one for one in group if one.run.tokens_per_second_per_gpu]
        fits = [one.row.fits for one in ran if one.row]
        said = " / ".join(str(fits.count(word)) for word in ("yes", "close", "no"))
        known = [
            (memory_as_measured(one.run, one.row), one.run.memory_bytes)
            for one in ran
            if one.run.memory_bytes and one.row
        ]
        if not known:
            lines.append(f"| {name} | {len(ran)} | – | – | – | {said} |")
            continue
        ratio = np.array([predicted / measured for predicted, measured in known])
        off = np.abs(ratio - 1)
        lines.append(
            f"| {name} | {len(known)} | {np.median(ratio):.2f} | {np.median(off):.1%} | "
            f"{ratio.min():.2f}–{ratio.max():.2f} | {said} |"
        )
    return lines


def memory_as_measured(run: PublishedRun, row: EvaluatedLayout) -> int:
    """Return what is predicted of the memory that a run measured."""
    if run.memory_stage == "first":
        outside_torch = row.process_bytes - row.reserved_bytes
        return sum(row.stages["first"].values()) - outside_torch
    return {"peak": row.peak_bytes, "reserved": row.reserved_bytes, "process": row.process_bytes}[run.memory_kind]


def _by_dataset(scored: Iterable[Scored]) -> dict[str, list[Scored]]:
    groups: defaultdict[str, list[Scored]] = defaultdict(list)
    for one in scored:
        groups[one.run.dataset].append(one)
        if one.run.dataset == "Playbook" and is_small(one.run):
            groups[f"Playbook, ≤ {SMALL_NODES} nodes, tp ≤ {SMALL_TP}"].append(one)
    return groups


def is_small(run: PublishedRun) -> bool:
    """Return whether a run of the playbook is of the part that has targets."""
    gpus = np.prod([int(run.cells[axis]) for axis in ("dp", "tp", "pp")])
    return bool(gpus <= 8 * SMALL_NODES and int(run.cells["tp"]) <= SMALL_TP)


def _held_out(timed: Sequence[Scored], seeds: Sequence[int]) -> list[str]:
    """Return the section of held-out runs: each framework fitted to half of the groups and judged on the other."""
    rows = {id(one.run): one.row for one in timed}
    found: defaultdict[str, list[list[Scored]]] = defaultdict(list)
    for framework in FITTED:
        cases = cases_of([one.run for one in timed if one.run.cells["framework"] == framework])
        cases = [one for one in cases if one.run.dataset != "Playbook" or is_small(one.run)]
        for seed in seeds:
            for name, group in _by_dataset(cross_validated(cases, framework, seed, rows)).items():
                if name != "Playbook":
                    found[name].append(group)
    lines = [
        f"## Cross-validated: fitted on half of the groups, judged on the other, {len(seeds)} deals (seeds "
        f"{min(seeds)} to {max(seeds)})",
        "",
        "Each figure is the median over the deals, and the least and the most of them.",
        "",
        "| data | runs | median ratio | median error | mean error | Spearman | regret, median | regret, mean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return [*lines, *(_over_seeds(name, deals) for name, deals in found.items()), ""]


def _over_seeds(name: str, deals: Sequence[Sequence[Scored]]) -> str:
    """Return a line of the table of all deals."""
    columns: defaultdict[str, list[float]] = defaultdict(list)
    for scored in deals:
        ratio = np.array([one.throughput / one.run.tokens_per_second_per_gpu for one in scored])
        orders, regrets = _choices(scored)
        columns["ratio"].append(float(np.median(ratio)))
        columns["median"].append(float(np.median(np.abs(ratio - 1))))
        columns["mean"].append(float(np.mean(np.abs(ratio - 1))))
        columns["order"] += [float(np.median(orders))] if orders else []
        columns["regret"] += [float(np.median(regrets))] if regrets else []
        columns["mean regret"] += [float(np.mean(regrets))] if regrets else []
    forms = {"ratio": ".2f", "median": ".1%", "mean": ".1%", "order": ".2f", "regret": ".1%", "mean regret": ".1%"}
    cells = [_spread(columns[column], form) for column, form in forms.items()]
    return f"| {name} | {len(deals[0])} | {' | '.join(cells)} |"


def _spread(values: Sequence[float], form: str) -> str:
    """Return a median with the least and the most, in a form."""
    if not values:
        return "–"
    return f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main() -> int:
    """Score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seed", type=int, nargs="+", default=list(range(1, 21)))
    parser.add_argument("--no-fit", action="store_true")
    parser.add_argument("--no-write", action="store_true")
    args = parser.parse_args()
    if not args.data.is_dir():
        print(f"the published runs are not at {args.data}")
        return 1
    runs = published_runs(args.data)
    scored, refused = evaluated(runs)
    timed = [one for one in scored if one.run.tokens_per_second_per_gpu]
    lines = [f"# Plan against published runs, {datetime.date.today()}", "", "## As shipped", "", *HEAD]
    lines += [lines_of(name, group) for name, group in _by_dataset(timed).items()]
    lines += ["", "## Memory, as shipped", "", *memory_lines(scored)]
    lines += ["", f"Refused: {len(refused)} of runs that failed or that no launcher accepts.", ""]
    lines += [] if args.no_fit else _held_out(timed, args.seed)
    text = "\n".join(lines) + "\n"
    print(text)
    if not args.no_write:
        (RESULTS / f"plan-published-{datetime.date.today()}.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
