"""The clock of a device and the lives of its allocations: nothing is judged yet."""
