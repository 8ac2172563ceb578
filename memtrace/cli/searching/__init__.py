"""Commands that run a program again and again in search of something."""
