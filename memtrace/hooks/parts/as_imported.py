"""Functions of Python as they were when the recording began.

A program, a test above all, may put others in their place that count calls, refuse them or return something else. What
the recording writes is none of the program's calls.
"""

from __future__ import annotations

import json
import os
from io import open as open_file
from types import SimpleNamespace
from typing import TYPE_CHECKING

__all__ = ["as_json", "open_file", "system"]

as_json = json.dumps
if TYPE_CHECKING:
    system = os
else:
    system = SimpleNamespace(**vars(os))
    """What the module `os` held."""
