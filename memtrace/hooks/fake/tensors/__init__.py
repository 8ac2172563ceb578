"""Functions and operators on fake tensors."""
