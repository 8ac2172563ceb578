"""Who keeps what has no owner: rows of the `keepers` table, made at a step's end or in a row of forwards.

In: the addresses that have owners, and how much is allocated in all. First from the program's variables to its tensors,
a few milliseconds; what is left over after that, if it is much, is asked about against the arrows. Both spend a share
of the time that passes, in time of the processor: a busy machine would cut a search short. What is found leaves names
and addresses behind, no object.
"""

from __future__ import annotations

import gc
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import perf_counter_ns, thread_time_ns
from types import CodeType, FrameType
from typing import Any, NamedTuple

from memtrace.hooks.keepers.against_the_arrows import Answer, who_keeps
from memtrace.hooks.keepers.budget import Budget
from memtrace.hooks.keepers.edges import Edges, is_class_of_program
from memtrace.hooks.keepers.feeding import (
    OWN,
    Named,
    feeding_line,
    functions_in,
    methods_of,
    returning_line,
    using_line,
)
from memtrace.hooks.keepers.names import NamedChain, is_table_of
from memtrace.hooks.keepers.other_threads import others_run
from memtrace.hooks.keepers.program_frames import (
    Place,
    ProgramModules,
    line_of,
    program_frames,
)
from memtrace.hooks.keepers.reach import Chain, Reach, Root
from memtrace.hooks.keepers.roots import roots
from memtrace.hooks.keepers.variable_names import variable_names
from memtrace.hooks.ownership.glances import Glance, glance_at
from memtrace.hooks.ownership.module_tree import parameters_in
from memtrace.hooks.ownership.owners import device_name, plain_kinds, plain_tensors
from memtrace.hooks.ownership.saved import SavedWalk
from memtrace.hooks.parts.chunk import Row

_SEARCH_NS = 25 * 10**6
_PASSES_NS = 1500 * 10**6
"""What asking against the arrows may take, cut short where it takes longer: some seven passes over all objects, each
50 ms where a few libraries are imported, and as long again on a busy machine or with more of them."""
_PASSES_AT_ONCE_NS = 1750 * 10**6
_SHARE = 0.01
_SHARE_OF_PASSES = 0.01
_MAX_REMEMBERED = 2000
"""Tensors of which it stays known what was found to keep them."""
_MAX_ROWS = 400
"""Storages a search tells of; each keeper has some of them."""
_MAX_ROWS_OF_ONE = 48
_MAX_GRAPHS = 8
"""Graphs of one keeper that are walked: those of a list of losses are alike."""
_MAX_NODES = 4000
_MAX_ASKED = 2
_LEAST_SHARE_OF_A_GROUP = 0.25
"""Of what nothing explains, tensors that are alike are asked about where they are so much."""
_LEAST_UNEXPLAINED_BYTES = 1 << 16
_LEAST_UNEXPLAINED_SHARE = 0.05
_LEAST_CHANGE = 0.05
_NUM_COMPARED = 256
"""Of so many tensors a search compares values, where that waits for nothing."""


_Storage = tuple[str, int]
"""Device and size."""
_Block = tuple[int, str, int]
"""Address, device and size."""


class _Looked(NamedTuple):
    """What was seen of a storage."""

    glance: Glance
    is_written: bool | None
    """Whether the program wrote to it between two searches; `None` after the first, and where that cannot be told."""


class Kept:
    """The storages that one keeper keeps, as far as they were found."""

    def __init__(
        self,
        text: str,
        kind: str,
        place: Place | None,
        function: str | None,
        file: str | None,
        *,
        is_model: bool = False,
    ) -> None:
        """`is_model` says that it is a whole model. Of that, and of a graph, what lies in it is not alike."""
        self.text = text
        self.kind = kind
        self.place = place
        self.function = function if place is None else place.function
        self.file = file if place is None else place.file
        self.storages: dict[int, _Storage] = {}
        """By address."""
        self.max_rows = _MAX_ROWS if is_model or kind == "graph" else _MAX_ROWS_OF_ONE


class KeeperSearch:
    """Searches, as often as its budget allows."""

    def __init__(self, torch: Any, saved: SavedWalk | None) -> None:
        self._torch = torch
        self._saved = saved
        functions = getattr(torch.autograd, "function", None)
        self._context_class = getattr(functions, "BackwardCFunction", type(None))
        now_ns = perf_counter_ns()
        self._budget = Budget(at_once_ns=10 * _SEARCH_NS, share=_SHARE, now_ns=now_ns)
        self._passes = Budget(at_once_ns=_PASSES_AT_ONCE_NS, share=_SHARE_OF_PASSES, now_ns=now_ns)
        self._modules = ProgramModules()
        self._unexplained_bytes = 0
        self._remembered: list[tuple[weakref.ref[Any], Answer]] = []
        self._glances: dict[_Block, _Looked] = {}
        """What the search before saw of the storages that it found."""
        self.graph_of_gradients: Place | None = None
        """The line that last called for a backward whose graph stays (`create_graph`)."""

    def rows(
        self,
        owned: Callable[[], Mapping[int, _Storage]],
        level: Mapping[str, Any],
        *,
        innermost: FrameType | None,
        now_ns: int,
        step: int,
    ) -> list[Row]:
        """Return what is kept, and by whom; nothing where that would cost more than it may.

        `owned` gives addresses with device and size of each storage, `level` is what the allocator says now.
        """
        if not self._budget.allows(perf_counter_ns()):
            return []
        began_ns = thread_time_ns()
        search = _Search(self._torch, self._saved, owned(), self._glances, until_ns=began_ns + _SEARCH_NS)
        try:
            search.from_variables(innermost, self._modules.names())
            is_alone = not others_run()
            if is_alone:
                self._remembered = search.remember(self._remembered)
            self._glances = search.glances
            self._budget.spend(thread_time_ns() - began_ns)
            if search.is_whole and is_alone:
                self._against_the_arrows(search, level)
            return search.rows(now_ns, step)
        finally:
            search.forget()

    def names_of(self, tensors: Iterable[Any], *, innermost: FrameType | None) -> dict[int, str]:
        """Return what the program calls some tensors, by identity, where finding that costs no more than it may."""
        if not self._budget.allows(perf_counter_ns()):
            return {}
        began_ns = thread_time_ns()
        names = variable_names(self._torch, tensors, innermost, self._modules)
        self._budget.spend(thread_time_ns() - began_ns)
        return names

    def _against_the_arrows(self, search: _Search, level: Mapping[str, Any]) -> None:
        allocated = level.get("allocated_bytes")
        if not allocated or not self._passes.allows(perf_counter_ns()):
            return
        began_ns = thread_time_ns()
        device = str(level.get("device"))
        unexplained = int(allocated) - search.explained_bytes(device)
        is_much = unexplained > max(_LEAST_UNEXPLAINED_BYTES, _LEAST_UNEXPLAINED_SHARE * allocated)
        is_new = abs(unexplained - self._unexplained_bytes) > _LEAST_CHANGE * unexplained
        if is_much and is_new:
            found = search.unseen(
                self._context_class, self.graph_of_gradients, unexplained, until_ns=began_ns + _PASSES_NS
            )
            self._remembered += found[: _MAX_REMEMBERED - len(self._remembered)]
            unexplained = int(allocated) - search.explained_bytes(device)
            self._passes.spend(thread_time_ns() - began_ns)
        # What was asked about in vain is not asked about again.
        self._unexplained_bytes = unexplained


class _Search:
    """One search. It holds what it meets until it is told to forget."""

    def __init__(
        self,
        torch: Any,
        saved: SavedWalk | None,
        owned: Mapping[int, _Storage],
        before: Mapping[_Block, _Looked],
        *,
        until_ns: int,
    ) -> None:
        """Prepare; `before` is what the last search saw."""
        self._tensor_class = torch.Tensor
        self._plain = plain_kinds(torch)
        self._saved = saved
        self._until_ns = until_ns
        self._edges = Edges(torch.nn.Module, self._is_owned)
        self._owned = owned
        self._known: dict[int, _Storage] = dict(owned)
        self._kept: dict[tuple[str, str | None], Kept] = {}
        self._num_graphs: dict[str, int] = defaultdict(int)
        self._unowned: dict[int, bool] = {}
        self._models: dict[int, NamedChain] = {}
        self._frames: list[FrameType] = []
        self.is_whole = False
        """Whether all that variables lead to was seen."""
        self._before = before
        self.glances: dict[_Block, _Looked] = {}
        """What was seen of the storages that were found."""

    def forget(self) -> None:
        """Let go of everything."""
        self._frames.clear()
        self._kept.clear()
        self._models.clear()

    def explained_bytes(self, device: str) -> int:
        """Return the bytes of all storages of a device that have an owner or a keeper."""
        return sum(size for one, size in self._known.values() if one == device)

    def from_variables(self, innermost: FrameType | None, modules: Iterable[str]) -> None:
        """Follow the variables of running calls, of the program's modules, and of Python where it keeps errors."""
        self._frames = list(program_frames(innermost))
        reach = Reach(self._edges, self._tensor_class, until_ns=self._until_ns)
        reach.run(roots(self._frames, modules))
        self.is_whole = reach.is_whole
        graphs: list[tuple[Any, NamedChain, Root]] = []
        for chain in reach.chains(self._is_to_be_told):
            tensor = chain.objects[-1]
            storages = _storages(tensor)
            is_new = any(address not in self._known for address, _, _ in storages)
            has_graph = self._saved is not None and _has_graph(tensor)
            if not is_new and not has_graph:
                continue
            at = self._model_at(chain) if is_new else None
            named = NamedChain(chain) if at is None else self._model(chain, at)
            if is_new:
                self._keep(self._entry(named, chain.root, model=at is not None), storages)
                self._glance_at(tensor, storages)
            if has_graph:
                graphs.append((tensor, named, chain.root))
        # Last, so that what has a variable of its own is told by it. A sum leads to the graphs of all that a list has.
        for tensor, named, root in sorted(graphs, key=lambda one: not one[1].is_container):
            self._keep_graph(tensor, named, root)

    def _is_to_be_told(self, tensor: Any) -> bool:
        """Return whether more must be seen of a tensor: most are plain, known and without a graph."""
        if type(tensor) not in self._plain or _has_graph(tensor):
            return True
        return _begin(tensor) not in self._known

    def _is_owned(self, tensor: Any) -> bool:
        """Return whether a tensor of a module has an owner, as one of no plain kind is taken to have."""
        begin = _begin(tensor) if type(tensor) in self._plain else None
        return begin is None or begin in self._owned

    def _model_at(self, chain: Chain) -> int | None:
        """Return where in a chain the outermost module stands of whose tensors none is owned; `None` for other chains.

        It is the average of a model, or one that was not called yet: it keeps them all.
        """
        objects, at = chain.objects, len(chain.objects) - 1
        while at >= 2 and is_table_of(objects[at - 2], objects[at - 1]) and self._has_no_owner(objects[at - 2]):
            at -= 2
        return at if at < len(objects) - 1 else None

    def _has_no_owner(self, module: Any) -> bool:
        if id(module) not in self._unowned:
            self._unowned[id(module)] = not any(self._is_owned(one) for _, one in parameters_in(module))
        return self._unowned[id(module)]

    def _model(self, chain: Chain, at: int) -> NamedChain:
        """Return the words for the model at a place of a chain: the same for all its tensors."""
        key = id(chain.objects[at])
        if key not in self._models:
            self._models[key] = NamedChain(chain._replace(objects=chain.objects[: at + 1]))
        return self._models[key]

    def _glance_at(self, tensor: Any, storages: Sequence[tuple[int, int, str]]) -> None:
        if len(storages) == 1 and len(self.glances) < _MAX_REMEMBERED:
            ((address, size, device),) = storages
            glance = glance_at(tensor, self._plain, with_values=len(self.glances) < _NUM_COMPARED)
            then = self._before.get((address, device, size))
            is_written = None
            if then is not None:
                # What was seen once stays so; not to have been, as well, where a look in between could not tell.
                now = glance.is_written(then.glance)
                is_written = then.is_written if then.is_written or now is None else now
            self.glances[address, device, size] = _Looked(glance, is_written)

    def remember(self, known: Iterable[tuple[weakref.ref[Any], Answer]]) -> list[tuple[weakref.ref[Any], Answer]]:
        """Keep, by what was found before, the tensors that no variable leads to, and return those that are left."""
        alive = []
        for reference, answer in known:
            tensor = reference()
            if tensor is not None:
                alive.append((reference, answer))
                storages = _storages(tensor)
                self._keep(self._entry_of(answer), storages)
                self._glance_at(tensor, storages)
        return alive

    def unseen(
        self, context_class: type, graph_of_gradients: Place | None, unexplained_bytes: int, *, until_ns: int
    ) -> list[tuple[weakref.ref[Any], Answer]]:
        """Ask of tensors that no variable leads to what refers to them, the most bytes first; return what was found."""
        answers: list[tuple[weakref.ref[Any], Answer]] = []
        groups = self._unknown_tensors()
        # Workspaces of libraries are no tensors, and there is nobody to ask about.
        of_tensors = sum(size * len(tensors) for (size, _), tensors in groups.items())
        unexplained_bytes = min(unexplained_bytes, of_tensors)
        for key in sorted(groups, key=lambda key: -key[0] * len(groups[key]))[:_MAX_ASKED]:
            answers += self._of_gradients(groups[key], graph_of_gradients)
            references = [weakref.ref(tensor) for tensor in groups.pop(key) if not self._is_known(tensor)]
            if key[0] * len(references) < _LEAST_SHARE_OF_A_GROUP * unexplained_bytes:
                continue
            # One made early and one made late: where they are kept by the same, all between them are.
            ends = [references[-1], *references[:1]] if len(references) > 1 else references
            asked = [(one, who_keeps(one, self._edges, context_class, until_ns=until_ns)) for one in ends]
            if len({answer for _, answer in asked}) == 1:
                asked = [(one, asked[0][1]) for one in references]
            answers += [(one, answer) for one, answer in asked if answer is not None]
        return self.remember(answers)

    def _is_known(self, tensor: Any) -> bool:
        return all(address in self._known for address, _, _ in _storages(tensor))

    def _unknown_tensors(self) -> dict[tuple[int, str], list[Any]]:
        """Return the tensors whose storages nobody owns or keeps, by bytes and type."""
        groups: dict[tuple[int, str], list[Any]] = defaultdict(list)
        for one in gc.get_objects():
            if issubclass(type(one), self._tensor_class):
                new = [size for address, size, _ in _storages(one) if address not in self._known]
                if new:
                    groups[sum(new), str(one.dtype)].append(one)
        return groups

    def rows(self, now_ns: int, step: int) -> list[Row]:
        """Return rows, those of the keeper with most bytes first."""
        rows: list[Row] = []
        for kept in sorted(self._kept.values(), key=lambda one: -sum(size for _, size in one.storages.values())):
            num_bytes = sum(size for _, size in kept.storages.values())
            line = None if kept.place is None else kept.place.line
            # What came last is what the last steps fed.
            for address, (device, size) in list(kept.storages.items())[-kept.max_rows :]:
                named = kept.text, kept.kind, kept.file, line, kept.function
                looked = self.glances.get((address, device, size))
                is_written = None if looked is None or looked.is_written is None else int(looked.is_written)
                rows.append((now_ns, step, device, address, size, *named, len(kept.storages), num_bytes, is_written))
        return rows[:_MAX_ROWS]

    def _of_gradients(self, tensors: Iterable[Any], place: Place | None) -> list[tuple[weakref.ref[Any], Answer]]:
        """Keep tensors whose gradient has a graph, by which it refers to what it was taken for; return both."""
        answer = Answer("cycle through the graph of its own .grad (create_graph=True)", "cycle", place)
        found = []
        for tensor in tensors:
            gradient = tensor.grad if tensor.is_leaf else None
            if gradient is not None and gradient.grad_fn is not None:
                for one in (tensor, gradient):
                    self._keep(self._entry_of(answer), _storages(one))
                    found.append((weakref.ref(one), answer))
        return found

    def _keep(self, entry: Kept, storages: Iterable[tuple[int, int, str]]) -> None:
        for address, size, device in storages:
            if address not in self._known:
                self._known[address] = entry.storages[address] = device, size

    def _keep_graph(self, tensor: Any, named: NamedChain, root: Root) -> None:
        text = f"graph of {named.text()}"
        if self._num_graphs[text] >= _MAX_GRAPHS or thread_time_ns() > self._until_ns or self._saved is None:
            return
        self._num_graphs[text] += 1
        rows = self._saved.rows([tensor], now_ns=0, step=0, microbatch=0, max_nodes=_MAX_NODES)
        new = [(row[4], row[5], row[3]) for row in rows if row[4] not in self._known]
        if new:
            self._keep(self._entry(named, root, graph=True), new)

    def _entry(self, named: NamedChain, root: Root, *, graph: bool = False, model: bool = False) -> Kept:
        text = f"graph of {named.text()}" if graph else named.text()
        key = text, root.name
        if key not in self._kept:
            place = self._place(named, root)
            file = None if root.frame is None else root.frame.f_code.co_filename
            self._kept[key] = Kept(text, "graph" if graph else named.kind, place, root.name, file, is_model=model)
        return self._kept[key]

    def _entry_of(self, answer: Answer) -> Kept:
        return self._kept.setdefault((answer.text, None), Kept(answer.text, answer.kind, answer.place, None, None))

    def _place(self, named: NamedChain, root: Root) -> Place | None:
        """Return the line of the program that feeds what keeps a tensor, where there is one such line."""
        if named.cache is not None:
            return returning_line(named.cache)
        if not named.variable:
            return None
        if named.code is not None:
            return feeding_line([named.code], Named(named.variable, named.attribute, named.is_container))
        now = None if root.frame is None else line_of(root.frame)
        codes = list(self._codes(root, named.variable))
        held = named.first
        if named.attribute is not None:
            kind = held if isinstance(held, type) else type(held)
            if not is_class_of_program(kind):
                place = using_line(codes, named.variable, now)
            else:
                place = feeding_line(methods_of(kind), Named(OWN, named.attribute, named.is_container), now)
            if place is not None:
                return place
        return feeding_line(codes, Named(named.variable, named.attribute, named.is_container), now)

    def _codes(self, root: Root, variable: str) -> Iterator[CodeType]:
        """Yield the code in which a variable of a root may be fed."""
        is_module = root.frame is None or root.variables is root.frame.f_globals
        if root.frame is not None:
            yield root.frame.f_code
        if is_module:
            # A variable of a function's own, of that name, is another.
            codes = functions_in(root.variables)
            yield from (code for code in codes if variable not in (*code.co_varnames, *code.co_cellvars))


def _has_graph(tensor: Any) -> bool:
    return getattr(tensor, "grad_fn", None) is not None


def _begin(tensor: Any) -> int | None:
    """Return where the storage of a plain tensor begins; `None` of one that has none.

    Asked for the storage, torch would make an object that lives as long as it.
    """
    try:
        begin: int = tensor.data_ptr() - tensor.storage_offset() * tensor.element_size()
    except (RuntimeError, NotImplementedError):
        return None
    return begin


def _storages(tensor: Any) -> list[tuple[int, int, str]]:
    """Return address, size and device of the storages behind a tensor; none of a tensor that has none to show."""
    try:
        found = []
        for part in plain_tensors(tensor):
            storage = part.untyped_storage()
            if storage.data_ptr() and storage.nbytes():
                found.append((storage.data_ptr(), storage.nbytes(), device_name(part.device)))
        return found
    except (RuntimeError, NotImplementedError, AttributeError):
        return []
