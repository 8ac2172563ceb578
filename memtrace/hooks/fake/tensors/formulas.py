"""What torch itself asks of data that nobody knows, outside of any line of the program: what goes on is answered."""

from __future__ import annotations

from typing import Any

import torch

NO_ZERO = "the numbers of a product were taken not to be zero"
IN_RANGE = "a check of torch's own was taken to pass"


def is_of_a_product() -> bool:
    """Return whether the gradient of a product is made now, which asks how many of its numbers are zero."""
    if torch._C._current_graph_task_id() == -1:
        return False
    node: Any = torch._C._current_autograd_node()
    return node is not None and node.name().startswith("ProdBackward")
