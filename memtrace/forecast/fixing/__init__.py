"""From a run that does not fit to one that does: what could be changed, the cheapest choice, and whether it holds."""
