"""A Dask cluster of two worker processes on this machine, for as long as standard input stays open.

    python tests/parallel/local_cluster.py

Prints the address of its scheduler. It runs in a process of its own, as a cluster does: nothing but bytes joins it to
the one that asks it for work.
"""

from __future__ import annotations

import sys

from distributed import LocalCluster


def main() -> None:
    """Start the cluster and wait."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
