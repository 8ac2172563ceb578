"""What keeps a tensor is named as the program has it, with the line that feeds it; and looking keeps nothing alive."""

from __future__ import annotations

import copy
import functools
import gc
import linecache
import sys
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.keepers import against_the_arrows, reach, search  # noqa: E402
from memtrace.hooks.keepers.edges import Edges  # noqa: E402
from memtrace.hooks.ownership.saved import SavedWalk  # noqa: E402
from memtrace.schema.tables import KEEPERS  # noqa: E402

pytestmark = pytest.mark.skipif(
    not hasattr(torch._C._autograd.SavedTensor, "data"), reason="this torch shows no saved tensors: graphs are not told"
)

PASSES_NS = search._PASSES_NS
"""How long passes over all objects may take in a program; tests wait longer."""
NUM_BYTES = 4 * 1237
"""Of a tensor that these tests look for; nothing else in the process has as many."""


@pytest.fixture(autouse=True)
def without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many objects a test run has, and however busy the machine is, searches come to their end."""
    for limit in ("_SEARCH_NS", "_PASSES_NS"):
        monkeypatch.setattr(search, limit, 10**11)
    monkeypatch.setattr(search, "_LEAST_SHARE_OF_A_GROUP", 0)
    # Other tests' tensors are many, and larger: what is looked for here must not fall behind them.
    for limit in ("_MAX_ASKED", "_MAX_ROWS", "_MAX_REMEMBERED"):
        monkeypatch.setattr(search, limit, 10**9)
    monkeypatch.setattr(reach, "_MAX_OBJECTS", 10**9)


Found = dict[str, tuple[str, str | None]]
"""By keeper its kind and the text of its line."""


def tensor() -> torch.Tensor:
    """Return a tensor that is looked for."""
    return torch.zeros(NUM_BYTES // 4)


def keepers(level: dict[str, Any] | None = None) -> Found:
    """Return what is found to keep the tensors that are looked for, from the caller's variables on."""
    rows = search.KeeperSearch(torch, SavedWalk(torch)).rows(
        dict, level or {}, innermost=sys._getframe(1), now_ns=1, step=1
    )
    found = {}
    for row in rows:
        one = dict(zip(KEEPERS.column_names(), row, strict=True))
        if one["size_bytes"] == NUM_BYTES:
            line = None if one["line"] is None else linecache.getline(one["file"], one["line"]).strip()
            found[one["keeper"]] = one["kind"], line
    return found


class Trainer:
    """Keeps things in attributes."""

    best: ClassVar[Any] = None

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.hidden: Any = None
        self.by_name: dict[str, list[Any]] = defaultdict(list)

        self.outputs: list[Any] = []

    def collect(self, given: Any) -> None:
        self.outputs.append(given)

    def note(self) -> Found:
        self.history.append({"loss": tensor()})
        return keepers()

    def hold(self) -> Found:
        self.hidden = tensor()
        return keepers()

    def sort(self) -> Found:
        self.by_name["a"].append(tensor())
        return keepers()


def test_a_list_is_named_with_the_line_that_feeds_it() -> None:
    losses = []
    for _ in range(3):
        losses.append(tensor())
    assert keepers() == {"list 'losses'": ("container", "losses.append(tensor())")}


def test_a_list_that_two_lines_feed_has_no_line() -> None:
    losses = [tensor()]
    losses.append(tensor())
    losses.extend([tensor()])
    assert keepers() == {"list 'losses'": ("container", None)}


def test_a_dictionary_and_a_queue() -> None:
    cache: dict[Any, Any] = {}
    cache[object()] = tensor()
    assert keepers() == {"dict 'cache'": ("container", "cache[object()] = tensor()")}
    del cache
    queue = deque(maxlen=4)
    queue.append([tensor()])
    assert keepers() == {"deque 'queue'": ("bounded", "queue.append([tensor()])")}


def test_a_variable_has_the_line_that_binds_it_anew() -> None:
    total = 0.0
    for _ in range(2):
        total = total + tensor()
    assert keepers() == {"'total'": ("variable", "total = total + tensor()")}


def test_attributes_are_named_by_their_class() -> None:
    trainer = Trainer()
    line = 'self.history.append({"loss": tensor()})'
    assert trainer.note() == {"Trainer.history[…]['loss']": ("container", line)}
    trainer.history.clear()
    assert trainer.hold() == {"Trainer.hidden": ("attribute", "self.hidden = tensor()")}
    trainer.hidden = None
    (found,) = trainer.sort().items()
    assert found == ("Trainer.by_name['a']", ("container", 'self.by_name["a"].append(tensor())'))


def test_the_line_that_feeds_a_list_is_not_the_one_that_makes_it() -> None:
    trainer = Trainer()
    trainer.collect(tensor())
    assert keepers() == {"trainer.outputs[…]": ("container", "self.outputs.append(given)")}


class Meter:
    """Adds up; its methods call their object as they like."""

    def __init__(this) -> None:
        this.total: Any = 0

    def update(this, value: Any) -> None:
        this.total += value


@dataclass
class State:
    """Has no methods that anybody wrote."""

    kept: list[Any] = field(default_factory=list)


@pytest.mark.parametrize("state", [State(), SimpleNamespace(kept=[])], ids=["dataclass", "namespace"])
def test_an_object_without_methods_is_fed_by_the_function_that_has_it(state: Any) -> None:
    def note() -> None:
        state.kept.append({"weight": tensor()})

    note()
    line = 'state.kept.append({"weight": tensor()})'
    assert keepers() == {"state.kept[…]['weight']": ("container", line)}
    state.kept.clear()


class _Callback:
    def __init__(self) -> None:
        self.features: Any = None
        self.again = self


@pytest.mark.usefixtures("without_collector")
def test_the_line_that_makes_an_attribute_none_does_not_feed_it() -> None:
    def work() -> None:
        callback = _Callback()
        callback.features = tensor()

    work()
    assert keepers(_MUCH) == {"cycle through _Callback.again": ("cycle", None)}


def test_an_attribute_that_is_added_to() -> None:
    meter = Meter()
    for _ in range(2):
        meter.update(tensor())
    assert keepers() == {"meter.total": ("attribute", "this.total += value")}


def test_a_class_whose_only_method_is_cached() -> None:
    class Tables:
        @functools.cache  # noqa: B019
        def table(self, _number: int) -> Any:
            return tensor()

    Tables().table(3)
    (text,) = keepers()
    assert text.startswith("the cache of ")


def test_an_attribute_of_a_class_and_of_a_module() -> None:
    Trainer.best = tensor()
    try:
        assert list(keepers()) == ["Trainer.best"]
    finally:
        Trainer.best = None
    net = torch.nn.Linear(2, 2)
    net.cached = tensor()
    assert keepers() == {"net.cached": ("attribute", "net.cached = tensor()")}


def test_what_a_module_has_in_a_slot() -> None:
    class Slotted(torch.nn.Module):
        __slots__ = ("kept",)

    net = Slotted()
    net.kept = [tensor()]
    assert list(keepers()) == ["net.kept[…]"]


def test_modules_that_hold_nothing_of_their_own_cost_an_object_each() -> None:
    num_modules = 500
    net = torch.nn.Sequential(*(torch.nn.Identity() for _ in range(num_modules)))
    net[-1].cached = [tensor()]
    found = reach.Reach(Edges(torch.nn.Module), torch.Tensor, until_ns=time.thread_time_ns() + 10**11)
    found.run([reach.Root({"net": net}, None, "main")])
    (chain,) = found.chains(lambda _tensor: True)
    assert chain.objects[0] is net
    assert chain.objects[-3] is net[-1]
    # The container of them, its table, and what the last one has.
    assert len(found._objects) == num_modules + 4


def test_a_model_without_owners_keeps_all_its_tensors() -> None:
    class Average(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.average = copy.deepcopy(model)
            self.model = [model]

    net = torch.nn.Sequential(torch.nn.Linear(1237, 4), torch.nn.Linear(4, 1237, bias=False))
    ema = Average(net)
    trainer = torch.nn.ModuleDict({"net": net, "ema": ema})
    owned = {one.data_ptr(): ("cpu", one.nbytes) for one in net.parameters()}
    searched = search.KeeperSearch(torch, SavedWalk(torch))
    seen = []
    for step in range(3):
        rows = searched.rows(lambda: owned, {}, innermost=sys._getframe(), now_ns=step, step=step)
        named = [dict(zip(KEEPERS.column_names(), row, strict=True)) for row in rows]
        model = [one for one in named if one["keeper"] in ("'ema'", "trainer.ema")]
        assert {one["address"] for one in model} == {one.data_ptr() for one in ema.average.parameters()}
        seen.append({one["address"]: one["is_written"] for one in model})
        next(ema.average.parameters()).data.mul_(0.5)
    assert [list(one.values()).count(None) for one in seen] == [3, 0, 0]
    assert [list(one.values()).count(1) for one in seen] == [0, 1, 1]
    del trainer


def test_a_model_whose_parts_have_owners_keeps_the_others() -> None:
    body = torch.nn.Linear(3, 3)
    net = torch.nn.ModuleDict({"body": body, "spare": torch.nn.Linear(1237, 1, bias=False)})
    owned = {one.data_ptr(): ("cpu", one.nbytes) for one in body.parameters()}
    rows = search.KeeperSearch(torch, None).rows(lambda: owned, {}, innermost=sys._getframe(), now_ns=1, step=1)
    named = [dict(zip(KEEPERS.column_names(), row, strict=True)) for row in rows]
    assert [one["keeper"] for one in named if one["size_bytes"] == NUM_BYTES] == ["net.spare"]
    del net


def test_whether_something_was_written_to_is_not_said_where_values_are_not_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "_NUM_COMPARED", 0)
    kept = [tensor(), tensor()]
    searched = search.KeeperSearch(torch, None)
    written = []
    for step in range(3):
        rows = searched.rows(dict, {}, innermost=sys._getframe(), now_ns=step, step=step)
        by_place = {row[3]: row[-1] for row in rows}
        written.append([by_place[one.data_ptr()] for one in kept])
        kept[0].data.add_(1)
        kept[1].add_(1)
    assert written == [[None, None], [None, 1], [None, 1]]


def test_the_closure_of_a_hook() -> None:
    net = torch.nn.Linear(2, 2)

    def watch() -> None:
        seen = []

        def hook(*_args: Any) -> None:
            seen.append(tensor())

        net.register_forward_hook(hook)

    watch()
    net(torch.zeros(1, 2))
    (text,) = keepers()
    assert text.startswith("list 'seen' in the closure of ")
    assert text.endswith("hook, kept by net._forward_hooks[…]")
    assert keepers()[text] == ("closure", "seen.append(tensor())")


def test_the_cache_of_a_function() -> None:
    @functools.cache
    def mask(size: int) -> torch.Tensor:
        return tensor() + size

    mask(1)
    mask(2)
    (found,) = keepers().items()
    assert found[0].startswith("the cache of ")
    assert found[1] == ("cache", "return tensor() + size")


def test_the_traceback_of_an_exception_that_is_kept() -> None:
    def fail() -> None:
        h = tensor()
        h = torch.tanh(h)
        raise torch.OutOfMemoryError(str(h.shape))

    failures = []
    try:
        fail()
    except torch.OutOfMemoryError as error:
        failures.append(error)
    text = "'h' of fail, in the traceback of OutOfMemoryError kept by list 'failures'"
    assert keepers() == {text: ("traceback", "h = torch.tanh(h)")}
    failures[:] = [str(one) for one in failures]
    assert keepers() == {}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a generator of Python 3.10 refers to its frame")
def test_a_generator() -> None:
    def batches() -> Iterator[int]:
        batch = tensor()
        yield batch.numel()

    loader = batches()
    next(loader)
    assert keepers() == {"'batch' of the generator batches": ("closure", "batch = tensor()")}


def test_the_graph_of_a_tensor() -> None:
    weight = torch.ones(1, requires_grad=True)

    def evaluate() -> Found:
        total = 0.0
        for _ in range(2):
            total = total + (weight * tensor()).sum()
        return keepers()

    assert evaluate() == {"graph of 'total'": ("graph", "total = total + (weight * tensor()).sum()")}


def test_of_a_list_and_a_sum_of_it_the_list_keeps_the_graphs() -> None:
    weight = torch.ones(1, requires_grad=True)
    losses = []
    for _ in range(2):
        losses.append((weight * tensor()).sum())
    total = sum(losses)
    assert keepers() == {"graph of list 'losses'": ("graph", "losses.append((weight * tensor()).sum())")}
    del total


def test_a_metric_of_a_library_has_the_line_that_calls_it() -> None:
    metric = torch.nn.Module()
    metric.preds = []
    # As a library's class does it: its own code is not the program's.
    metric.update = metric.preds.append  # type: ignore[assignment]
    metric.update(tensor())
    assert keepers() == {"metric.preds[…]": ("container", "metric.update(tensor())")}


class _Kept:
    """Refers to itself."""

    def __init__(self) -> None:
        self.features = tensor()
        self.score: Callable[[], Any] = lambda: self.features


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Garbage stays."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    yield
    if was_enabled:
        gc.enable()
    gc.collect()


_MUCH = {"device": "cpu", "allocated_bytes": 1 << 40}
"""More than variables explain."""


@pytest.mark.usefixtures("without_collector")
def test_a_cycle_is_found_where_each_pass_over_all_objects_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    passed_ns = 0

    def slow(objects: list[Any], ask: Callable[[list[Any]], list[Any]] = against_the_arrows._referrers) -> list[Any]:
        nonlocal passed_ns
        passed_ns += 200 * 10**6
        return ask(objects)

    monkeypatch.setattr(against_the_arrows, "_referrers", slow)
    monkeypatch.setattr(search, "_PASSES_NS", PASSES_NS)
    for module in (search, against_the_arrows):
        monkeypatch.setattr(module, "thread_time_ns", lambda: passed_ns)
    _Kept()
    assert keepers(_MUCH) == {"cycle through _Kept.score": ("cycle", "self.features = tensor()")}


@pytest.mark.usefixtures("without_collector")
def test_a_cycle_that_only_the_collector_would_free() -> None:
    def work() -> None:
        _Kept()

    work()
    assert keepers(_MUCH) == {"cycle through _Kept.score": ("cycle", "self.features = tensor()")}


@pytest.mark.usefixtures("without_collector")
def test_what_is_freed_at_once_is_kept_by_nothing() -> None:
    def work() -> None:
        kept = _Kept()
        kept.score = len  # type: ignore[assignment]

    work()
    assert keepers(_MUCH) == {}


@pytest.mark.usefixtures("without_collector")
def test_the_context_of_an_autograd_function() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.doubled = tensor() * 2
            return x * ctx.doubled.sum()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * ctx.doubled.sum()

    out = Twice.apply(torch.ones(1, requires_grad=True))
    assert keepers() == {"ctx.doubled of Twice, in the graph of 'out'": ("context", "ctx.doubled = tensor() * 2")}
    del out


def test_looking_keeps_nothing_alive() -> None:
    losses = [tensor()]
    value = tensor()
    references = [weakref.ref(value), weakref.ref(losses[0])]
    assert len(keepers()) == 2
    del value
    losses.clear()
    assert [reference() for reference in references] == [None, None]


def test_a_dictionary_that_the_program_has_of_its_variables_is_left_alone() -> None:
    kept = tensor()
    mine = locals()
    before = dict(mine)
    # Since Python 3.13 it is a dictionary of the program's own, and looking changes nothing.
    seen = {"'kept'": ("variable", "kept = tensor()")} if sys.version_info >= (3, 13) else {}
    assert keepers() == seen
    assert {name: id(value) for name, value in mine.items()} == {name: id(value) for name, value in before.items()}
    del kept


@pytest.mark.usefixtures("without_collector")
def test_an_output_that_its_own_context_keeps() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.out = x * tensor()
            return ctx.out

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return (gradient * ctx.out).sum()

    def work() -> None:
        Twice.apply(torch.ones(1, requires_grad=True))

    work()
    assert keepers(_MUCH) == {"cycle through ctx.out of Twice": ("cycle", "ctx.out = x * tensor()")}


@pytest.mark.usefixtures("without_collector")
def test_a_gradient_with_a_graph() -> None:
    # The last of all: what it leaks is there as long as the process.
    def work() -> None:
        x = tensor().requires_grad_()
        (x * x).sum().backward(create_graph=True)

    with pytest.warns(UserWarning, match="create_graph"):
        work()
    (found,) = keepers(_MUCH).items()
    assert "its own .grad" in found[0]
    assert found[1][0] == "cycle"


@pytest.mark.usefixtures("without_collector")
def test_whether_the_program_writes_is_seen_of_what_no_variable_leads_to_as_well() -> None:
    cycle: list[Any] = [tensor(), tensor()]
    cycle.append(cycle)
    seen, places = weakref.ref(cycle[0]), [one.data_ptr() for one in cycle[:2]]
    searched = search.KeeperSearch(torch, SavedWalk(torch))
    del cycle
    written = []
    for step in range(1, 4):
        rows = searched.rows(dict, {"allocated_bytes": 10**12}, innermost=None, now_ns=step, step=step)
        named = [dict(zip(KEEPERS.column_names(), row, strict=True)) for row in rows]
        by_place = {one["address"]: one["is_written"] for one in named}
        written.append([by_place[place] for place in places])
        kept = seen()
        assert kept is not None
        kept.add_(1)
        del kept
    assert written == [[None, None], [1, 0], [1, 0]]


def test_a_tensor_is_known_by_where_its_storage_begins() -> None:
    """Parts of what is owned, of any type, are no finding; tensors that lie elsewhere, or that none can ask, are."""
    whole = torch.zeros(8, dtype=torch.complex64)
    owned = {whole.untyped_storage().data_ptr(): ("cpu", whole.untyped_storage().nbytes())}
    one = search._Search(torch, None, owned, {}, until_ns=0)
    parts = [whole, whole[3:], whole[2:6:2], whole.conj(), torch.view_as_real(whole)[5]]
    assert [one._is_to_be_told(part) for part in parts] == [False] * len(parts)
    others = [torch.zeros(8), torch.zeros(9)[1:], torch.eye(2).to_sparse(), torch.zeros(2, requires_grad=True).exp()]
    assert [one._is_to_be_told(other) for other in others] == [True] * len(others)
