"""What would make a run need less memory: one kind of advice a file, each with its number from the very trace."""
