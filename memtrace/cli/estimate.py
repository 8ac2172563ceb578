"""`memtrace estimate`: what a training run needs, from arithmetic alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from memtrace.cli.options.model_options import NamedModel, model_options, named_model, run_options
from memtrace.cli.options.numbers import COUNT, FEW, GpuName
from memtrace.cli.shell.told import say

if TYPE_CHECKING:
    from memtrace.forecast.memory.layout import Layout, Run
    from memtrace.forecast.model.adapters import Adapter
    from memtrace.forecast.model.spec import ModelSpec
    from memtrace.forecast.results import Comparison, Estimate

EXIT_DOES_NOT_FIT = 3
EXIT_UNCERTAIN = 4


@click.command()
@model_options
@click.option("--micro-batch", type=FEW, default=1, show_default=True, help="Sequences of one forward pass on a GPU.")
@click.option(
    "--sequence", "--seq", type=COUNT, help="Tokens of a sequence.  [default: 1024, or what the model allows]"
)
@click.option(
    "--target-sequence",
    type=COUNT,
    help="Tokens of the decoder's sequence, of a model that has an encoder.  [default: as --sequence]",
)
@click.option("--accumulation", type=FEW, default=1, show_default=True, help="Micro-batches of a step.")
@run_options
@click.option(
    "--recompute",
    type=click.Choice(["none", "selective", "full"]),
    default="none",
    show_default=True,
    help="What backward computes again: the inside of attention, or layers.",
)
@click.option(
    "--loss",
    type=click.Choice(["plain", "parallel", "fused", "chunked"]),
    default="plain",
    show_default=True,
    help=(
        "How the loss is computed: in float32 beside the logits; over parts of the vocabulary (Megatron); in place of "
        "the logits; or a part of the tokens at a time, without whole logits (Liger, torchtune)."
    ),
)
@click.option("--lora", type=FEW, metavar="RANK", help="Train adapters of this rank (LoRA); the model is frozen.")
@click.option(
    "--lora-on",
    type=click.Choice(["qv", "attention", "all"]),
    help="The matrices that have one: queries and values, all of attention, or MLPs too.  [default: all]",
)
@click.option(
    "--base",
    type=click.Choice(["plain", "int8", "nf4"]),
    help="How frozen matrices are kept: as the precision says, or as bitsandbytes quantizes them.  [default: plain]",
)
@click.option(
    "--cache/--no-cache",
    default=None,
    help=(
        "Whether the model fills its cache of keys and values, as transformers does unless use_cache is off.  "
        "[default: not known: counted as off, the range holds both]"
    ),
)
@click.option("--fused", is_flag=True, help="The optimizer runs fused: no temporary as large as a state.")
@click.option("--backend", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True, help="Where it runs.")
@click.option("--dp", type=FEW, default=1, show_default=True, help="Data-parallel ranks.")
@click.option("--tp", type=FEW, default=1, show_default=True, help="Tensor-parallel ranks.")
@click.option("--pp", type=FEW, default=1, show_default=True, help="Pipeline stages.")
@click.option("--cp", type=FEW, default=1, show_default=True, help="Context-parallel ranks.")
@click.option("--ep", type=FEW, default=1, show_default=True, help="Expert-parallel ranks, a part of the others.")
@click.option("--zero", type=click.IntRange(0, 3), default=0, show_default=True, help="ZeRO stage; 3 is FSDP.")
@click.option("--no-sequence-parallel", is_flag=True, help="Tensor parallelism leaves norms and dropouts whole.")
@click.option("--bucket-view", is_flag=True, help="DistributedDataParallel with gradient_as_bucket_view: no copies.")
@click.option("--gpu", type=GpuName(), help="What it has to fit into: h100-80gb, a100-40gb … or a size, as 24GiB.")
@click.option(
    "--against",
    type=click.Path(exists=True, path_type=Path),
    metavar="TRACE",
    help="Put the estimate beside a recording of the same run.",
)
@click.option("--html", type=click.Path(path_type=Path), metavar="PATH", help="Write one HTML file that opens offline.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
@click.option("--force", is_flag=True, help="Overwrite the HTML file if it exists.")
@click.pass_context
def estimate(ctx: click.Context, /, html: Path | None, as_json: bool, force: bool, **options: Any) -> None:
    """Estimate what a training run needs, before anything runs.

    Exit code 0: it fits, or no --gpu was given. 3: it does not fit. 4: the GPU's memory lies within the doubt.

    \b
    Example:
      memtrace estimate --preset llama-3-8b --micro-batch 1 --sequence 4096 --dp 8 --zero 3 --gpu h100-80gb
      memtrace estimate --config config.json --precision autocast --gpu 24GiB --html estimate.html
      memtrace estimate --params 7B --recompute full
      memtrace estimate --preset llama-3.1-8b --lora 16 --base nf4 --sequence 2048 --recompute full --gpu 24GiB
      memtrace estimate --preset gpt2 --backend cpu --precision fp32 --against trace.json
    """
    from memtrace.forecast.estimation.estimate import estimate as make_estimate
    from memtrace.forecast.gpus import gpu_named
    from memtrace.report.answers.estimate import estimate_json, estimate_text
    from memtrace.report.output import check_output, write_text

    if html is not None:
        check_output(html, force=force)
    model = named_model(options)
    if model.spec.position_buckets and ctx.get_parameter_source("attention") is ParameterSource.DEFAULT:
        # No flash kernel adds learned scores, so that transformers leaves the choice of one to torch.
        options["attention"] = "sdpa"
    run, layout = _run(options, model), _layout(options)
    capacity = None if options["gpu"] is None else gpu_named(options["gpu"]).memory_bytes
    result = make_estimate(model.spec, run, layout, capacity_bytes=capacity, is_assumed_shape=model.is_assumed_shape)
    against = options["against"]
    comparison = None if against is None else _against(result, model.spec, run, layout, against)
    if html is not None:
        from memtrace.report.page.estimate import render_estimate

        write_text(render_estimate(result, comparison), html, force=force)
    click.echo(estimate_json(result, comparison) if as_json else estimate_text(result, comparison), nl=False)
    if html is not None:
        say(f"Wrote {html}", err=as_json)
    if capacity is not None and result.fits is not True:
        ctx.exit(EXIT_UNCERTAIN if result.fits is None else EXIT_DOES_NOT_FIT)


def _run(options: dict[str, Any], model: NamedModel) -> Run:
    from memtrace.forecast.gpus import gpu_named
    from memtrace.forecast.memory.layout import RECOMPUTE, Run
    from memtrace.forecast.memory.optimizers import optimizer_named
    from memtrace.forecast.model.precision import precision_named
    from memtrace.schema.cuda_context import USUAL_CONTEXT

    longest = model.spec.max_positions
    sequence = options["sequence"] or min(1024, longest or 1024)
    target = options["target_sequence"]
    return Run(
        micro_batch=options["micro_batch"],
        sequence=target or sequence,
        source_sequence=None if target is None else sequence,
        accumulation=options["accumulation"],
        precision=precision_named(options["precision"]),
        optimizer=optimizer_named(options["optimizer"]),
        attention=options["attention"],
        recompute=RECOMPUTE.index(options["recompute"]),
        backend=options["backend"],
        loss=options["loss"],
        adapter=_adapter(options),
        caches_kv=options["cache"],
        is_fused=options["fused"],
        context=USUAL_CONTEXT if options["gpu"] is None else gpu_named(options["gpu"]).context,
        dropout=options["dropout"],
    )


def _adapter(options: dict[str, Any]) -> Adapter | None:
    from memtrace.errors import MemtraceError
    from memtrace.forecast.model.adapters import Adapter

    rank, targets, base = options["lora"], options["lora_on"], options["base"]
    if rank is None:
        if targets is not None or base is not None:
            hint = "a model that is trained whole has no frozen matrices"
            raise MemtraceError("--lora-on and --base need --lora RANK", hint=hint)
        return None
    return Adapter(rank=rank, targets=targets or "all", base=base or "plain")


def _layout(options: dict[str, Any]) -> Layout:
    from memtrace.forecast.memory.layout import Layout

    axes = {name: options[name] for name in ("dp", "tp", "pp", "cp", "ep", "zero")}
    sequence_parallel, bucket_view = not options["no_sequence_parallel"], options["bucket_view"]
    return Layout(**axes, sequence_parallel=sequence_parallel, bucket_view=bucket_view)


def _against(result: Estimate, spec: ModelSpec, run: Run, layout: Layout, path: Path) -> Comparison:
    """Return the estimate beside the rank of a recording that its report is about."""
    from memtrace.analysis.report import analyze
    from memtrace.cli.left_out import say_left_out
    from memtrace.errors import MemtraceError
    from memtrace.forecast.estimation.against import compare
    from memtrace.forecast.estimation.rank_states import for_rank
    from memtrace.store.reading.read import read_trace

    report = analyze(read_trace((path,)))
    say_left_out(report.warnings)
    if not report.ranks:
        raise MemtraceError(f"{path}: no memory was recorded, so there is nothing to compare with")
    recorded = report.ranks[report.main_rank or 0]
    return compare(for_rank(result, spec, run, layout, recorded.rank), recorded)
