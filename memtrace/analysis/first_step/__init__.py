"""The first step against the steps after it."""
