"""What is written while the program runs."""
