"""A CUDA device that is not there: its tensors are meta tensors, its allocations are invented and recorded.

Loaded in place of the profiler where a run is a prediction. Everything here changes the program that it runs in, on
purpose, and is never loaded by `memtrace record`.
"""
