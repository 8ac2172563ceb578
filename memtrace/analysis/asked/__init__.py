"""Questions asked by name, not part of a report: diff, check, any moment, what-if, tracks, data frames."""
