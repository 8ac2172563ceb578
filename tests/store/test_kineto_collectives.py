"""What a profile says of its collectives: read off the kernel, or off the event that torch noted beside it."""

from __future__ import annotations

from typing import Any

from memtrace.store.kineto.profile import read_profile

ARGS = {"Collective name": "allreduce", "In msg nelems": 1000, "Out msg nelems": 1000, "Group size": 2}


def collectives(*events: dict[str, Any]) -> list[dict[str, Any]]:
    rank = read_profile({"traceEvents": list(events)}, where="small")
    rows = rank.table("collectives").rows()
    return [{**row, **{name: rank.text(row[name]) for name in ("name", "group", "dtype") if row[name]}} for row in rows]


def event(category: str, name: str, start: float, **args: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "pid": 1, "tid": 1, "ts": start, "dur": 5, "args": args}


def kernel(start: float, **args: Any) -> dict[str, Any]:
    return event("kernel", "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)", start, correlation=7, **args)


def test_a_kernel_carries_the_arguments_of_its_collective() -> None:
    named = {"Process Group Name": "0", "Process Group Description": "default_pg", "dtype": "BFloat16"}
    (row,) = collectives(kernel(10, **ARGS, **named))
    assert row == {
        "start_ns": 10_000,
        "duration_ns": 5_000,
        "correlation": 7,
        "name": "allreduce",
        "group": "default_pg",
        "group_size": 2,
        "input_bytes": 2000,
        "output_bytes": 2000,
        "dtype": "bfloat16",
    }


def test_an_older_profile_has_them_in_the_event_of_the_same_external_id() -> None:
    args = {"External id": 3, "dtype": "Float", "Process Group Name": "1", **ARGS, "Out msg nelems": 500}
    noted = event("cpu_op", "record_param_comms", 1, **args)
    (row,) = collectives(noted, kernel(10, **{"External id": 3}), kernel(20, **{"External id": 4}))
    assert (row["start_ns"], row["input_bytes"], row["output_bytes"]) == (10_000, 4000, 2000)
    assert (row["group"], row["dtype"]) == ("1", "float32")


def test_what_is_not_said_is_null() -> None:
    odd = {"Collective name": "allreduce", "In msg nelems": -1, "Out msg nelems": "many", "Group size": True}
    (row,) = collectives(kernel(0, **odd, dtype="Quaternion"))
    assert {
        name: row[name] for name in ("group", "group_size", "input_bytes", "output_bytes", "dtype")
    } == dict.fromkeys(("group", "group_size", "input_bytes", "output_bytes", "dtype"))


def test_other_kernels_move_nothing() -> None:
    assert collectives(event("kernel", "gemm", 0, **ARGS), event("cpu_op", "ncclDevKernel_x", 0, **ARGS)) == []
