"""Other programs: a plugin for pytest, callbacks for trainers. Each file imports its program, and memtrace lazily.

`from memtrace.integrations.transformers import MemtraceCallback`; the plugin for pytest is found by pytest itself.
"""
