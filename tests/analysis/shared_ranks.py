"""Programs of two ranks that people reported, recorded one after the other, each with its fault and without.

`python shared_ranks.py CASES FOLDER NAME …` writes what the first rank does to FOLDER/NAME.json and
FOLDER/NAME-healthy.json for each NAME. The ranks are forked, so that torch is imported once: before any uses a device.
"""

from __future__ import annotations

import os
import runpy
import sys
from multiprocessing import get_context
from pathlib import Path


def main(cases: Path, folder: Path, names: list[str]) -> None:
    """Record every program twice."""
    import torch
    from torch.distributed import TCPStore, fsdp

    assert fsdp  # Imported here, not once a rank.
    torch.set_num_threads(1)
    for name in names:
        for flag in ("", "--healthy"):
            # Where ranks meet, as torchrun would have it: theirs has ended when the next program begins.
            store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
            given = (cases / f"{name}.py", flag, folder / f"{name}{flag[1:]}", store.port)
            ranks = [get_context("fork").Process(target=_run, args=(rank, *given)) for rank in range(2)]
            for one in ranks:
                one.start()
            for one in ranks:
                one.join()
            if any(one.exitcode for one in ranks):
                raise SystemExit(f"{name} {flag}: exit codes {[one.exitcode for one in ranks]}")


def _run(rank: int, program: Path, flag: str, output: Path, port: int) -> None:
    import memtrace

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    sys.argv = [str(program), *([flag] if flag else [])]
    with memtrace.record(f"{output}.json" if rank == 0 else f"{output}-{rank}.json"):
        runpy.run_path(str(program), run_name="__main__")
    # Threads of a communicator may not let the interpreter end.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
