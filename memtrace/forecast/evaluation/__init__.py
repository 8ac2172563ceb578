"""Layouts that someone lists, rather than all that could be: read from a table, and what each would need and take."""
