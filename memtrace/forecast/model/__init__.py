"""What a model consists of: its tensors, their numbers and precisions."""
