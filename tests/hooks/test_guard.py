"""The guard: hooks never raise into the program, never re-enter, and give up after the third failure."""

from __future__ import annotations

import sys
import threading
from types import FrameType

import pytest

from memtrace.hooks.torch_side.guard import MAX_FAILURES, Guard


class Told:
    """Collects warnings."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, str]] = []

    def __call__(self, slug: str, message: str) -> None:
        self.warnings.append((slug, message))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def guard(told: Told) -> Guard:
    return Guard(told, lambda: False)


def test_arguments_reach_the_callback_and_its_result_is_dropped(guard: Guard) -> None:
    seen: list[object] = []

    def callback(*args: object, **kwargs: object) -> str:
        seen.append((args, kwargs))
        return "replaces a module's output if a hook returns it"

    assert guard.wrap(callback, name="hook")(1, 2, key=3) is None
    assert seen == [((1, 2), {"key": 3})]


def test_an_error_becomes_one_warning_a_kind_and_the_third_failure_switches_off(guard: Guard, told: Told) -> None:
    calls: list[int] = []

    def fail(number: int) -> None:
        calls.append(number)
        raise (KeyError if number == 1 else ValueError)(f"number {number}")

    hook = guard.wrap(fail, name="forward hook")
    for number in range(MAX_FAILURES + 2):
        hook(number)
    assert calls == [0, 1, 2]
    assert [slug for slug, _ in told.warnings] == ["hook-failed"] * 3
    assert told.warnings[0][1] == "forward hook failed: ValueError: number 0"
    assert told.warnings[1][1] == "forward hook failed: KeyError: 'number 1'"
    assert told.warnings[2][1].endswith("it is switched off")


def test_the_same_kind_of_error_is_told_once(guard: Guard, told: Told) -> None:
    hook = guard.wrap(lambda: [][0], name="hook")
    hook()
    hook()
    assert len(told.warnings) == 1


def test_one_failing_callback_does_not_switch_off_another(guard: Guard) -> None:
    seen: list[int] = []
    failing, working = guard.wrap(lambda: 1 / 0, name="failing"), guard.wrap(lambda: seen.append(1), name="working")
    for _ in range(MAX_FAILURES + 1):
        failing()
    working()
    assert seen == [1]


def test_where_the_stack_has_no_room_for_a_callback_the_program_is_told_and_the_callback_stays_on(told: Told) -> None:
    rooms = iter([False, False, False, True])

    def is_symbolic() -> bool:
        if not next(rooms):
            raise RecursionError
        return False

    seen: list[int] = []
    hook = Guard(told, lambda: False, is_symbolic).wrap(lambda: seen.append(1), name="hook")
    for _ in range(MAX_FAILURES):
        with pytest.raises(RecursionError):
            hook()
    hook()
    assert seen == [1]
    assert told.warnings == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="this Python cannot suspend profilers")
@pytest.mark.parametrize("hides", [True, False])
def test_a_profiler_of_the_program_sees_a_callback_begin_and_nothing_of_what_it_does(told: Told, hides: bool) -> None:
    seen: list[str] = []

    def inner() -> None:
        seen.append("ran")

    def profiler(frame: FrameType, event: str, _arg: object) -> None:
        if event in ("call", "return"):
            seen.append(f"{event} {frame.f_code.co_name}")

    hook = Guard(told, lambda: False, hides=lambda hook: hook is profiler and hides).wrap(lambda: inner(), name="hook")
    sys.setprofile(profiler)
    try:
        hook()
        inner()
    finally:
        sys.setprofile(None)
    of_hook = [one for one in seen if "guarded" in one or "inner" in one or one == "ran"]
    around = ["call inner", "ran", "return inner"]
    assert of_hook == ["call guarded", *(["ran"] if hides else around), "return guarded", *around]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_for_the_program_passes_and_leaves_the_guard_usable(
    guard: Guard, kind: type[BaseException]
) -> None:
    def interrupted() -> None:
        raise kind

    hook = guard.wrap(interrupted, name="hook")
    with pytest.raises(kind):
        hook()
    assert not guard.active


def test_a_hook_does_not_see_what_a_hook_does(guard: Guard) -> None:
    depth: list[str] = []
    inner = guard.wrap(lambda: depth.append("inner"), name="inner")

    def outer() -> None:
        depth.append("outer")
        inner()

    guard.wrap(outer, name="outer")()
    inner()
    assert depth == ["outer", "inner"]


def test_quiet_silences_hooks_of_this_thread_only_and_nests(guard: Guard) -> None:
    seen: list[str] = []
    hook = guard.wrap(lambda: seen.append(threading.current_thread().name), name="hook")
    with guard.quiet():
        with guard.quiet():
            hook()
        assert guard.active
        hook()
        other = threading.Thread(target=hook, name="other")
        other.start()
        other.join()
    hook()
    assert seen == ["other", threading.current_thread().name]


def test_nothing_happens_while_torch_compiles(told: Told) -> None:
    compiling = True
    seen: list[int] = []
    hook = Guard(told, lambda: compiling).wrap(lambda: seen.append(1), name="hook")
    hook()
    compiling = False
    hook()
    assert seen == [1]


def test_a_failing_warning_and_an_unprintable_error_do_not_raise() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def warn(slug: str, message: str) -> None:
        raise OSError

    def fail() -> None:
        raise Unprintable

    Guard(warn, lambda: False).wrap(fail, name="hook")()


# torch itself warns of every global module hook when a compiled module is called.
@pytest.mark.filterwarnings("ignore:Using `torch.compile")
def test_a_wrapped_hook_costs_torch_compile_no_graph_break(told: Told) -> None:
    torch = pytest.importorskip("torch")
    from torch.nn.modules.module import register_module_forward_pre_hook

    seen: list[str] = []
    guard = Guard(told, torch.compiler.is_compiling)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
    handle = register_module_forward_pre_hook(guard.wrap(lambda *_: seen.append("called"), name="hook"))
    try:
        explained = torch._dynamo.explain(model)(torch.ones(2, 4))
    finally:
        handle.remove()
        torch._dynamo.reset()
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)
    assert told.warnings == []
