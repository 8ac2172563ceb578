"""The compiled watch on the CPU's allocator, for tests that need it with stacks."""

from __future__ import annotations

import sys

from memtrace.launch.watch_library import watch_library

LIBRARY = watch_library() if sys.version_info >= (3, 11) else None
"""Where it lies; `None` where it cannot be had."""
WHY_NOT = "the CPU's allocator cannot be watched: no C compiler, or Python 3.10"
