"""Whose storage is whose."""
