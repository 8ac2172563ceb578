"""The parts of a recording, finished or still running."""
