"""The tables that stand in gold files of their own: the arithmetic of forecasts, and rules.

In: the name of a table. Out: the content of its gold file.
"""

from __future__ import annotations

from tests.gold.forecasts import FORECASTS
from tests.gold.rendered import ANSWERS, pretty
from tests.gold.rules import RULES

TABLES = FORECASTS | RULES
"""Each table by the name of its gold file."""


def worked_out(name: str) -> dict[str, str]:
    """Return the content of the gold file of a table by its name."""
    return {f"{ANSWERS}/{name}.json": pretty(TABLES[name]())}
