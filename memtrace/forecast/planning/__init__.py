"""Layouts over many GPUs, which of them fit, and how long their steps take."""
