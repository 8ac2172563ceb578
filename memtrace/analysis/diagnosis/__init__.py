"""What is wrong: out of memory, leaks, fragmentation, and what was not seen."""
