"""Estimates and plans: the arithmetic of training memory, before anything runs."""
