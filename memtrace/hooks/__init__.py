"""Hooks: what runs inside the recorded process. Standard library only; torch only after the program imported it."""
