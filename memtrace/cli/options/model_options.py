"""Options of `estimate` and `plan` that say which model is meant and how it is trained, and what they mean.

Shared as decorators, so that both commands take the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from memtrace.cli.options.numbers import COUNT, FEW, CountText, Number
from memtrace.errors import MemtraceError

if TYPE_CHECKING:
    from memtrace.forecast.model.spec import ModelSpec

Command = TypeVar("Command", bound=Callable[..., Any])
DIMENSIONS = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocabulary")
_WAYS = ("config", "preset", "params")
MAX_CONFIG_BYTES = 4 * 1024**2

_MODEL_OPTIONS = (
    click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The model's config.json, as transformers writes it.",
    ),
    click.option("--preset", metavar="NAME", help="A well-known model, as llama-3-8b; a wrong name lists near ones."),
    click.option(
        "--params",
        metavar="COUNT",
        type=CountText(),
        help="A model of so many parameters, as 7B, of which no more is known.",
    ),
    click.option(
        "--layers", type=click.IntRange(1, 4_000), help="With --hidden and --heads: a GPT of these dimensions."
    ),
    click.option("--hidden", type=click.IntRange(1, 10**7), help="Hidden size."),
    click.option("--heads", type=FEW, help="Attention heads."),
    click.option("--kv-heads", type=FEW, help="Heads of keys and values; as many as heads if not given."),
    click.option(
        "--ffn", type=click.IntRange(1, 10**7), help="Inner width of the MLP; four times the hidden size if not given."
    ),
    click.option("--vocabulary", type=COUNT, help="Rows of the embedding.  [default: 50257]"),
    click.option("--gated", is_flag=True, help="With dimensions: the MLP has a gate (SwiGLU)."),
)

_RUN_OPTIONS = (
    click.option(
        "--precision",
        default="bf16-mixed",
        show_default=True,
        metavar="RECIPE",
        help=(
            "How numbers are kept: fp32, autocast, bf16-mixed, bf16-mixed-fp32-grad, bf16, fp8-mixed, fp8-deepseek, "
            "fp8-dynamic, fp8-lm, bf16-main-grad, deepspeed-zero."
        ),
    ),
    click.option(
        "--optimizer",
        default="adamw",
        show_default=True,
        metavar="NAME",
        help="adamw (or adam), adam-8bit (or adamw-8bit), sgd, sgd-momentum, adafactor, lion, muon.",
    ),
    click.option(
        "--attention",
        type=click.Choice(["flash", "sdpa", "explicit"]),
        default="flash",
        show_default=True,
        help="The attention kernel; explicit writes the scores out. T5 has sdpa where nothing is said.",
    ),
    click.option("--dropout", type=Number(0, 1), help="In place of every dropout of the model."),
)


def model_options(command: Command) -> Command:
    """Add the options that name a model."""
    return _with(_MODEL_OPTIONS, command)


def run_options(command: Command) -> Command:
    """Add the options of training that estimates and plans share."""
    return _with(_RUN_OPTIONS, command)


def _with(options: tuple[Any, ...], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModel:
    """A model that the command line named."""

    spec: ModelSpec
    is_assumed_shape: bool
    """Whether only its number of parameters was given."""


def names_a_model(options: dict[str, Any]) -> bool:
    """Return whether any option says which model is meant."""
    return any(options[name] is not None for name in (*_WAYS, *DIMENSIONS))


def named_model(options: dict[str, Any]) -> NamedModel:
    """Return the one model that the options name.

    Raises:
        MemtraceError: none or several are named, or one cannot be read.
    """
    from memtrace.forecast.model.from_parameter_count import parse_count, spec_of_size
    from memtrace.forecast.model.presets import preset

    has_dimensions = any(options[name] is not None for name in DIMENSIONS)
    ways = [name for name in _WAYS if options[name] is not None]
    if len(ways) + has_dimensions != 1:
        hint = "give one of --config, --preset, --params, or dimensions: --layers, --hidden and --heads"
        raise MemtraceError("several models are named" if ways else "no model is named", hint=hint)
    if has_dimensions:
        return NamedModel(spec=_of_dimensions(options), is_assumed_shape=False)
    if options["params"] is not None:
        return NamedModel(spec=spec_of_size(parse_count(options["params"])), is_assumed_shape=True)
    spec = preset(options["preset"]) if options["preset"] is not None else _of_file(options["config"])
    return NamedModel(spec=spec, is_assumed_shape=False)


def _of_file(path: Path) -> ModelSpec:
    import json

    from memtrace.forecast.model.config import read_config
    from memtrace.store.opening import read_small

    try:
        config = json.loads(read_small(path, max_bytes=MAX_CONFIG_BYTES).decode("utf-8"))
    except OSError as error:
        hint = "give --config a file of its own, not a pipe or a device"
        raise MemtraceError(f"{path}: {error.strerror or error}", hint=hint) from None
    except (ValueError, RecursionError) as error:
        raise MemtraceError(f"{path} is not JSON that can be read: {error}"[:300]) from error
    return read_config(config, name=path.parent.name if path.name == "config.json" and path.parent.name else path.stem)


def _of_dimensions(options: dict[str, Any]) -> ModelSpec:
    from memtrace.forecast.model.spec import ModelSpec

    missing = [f"--{name}" for name in ("layers", "hidden", "heads") if options[name] is None]
    if missing:
        raise MemtraceError(f"dimensions need {', '.join(missing)} too")
    hidden, heads = options["hidden"], options["heads"]
    if heads < 1 or hidden % heads:
        raise MemtraceError(f"a hidden size of {hidden} cannot be divided among {heads} heads")
    return ModelSpec(
        name=f"{options['layers']} layers of {hidden}",
        architecture="plain",
        num_layers=options["layers"],
        hidden=hidden,
        num_heads=heads,
        num_kv_heads=heads if options["kv_heads"] is None else options["kv_heads"],
        head_dim=hidden // heads,
        ffn=4 * hidden if options["ffn"] is None else options["ffn"],
        vocabulary=50257 if options["vocabulary"] is None else options["vocabulary"],
        gated=options["gated"],
    )
