"""Requests changed before a replay."""
