"""Torch's CPU allocator watched from inside its process: every block, on all threads, without torch's profiler.

The watching is C, since it is called at each allocation; `memtrace record` compiles it once and hands on where it is.
`allocator_watch.py` is its face, `call_stacks.py` says in words what it says in numbers.
"""
