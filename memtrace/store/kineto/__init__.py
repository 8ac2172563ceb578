"""Profiles of torch's profiler."""
