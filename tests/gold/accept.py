"""Accept what reports say now: `make gold`, or `python tests/gold/accept.py`. Shows and rewrites what differs.

Look at the difference before you commit it: it is what a user will see change.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.gold.commands import COMMANDS, answered
from tests.gold.difference import difference
from tests.gold.made_runs import MADE_RUNS
from tests.gold.rendered import ACTUAL, CASES, FOLDER, rendered
from tests.gold.tables import TABLES, worked_out
from tests.gold.views import VIEWS, made_run, viewed


def main() -> None:
    """Rewrite every gold file that differs."""
    num_changed = 0
    for contents in _everything():
        for name, actual in contents.items():
            path = FOLDER / name
            gold = path.read_text(encoding="utf-8") if path.exists() else ""
            if gold != actual:
                num_changed += 1
                print(difference(name, gold, actual, most=200), end="")
                path.write_text(actual, encoding="utf-8")
            (ACTUAL / name).unlink(missing_ok=True)
    print(f"{num_changed} gold files rewritten")


def _everything() -> Iterator[dict[str, str]]:
    yield from map(rendered, CASES)
    yield from map(answered, COMMANDS)
    yield from map(worked_out, TABLES)
    yield from map(viewed, VIEWS)
    yield from map(made_run, MADE_RUNS)


if __name__ == "__main__":
    main()
