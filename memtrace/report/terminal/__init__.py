"""The report, and a running recording, in a terminal."""
