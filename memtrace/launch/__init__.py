"""Launching: run a command with the hooks injected, and assemble what it leaves behind."""
