"""What others measured and published: runs of clusters (plan_published.py), peaks of GPUs (published.py)."""
