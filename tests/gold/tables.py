"""The tables that stand in gold files of their own: the arithmetic of forecasts, rules, and what is asked by name.

In: the name of a table. Out: the content of its gold file.
"""

from __future__ import annotations

from tests.gold.asked import ASKED
from tests.gold.forecasts import FORECASTS
from tests.gold.layouts_of_ranks import layouts
from tests.gold.odd_values import ODD_VALUES
from tests.gold.rendered import ANSWERS, pretty
from tests.gold.rules import RULES

TABLES = FORECASTS | RULES | ASKED | ODD_VALUES | {"made-layouts": layouts}
"""Each table by the name of its gold file."""


def worked_out(name: str) -> dict[str, str]:
    """Return the content of the gold file of a table by its name."""
    return {f"{ANSWERS}/{name}.json": pretty(TABLES[name]())}
