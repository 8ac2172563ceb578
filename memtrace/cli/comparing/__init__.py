"""Commands that look at several runs: two side by side, and a folder of them as a history."""
