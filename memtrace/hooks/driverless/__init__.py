"""A prediction on torch's own CUDA code: what the program may see of the data that no kernel computes, and its files.

Only a prediction loads it, in a process that `memtrace.driverless` gave its devices; torch itself stays as it is but
for the operators whose results hang on data.
"""
