"""Faults of one line each that some test must find: in columns, figures and thresholds, and in the training loop.

A fault names the module, a piece of its text that occurs once, what stands there instead, and the tests that must fail.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One change to one line of memtrace."""

    name: str
    module: str
    """Dotted name."""
    old: str
    new: str
    tests: tuple[str, ...]
    """Files of tests, one of which must fail."""


def _of(module: str, tests: tuple[str, ...], *faults: tuple[str, str, str]) -> tuple[Fault, ...]:
    return tuple(Fault(name=name, module=module, old=old, new=new, tests=tests) for name, old, new in faults)


_COLUMNS = ("tests/report/test_columns.py",)
_STEP_TIME = ("tests/forecast/test_step_time.py",)
_SHARDING = ("tests/forecast/test_sharding_numbers.py",)
_OPTIMIZERS = ("tests/forecast/test_optimizers.py",)
_PHASES = ("tests/forecast/test_phases.py",)
_KERNELS = ("tests/forecast/test_kernels.py",)
_RESERVE = ("tests/forecast/test_reserve.py",)
_THRESHOLDS = ("tests/analysis/test_thresholds.py",)
_LOOP = tuple(f"tests/hooks/test_training_loop{part}.py" for part in ("", "_optimizers", "_owners", "_window"))

SHOWN = (
    *_of(
        "memtrace.report.drawing.step_time_rows",
        _COLUMNS,
        (
            "tokens a step show the number of steps",
            "{throughput.tokens_per_step:,} a step",
            "{throughput.num_steps:,} a step",
        ),
        ("the column of tokens shows samples", "_count(step.tokens)", "_count(step.samples)"),
        (
            "the column memtrace shows the step",
            '("memtrace", lambda step: format_ns(step.recording_ns))',
            '("memtrace", lambda step: format_ns(step.step_ns))',
        ),
        ("TFLOP of a step are those of the device", "flops.per_step / tera", "flops.peak_flops / tera"),
    ),
    *_of(
        "memtrace.report.drawing.time_rows",
        _COLUMNS,
        ("copies show copies beside kernels", "format_ns(split.copy_ns)", "format_ns(split.copy_only_ns)"),
        ("waiting for data shows all of it", "format_ns(split.data_stall_ns)", "format_ns(split.data_ns)"),
        ("waiting for memory shows all of it", "format_ns(split.allocator_stall_ns)", "format_ns(split.allocator_ns)"),
        ("idle shows what others did", "format_ns(split.idle_ns)", "format_ns(split.other_ns)"),
        ("the share of idle is that of hidden", "_share(split.idle_share)", "_share(split.hidden_share)"),
    ),
    *_of(
        "memtrace.report.terminal.communication",
        _COLUMNS,
        ("scatters show gathers", "str(one.num_scatters)", "str(one.num_gathers)"),
        ("bytes in show bytes out", "size(one.input_bytes)", "size(one.output_bytes)"),
    ),
    *_of(
        "memtrace.report.terminal.ranks",
        _COLUMNS,
        ("steady shows the peak", "size(row.steady_peak_bytes)", "size(row.peak_bytes)"),
        ("the rank of most is that of least", "str(ranks.savings[most].rank)", "str(ranks.savings[least].rank)"),
        ("the middle of ranks shows the highest", "*lowest, size(one.median_bytes)", "*lowest, size(one.max_bytes)"),
    ),
    *_of(
        "memtrace.report.terminal.pools",
        _COLUMNS,
        ("pieces show free bytes", "pool.split_bytes for", "pool.free_bytes for"),
    ),
    *_of(
        "memtrace.report.terminal.memory",
        _COLUMNS,
        ("allocated shows reserved", "size(state.allocated_bytes)", "size(state.reserved_bytes)"),
    ),
    *_of(
        "memtrace.report.terminal.overview",
        _COLUMNS,
        ("the end of a step shows its peak", "size(at_end)", "size(peak)"),
    ),
    *_of(
        "memtrace.report.answers.plan",
        _COLUMNS,
        ("the step shows computation", "format_ns(row.step_time_ns)", "format_ns(row.compute_ns)"),
    ),
    *_of(
        "memtrace.report.answers.whatif",
        _COLUMNS,
        ("wasted shows reserved", "format_bytes(row.wasted_bytes)", "format_bytes(row.max_reserved_bytes)"),
    ),
    *_of(
        "memtrace.report.answers.fit",
        _COLUMNS,
        ("needed shows the peak", "format_bytes(measured.needed_bytes)", "format_bytes(measured.peak_bytes)"),
    ),
    *_of(
        "memtrace.report.answers.diff",
        _COLUMNS,
        (
            "reserved of A is that of B",
            '"largest reserved", rank.reserved_a_bytes',
            '"largest reserved", rank.reserved_b_bytes',
        ),
    ),
)
"""Columns and sentences that show another field."""

FORECAST = (
    *_of(
        "memtrace.forecast.step_time.communication",
        _STEP_TIME,
        ("tensor parallelism reduces twice a layer", "rounds = 4 + 2", "rounds = 2 + 2"),
        ("an all-reduce sends half", "volume = 2 * (layout.tp - 1)", "volume = (layout.tp - 1)"),
        ("a stage sends values forward only", "times = 2 * (layout.pp > 1)", "times = 1 * (layout.pp > 1)"),
        ("tokens go to experts in forward only", "return 4 * share", "return 2 * share"),
        ("keys go round without values", "pair = 2 * run.micro_batch", "pair = run.micro_batch"),
        ("keys and values go round twice", "steps = 3 * (layout.cp - 1)", "steps = 2 * (layout.cp - 1)"),
        ("weights are gathered once", "(1 + layout.reshard)", "(0 + layout.reshard)"),
        ("gradients are reduced by half", "volume = ring * (gradients +", "volume = ring * (0 +"),
    ),
    *_of(
        "memtrace.forecast.step_time.links",
        _STEP_TIME,
        ("a machine holds one GPU less", "span <= self.gpu.gpus_per_node", "span < self.gpu.gpus_per_node"),
        ("a group has one network card", "of_machine * self.gpu.inter_bytes_s", "self.gpu.inter_bytes_s"),
        ("latency does not grow", "(1 + np.log2(machines))", "1"),
    ),
    *_of(
        "memtrace.forecast.step_time.computation",
        _STEP_TIME,
        (
            "selective recomputation repeats all",
            "(run.recompute == 1) * attention / 3",
            "(run.recompute == 1) * layer / 3",
        ),
        ("a fused kernel computes the whole square", "return flops / 2 / (rate", "return flops / (rate"),
    ),
    *_of(
        "memtrace.forecast.step_time.step",
        _STEP_TIME,
        ("the bubble is one micro-batch longer", "one * (layout.pp - 1)", "one * layout.pp"),
        ("reduction hides behind all of the computation", "compute * 2 / 3,", "compute,"),
        ("tokens of one rank count", "run.accumulation * layout.dp", "run.accumulation"),
    ),
    *_of(
        "memtrace.forecast.step_time.schedule",
        _STEP_TIME,
        ("interleaving does not shorten the bubble", "(1 + waits) / layout.virtual_stages", "(1 + waits) / 1"),
    ),
    *_of(
        "memtrace.forecast.memory.sharding",
        _SHARDING,
        ("ZeRO-3 gathers a layer less", "layout.reshard * 2 * per_layer", "layout.reshard * per_layer"),
        ("ZeRO-3 scatters nothing", "reduced=gathers * reduced", "reduced=0 * reduced"),
        ("one bucket instead of two", "is_flat * 2 * BUCKETS.get", "is_flat * BUCKETS.get"),
        ("a communicator for every axis", "(axis > 1) * 1", "(axis > 0) * 1"),
        (
            "gradients are divided from ZeRO-1 on",
            "gradients = elements.over(layout, 2)",
            "gradients = elements.over(layout, 1)",
        ),
    ),
    *_of(
        "memtrace.forecast.memory.optimizers",
        _OPTIMIZERS,
        ("Adafactor keeps rows times columns", "number * (rows + columns)", "number * (rows * columns)"),
        ("8-bit states begin one element later", "tensor.numel < MIN_QUANTIZED", "tensor.numel <= MIN_QUANTIZED"),
        ("a scale of 8-bit states has one byte", "tensor.numel + 4 * -(", "tensor.numel + 1 * -("),
        ("Muon treats vectors as matrices", "and len(tensor.shape) >= 2", "and len(tensor.shape) >= 1"),
    ),
    *_of(
        "memtrace.forecast.memory.phases",
        _PHASES,
        ("the loss makes one gradient", "LOSS_GRADIENTS[run.loss] * stage", "1 * stage"),
        (
            "the states count their numbers without the master copy",
            "trained_precision(run.precision, run.adapter).master_bytes > 0",
            "trained_precision(run.precision, run.adapter).master_bytes < 0",
        ),
    ),
    *_of(
        "memtrace.forecast.memory.held_by_framework",
        _PHASES,
        (
            "gradients are summed up from the first micro-batch",
            "((run.accumulation > 1) |",
            "((run.accumulation > 0) |",
        ),
    ),
    *_of(
        "memtrace.forecast.memory.activations",
        _PHASES,
        ("the log-sum-exp has 2 bytes", "= 4 * heads * shape.tokens", "= 2 * heads * shape.tokens"),
        (
            "a router keeps its probabilities once",
            "2 * 4 * shape.tokens * spec.num_experts",
            "4 * shape.tokens * spec.num_experts",
        ),
    ),
    *_of(
        "memtrace.forecast.memory.kept_by_kernels",
        _KERNELS,
        ("a layer norm keeps no mean", "residual_bytes if is_narrow else 8", "residual_bytes if is_narrow else 4"),
    ),
    *_of(
        "memtrace.forecast.memory.reserve",
        _RESERVE,
        ("a layer before is not kept beside its next", "self.whole = (last, self", "self.whole = ([], self"),
    ),
)
"""Terms of time and bytes that are off."""

JUDGED = (
    *_of(
        "memtrace.analysis.diagnosis.leaks",
        _THRESHOLDS,
        ("a leak of 4096 bytes is too small", "leak.bytes_per_step >= least", "leak.bytes_per_step > least"),
        ("a leak begins at 8192 bytes", "_MIN_BYTES_A_STEP = 4096", "_MIN_BYTES_A_STEP = 8192"),
        ("a leak may take a million steps", "_STEPS_TO_DOUBLE = 100_000", "_STEPS_TO_DOUBLE = 1_000_000"),
        ("a graph has four modules", "_GRAPH_MODULES = 3", "_GRAPH_MODULES = 4"),
    ),
    *_of(
        "memtrace.analysis.diagnosis.growth",
        _THRESHOLDS,
        ("a leak grows in two steps", "_MIN_STEPS = 3", "_MIN_STEPS = 2"),
        ("a fifth may be replaced", "_REPLACED_SHARE = 0.1", "_REPLACED_SHARE = 0.2"),
        ("three steps are few", "_FEW_STEPS = 4", "_FEW_STEPS = 3"),
    ),
    *_of(
        "memtrace.analysis.diagnosis.leak_findings",
        _THRESHOLDS,
        ("every leak ends the run soon", "_SOON_STEPS = 10_000", "_SOON_STEPS = 100_000"),
    ),
    *_of(
        "memtrace.analysis.first_step.effects",
        _THRESHOLDS,
        ("an effect explains a tenth of that", "_WORTH_SAYING_SHARE = 0.005", "_WORTH_SAYING_SHARE = 0.0005"),
        (
            "an effect at the threshold is left out",
            "one.num_bytes >= _WORTH_SAYING_SHARE",
            "one.num_bytes > _WORTH_SAYING_SHARE",
        ),
        ("temporaries of a third are of all", "_FOREACH_SHARE = 0.5", "_FOREACH_SHARE = 0.33"),
    ),
    *_of(
        "memtrace.analysis.communication.findings",
        _THRESHOLDS,
        ("exposed reductions are told from a 40th", "exposed_ns * _MIN_SHARE < step_ns:", "exposed_ns * 40 < step_ns:"),
        (
            "needless reductions at the threshold are a remark",
            "saves_ns * _MIN_SHARE < step_ns",
            "saves_ns * _MIN_SHARE <= step_ns",
        ),
    ),
    *_of(
        "memtrace.analysis.time.findings",
        _THRESHOLDS,
        ("time is told beyond a fiftieth", "* _MIN_SHARE >= self.window_ns", "* _MIN_SHARE > self.window_ns"),
    ),
    *_of(
        "memtrace.analysis.diagnosis.fragmentation_findings",
        _THRESHOLDS,
        ("fragmentation at the threshold is not told", "wasted_bytes < least", "wasted_bytes <= least"),
    ),
    *_of(
        "memtrace.analysis.ranks.outliers",
        _THRESHOLDS,
        ("a rank at the threshold stands out", "away[rank] > least", "away[rank] >= least"),
        ("four times the usual stands out", "_TIMES_TYPICAL = 5", "_TIMES_TYPICAL = 4"),
    ),
)
"""Thresholds that lie elsewhere."""

FOLLOWED = (
    *_of(
        "memtrace.hooks.loop.training_loop",
        _LOOP,
        ("set_to_none is inverted", "if not set_to_none:", "if set_to_none:"),
        ("forwards under no_grad count", "with_gradients = self._torch.is_grad_enabled()", "with_gradients = True"),
        ("keyword inputs are lost", "(args, keyword_arguments(module))", "(args,)"),
    ),
    *_of(
        "memtrace.hooks.loop.window",
        _LOOP,
        ("the last triggered step is dropped", "step <= self._triggered_until", "step < self._triggered_until"),
    ),
    *_of(
        "memtrace.hooks.ownership.sweep",
        _LOOP,
        (
            "a shared parameter has the name of the last",
            "of_roots.setdefault(id(parameter), name)",
            "of_roots[id(parameter)] = name",
        ),
    ),
)
"""A training loop that is followed wrongly."""

FAULTS = (*SHOWN, *FORECAST, *JUDGED, *FOLLOWED)
