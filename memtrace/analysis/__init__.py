"""Analysis: questions asked of a `Trace`, one a file; each returns a frozen result."""
