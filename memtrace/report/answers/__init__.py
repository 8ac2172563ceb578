"""Text and JSON of the commands other than report."""
