"""What each term of a training step takes in memory."""
