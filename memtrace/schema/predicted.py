"""What a predicted run says to the launcher by the addresses of its requests, which are invented anyway.

And the two engines that predict, by name.
"""

DRIVERLESS = "driverless"
"""torch's own CUDA code, on stand-ins for NVIDIA's libraries: requests and reserved bytes are torch's own."""
META = "meta"
"""Tensors without data on the host: the requests follow operators and rules, the reserved bytes a model."""

FIRST_RULE_ADDRESS = 1 << 60
"""From here on lie requests that follow a rule and no operator of torch: workspaces and temporaries of kernels."""
FIRST_ALLOWANCE_ADDRESS = 1 << 61
"""From here on lie requests that a kernel may or may not make: no part of the prediction, only of its range."""

ASKED_RANKS = "asked-ranks.json"
"""File in the folder of what ranks told: those that are to run first, in order."""

RAN = "ran-"
"""What the file of a rank that ran begins with, in the same folder; its number follows."""

COMPILED = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
"""Variables that name the folders of what `torch.compile` keeps for the next run, and its compilers write to."""
