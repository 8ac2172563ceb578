"""What a predicted run says to the launcher by the addresses of its requests, which are invented anyway."""

FIRST_RULE_ADDRESS = 1 << 60
"""From here on lie requests that follow a rule and no operator of torch: workspaces and temporaries of kernels."""
FIRST_ALLOWANCE_ADDRESS = 1 << 61
"""From here on lie requests that a kernel may or may not make: no part of the prediction, only of its range."""
