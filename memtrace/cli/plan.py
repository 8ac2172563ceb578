"""`memtrace plan`: which layouts of a model fit some GPUs, and which are fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from memtrace.cli.options.model_options import model_options, named_model, names_a_model, run_options
from memtrace.cli.options.numbers import COUNT, FEW, CountText, GpuName, Number
from memtrace.cli.shell.told import say

_NEEDED = ("gpus", "gpu", "gbs_tokens", "sequence")
EXIT_NOTHING_FITS = 3


@click.command()
@model_options
@click.option("--gpus", type=FEW, help="How many GPUs there are.")
@click.option("--gpu", type=GpuName(), help="Which: h100-80gb, a100-40gb … or a size, as 24GiB.")
@click.option("--gbs-tokens", type=CountText(), metavar="COUNT", help="Tokens of one optimizer step; 4M is 4·2²⁰.")
@click.option("--sequence", "--seq", type=COUNT, help="Tokens of a sequence.")
@click.option(
    "--evaluate",
    "table",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    metavar="TABLE",
    help="Evaluate the layouts of a CSV or JSON file (- is standard input) instead of searching; see docs/plan.md.",
)
@run_options
@click.option(
    "--calibrate",
    type=click.Path(exists=True, allow_dash=True, path_type=Path),
    metavar="RUN",
    help="What ran: a trace of memtrace, or a table of layouts with measured_tokens_per_second_per_gpu or "
    "measured_peak_bytes.",
)
@click.option(
    "--framework",
    type=click.Choice(["none", "megatron", "torchtitan", "nanotron", "deepspeed", "fsdp"]),
    default="none",
    show_default=True,
    help="What trains: its kernels, its speed, and what it keeps.",
)
@click.option("--gpus-per-node", type=FEW, help="GPUs that fast links connect.  [default: 8]")
@click.option(
    "--intra-gbs",
    type=Number(0, 10**9, min_open=True),
    help="GB/s between GPUs of a node, one way, in place of the data sheet's.",
)
@click.option("--inter-gbs", type=Number(0, 10**9, min_open=True), help="GB/s between nodes, one way and per GPU.")
@click.option(
    "--compute-share",
    type=Number(0, 1, min_open=True),
    help="Share of the data sheet's FLOP/s that large matrix products reach.  [default: the framework's]",
)
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True, help="Layouts to list.")
@click.option("--html", type=click.Path(path_type=Path), metavar="PATH", help="Write one HTML file that opens offline.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
@click.option("--force", is_flag=True, help="Overwrite the HTML file if it exists.")
@click.pass_context
def plan(
    ctx: click.Context, /, table: Path | None, html: Path | None, as_json: bool, force: bool, **options: Any
) -> None:
    """Search parallel layouts for those that fit, and rank them.

    All combinations of data, tensor, pipeline, context and expert parallelism, ZeRO stage, recomputation and
    micro-batch are tried for the global batch. Exit code 3: none fits.

    \b
    Example:
      memtrace plan --preset llama-3-8b --gpus 512 --gpu h100-80gb --gbs-tokens 4M --sequence 4096
      memtrace plan --config config.json --gpus 8 --gpu 24GiB --gbs-tokens 512K --sequence 2048 --html plan.html
      memtrace plan --evaluate layouts.csv --gpu h100-80gb --json
    """
    if table is not None:
        _evaluate(table, html, options, as_json=as_json, force=force)
        return
    _check_complete(options)
    from memtrace.forecast.planning.plan import make_plan
    from memtrace.report.answers.plan import plan_json, plan_text
    from memtrace.report.output import check_output, write_text

    if html is not None:
        check_output(html, force=force)
    result = make_plan(named_model(options).spec, _question(options), top=options["top"])
    if html is not None:
        from memtrace.report.page.plan import render_plan

        write_text(render_plan(result), html, force=force)
    click.echo(plan_json(result) if as_json else plan_text(result), nl=False)
    if html is not None:
        say(f"Wrote {html}", err=as_json)
    if not result.num_fitting:
        ctx.exit(EXIT_NOTHING_FITS)


def _check_complete(options: dict[str, Any]) -> None:
    """Refuse a search that lacks something, naming all that it lacks at once."""
    missing = [f"--{name.replace('_', '-')}" for name in _NEEDED if options[name] is None]
    if not names_a_model(options):
        missing.insert(0, "--preset (or --config, --params)")
    if missing:
        example = "memtrace plan --preset llama-3-8b --gpus 512 --gpu h100-80gb --gbs-tokens 4M --sequence 4096"
        raise click.UsageError(f"missing: {', '.join(missing)}; as in `{example}`")


def _evaluate(table: Path, html: Path | None, options: dict[str, Any], *, as_json: bool, force: bool) -> None:
    """Answer for the layouts of a table, and write their page where one is asked for."""
    from memtrace.cli.evaluate_layouts import evaluated
    from memtrace.report.answers.evaluation import evaluation_json, evaluation_text
    from memtrace.report.output import check_output, write_text

    if html is not None:
        check_output(html, force=force)
    rows, agreed = evaluated(table, options)
    if html is not None:
        from memtrace.report.page.evaluation import render_evaluation

        write_text(render_evaluation(rows, agreed), html, force=force)
    click.echo(evaluation_json(rows, agreed) if as_json else evaluation_text(rows, agreed), nl=False)
    if html is not None:
        say(f"Wrote {html}", err=as_json)


def _question(options: dict[str, Any]) -> Any:
    """Return what the options ask."""
    from dataclasses import replace

    from memtrace.cli.evaluate_layouts import calibrated
    from memtrace.forecast.gpus import gpu_named
    from memtrace.forecast.memory.optimizers import optimizer_named
    from memtrace.forecast.model.from_parameter_count import parse_count
    from memtrace.forecast.model.precision import precision_in
    from memtrace.forecast.planning.plan import Question
    from memtrace.forecast.step_time.speed import speed_of

    given = {
        "gpus_per_node": options["gpus_per_node"],
        "intra_bytes_s": None if options["intra_gbs"] is None else options["intra_gbs"] * 1e9,
        "inter_bytes_s": None if options["inter_gbs"] is None else options["inter_gbs"] * 1e9,
    }
    return Question(
        gpus=options["gpus"],
        gpu=replace(gpu_named(options["gpu"]), **{name: value for name, value in given.items() if value is not None}),
        global_tokens=parse_count(options["gbs_tokens"], unit=1024),
        sequence=options["sequence"],
        precision=precision_in(options["precision"], options["framework"]),
        optimizer=optimizer_named(options["optimizer"]),
        attention=options["attention"],
        dropout=options["dropout"],
        framework=options["framework"],
        speed=speed_of(options["framework"], options["compute_share"]),
        known=calibrated(options),
    )
