"""What each allocation is for: known from owners, told by rules, or inferred."""
