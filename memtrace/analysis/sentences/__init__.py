"""Words: the verdict, its clauses, the next commands."""
