"""How `memtrace fit` runs a micro-batch, recorded or predicted, and keeps what it measured."""
