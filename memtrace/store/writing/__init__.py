"""Traces, snapshots and tables, written."""
