"""What is noted when the program fails."""
