"""Torch's memory snapshots, read without running anything in them."""
