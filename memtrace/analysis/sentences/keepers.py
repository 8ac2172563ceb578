"""What keeps memory, in words: evidence for a finding, and what to change about it."""

from __future__ import annotations

from memtrace.analysis.results.diagnosis import Keeper

_CHANGES = {
    "graph": "Keep a number instead of the tensor, which holds the whole graph that made it: loss.item(), or "
    "loss.detach(); compute what is only looked at under torch.no_grad().",
    "variable": "Let go of it when it has served (del), or put the body of the loop into a function of its own.",
    "container": "Bound it, empty it when it has been read, or put numbers or copies on the CPU into it.",
    "bounded": "Let it hold fewer (maxlen), or put numbers or copies on the CPU into it.",
    "attribute": "Set the attribute to None when it has served, or keep a number or a copy on the CPU there.",
    "closure": "What a function closes over lives as long as the function: remove the hook, or bound what it fills.",
    "traceback": "Keep the text of the exception (str(error)) and not the exception: its traceback holds the variables "
    "of every call that it came through.",
    "context": "Give tensors to ctx.save_for_backward() and not to attributes of ctx.",
    "cache": "Bound the cache (functools.lru_cache(maxsize=…)), or empty it (cache_clear()).",
    "cycle": "Break the cycle: refer back weakly (weakref), or set the attribute to None when the object has served. "
    "Until then only the garbage collector frees it, now and then.",
}
_GRADIENT_GRAPH = (
    "Take the gradient by torch.autograd.grad(…, create_graph=True) instead of backward(create_graph=True), or set "
    ".grad of what it was taken for to None: the gradient's graph refers to it, and it to the gradient."
)


def change_of(keeper: Keeper, *, is_replaced: bool = False) -> str:
    """Return what to change about what keeps memory, or what keeps it until the next step replaces it."""
    if is_replaced and keeper.kind in ("container", "attribute"):
        return _CHANGES["variable"]
    if "create_graph" in keeper.text:
        return _GRADIENT_GRAPH
    kind = "traceback" if "in the traceback of" in keeper.text else keeper.kind
    return _CHANGES.get(kind, _CHANGES["container"])


def kept_by(keeper: Keeper | None) -> dict[str, object]:
    """Return who keeps something as evidence of a finding: in words, and the line that feeds it."""
    if keeper is None:
        return {}
    fed_at = {} if keeper.fed_at is None else {"fed_at": keeper.fed_at}
    return {"kept_by": keeper.text, "keeper_kind": keeper.kind, **fed_at}
