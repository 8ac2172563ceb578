"""Which commit raised a figure of a run: what a bisection measures and finds, and where it measures next."""
