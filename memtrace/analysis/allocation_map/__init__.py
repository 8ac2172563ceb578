"""Every allocation with its life and place, for viewers."""
