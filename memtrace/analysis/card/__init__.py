"""The card of a report: what happened, what limits, what to change, each from results that are there already."""
