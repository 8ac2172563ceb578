"""Runs that others measured and published, as rows that `memtrace plan --evaluate` takes; see plan_published.py."""
