"""The tables of a trace: every column with its type and unit. `docs/trace-format.md` is generated from this file.

A trace file is one JSON document:

    {"format": "memtrace-trace", "version": 1, "header": {…}, "strings": ["…"],
     "ranks": [{"header": {…}, "tables": {"events": {"time_ns": [0], "action": [3]}}}]}

A column is a JSON list; all columns of a table have the same length. A column of kind `string` holds indices into
`strings`; `null` is "not recorded" where a column is nullable. Times are Unix nanoseconds, sizes bytes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its kind ("int", "string" or "bool"), unit, meaning, and whether it may hold null."""

    name: str
    """Its key in a trace file."""
    kind: str
    """int, string or bool."""
    unit: str
    """bytes, ns, or what an index points into; empty for texts and flags."""
    meaning: str
    """One line for docs/trace-format.md."""
    nullable: bool = False
    """Whether it may hold null, for what was not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table: its name, what a row is, and its columns."""

    name: str
    """Its key in a trace file."""
    row: str
    """What one row is."""
    columns: tuple[Column, ...]
    """In the order in which a trace file holds them."""

    def column_names(self) -> tuple[str, ...]:
        """Return the names of the columns in order."""
        return tuple(column.name for column in self.columns)


def _int(name: str, unit: str, meaning: str, *, nullable: bool = False) -> Column:
    return Column(name=name, kind="int", unit=unit, meaning=meaning, nullable=nullable)


def _text(name: str, meaning: str, *, nullable: bool = False) -> Column:
    return Column(name=name, kind="string", unit="", meaning=meaning, nullable=nullable)


def _bool(name: str, meaning: str) -> Column:
    return Column(name=name, kind="bool", unit="", meaning=meaning)


FRAMES = Table(
    name="frames",
    row="one place in a program",
    columns=(
        _text("file", "source file; empty for a built-in function or a C++ frame without one"),
        _int("line", "line", "line being executed; 0 if not known"),
        _text("function", "function name"),
    ),
)

STACKS = Table(
    name="stacks",
    row="one stack: its innermost frame and the stack that called it",
    columns=(
        _int("frame", "row of frames", "innermost frame"),
        _int(
            "parent", "row of stacks", "the calling stack, an earlier row; null at the outermost frame", nullable=True
        ),
    ),
)

EVENTS = Table(
    name="events",
    row="one recorded action of an allocator; the order of rows is the order of events (times may tie)",
    columns=(
        _int("time_ns", "ns", "Unix time", nullable=True),
        _text("action", "name of the action, see Action"),
        _text("device", 'device, as "cuda:0" or "cpu"'),
        _int("address", "address", "address of the block or segment; null for oom", nullable=True),
        _int(
            "size_bytes", "bytes", "requested bytes of an alloc or free; bytes of a segment; rounded request of an oom"
        ),
        _int("stream", "handle", "stream handle; 0 is the default stream"),
        _int("stack", "row of stacks", "where the program was", nullable=True),
        _int("total_bytes", "bytes", "the allocator's own total after the event (CPU and Kineto only)", nullable=True),
        _int("device_free_bytes", "bytes", "free memory of the device, at an oom", nullable=True),
    ),
)

INITIAL_BLOCKS = Table(
    name="initial_blocks",
    row="one block that was live before the events of a window began",
    columns=(
        _int("window", "row of windows", "the window at whose start it was live"),
        _text("device", "device"),
        _int("address", "address", "address of the block"),
        _int("size_bytes", "bytes", "requested bytes"),
        _int("stack", "row of stacks", "where it was allocated, if that is known", nullable=True),
    ),
)

WINDOWS = Table(
    name="windows",
    row="one stretch of events recorded without interruption; between windows nothing was recorded",
    columns=(
        _int("start_ns", "ns", "Unix time of its start", nullable=True),
        _int("end_ns", "ns", "Unix time of its end", nullable=True),
        _int("first_event", "row of events", "first event of the window"),
        _int("num_events", "events", "events in the window"),
        _int("initial_bytes", "bytes", "requested bytes live when it began, known blocks or not", nullable=True),
        _int(
            "num_lost",
            "events",
            "events known to be lost inside it; null if some were lost and the count is not known",
            nullable=True,
        ),
        _text("reason", "why it began: start, step, switch (of frames), resume, ring, fork, profiler, oom"),
        _bool("continues", "whether nothing was allocated or freed between the window before and this one"),
    ),
)

STEPS = Table(
    name="steps",
    row="one optimizer step, or one that a gradient scaler skipped; step 0 is everything before training began",
    columns=(
        _int("step", "step", "number of the step, from 1"),
        _int("start_ns", "ns", "Unix time at which the previous step ended"),
        _int("end_ns", "ns", "Unix time at which its last optimizer step ended; null if it did not end", nullable=True),
        _bool("skipped", "whether a gradient scaler skipped the optimizer step"),
        _bool("recorded", "whether the events of the whole step are in the trace"),
        _int(
            "num_microbatches", "microbatches", "passes in the step whose gradients are added up for one optimizer step"
        ),
        _int("device_used_bytes", "bytes", "what the device says is used, at the end", nullable=True),
        _int("reserved_bytes", "bytes", "what the allocator has reserved, at the end", nullable=True),
        _int("allocated_bytes", "bytes", "what the allocator has handed out, at the end", nullable=True),
        _int("host_rss_bytes", "bytes", "resident host memory of the process, at the end", nullable=True),
        _int(
            "high_water_bytes",
            "bytes",
            "most that the allocator had handed out in the step, recorded or not; null where nothing counted it, or "
            "where an accelerator's counter rose no higher than in a step before",
            nullable=True,
        ),
        _int(
            "peak_host_rss_bytes",
            "bytes",
            "largest resident host memory that the process ever had, where that rose in the step",
            nullable=True,
        ),
        _int("num_device_mallocs", "calls", "segments taken from the device since the recording began", nullable=True),
        _int("recording_ns", "ns", "time that memtrace itself spent inside the step", nullable=True),
    ),
)

PHASES = Table(
    name="phases",
    row="one stretch of time in a phase; phases nest (recompute in backward), and the innermost counts",
    columns=(
        _text("phase", "name of the phase, see Phase"),
        _int("step", "step", "step it belongs to"),
        _int("microbatch", "microbatch", "number of the microbatch in the step, from 0"),
        _int("start_ns", "ns", "Unix time"),
        _int("end_ns", "ns", "Unix time; null if it did not end", nullable=True),
        _text("detail", 'optimizer class; "with a graph" of an evaluation with gradients on', nullable=True),
    ),
)

SCOPES = Table(
    name="scopes",
    row="one call of a module's forward",
    columns=(
        _text("module", 'path from the root module, as "blocks.3.attn"; the class name for a root'),
        _text("class_name", "class of the module"),
        _int("start_ns", "ns", "Unix time"),
        _int("end_ns", "ns", "Unix time; null if it did not end", nullable=True),
        _int("step", "step", "step it belongs to"),
        _bool("recompute", "whether activation checkpointing ran it again in backward"),
    ),
)

OWNERS = Table(
    name="owners",
    row="one tensor whose owner was known at a moment; tensors that are views of one storage have a row each",
    columns=(
        _int("time_ns", "ns", "Unix time at which it was seen"),
        _int("step", "step", "step in which it was seen"),
        _text("device", "device"),
        _int("address", "address", "address of the storage"),
        _int("size_bytes", "bytes", "bytes of the storage"),
        _int("tensor_bytes", "bytes", "bytes of the tensor (numel × itemsize): less than the storage if it is padded"),
        _text("category", "parameter, buffer, gradient, optimizer_state, communication or input"),
        _text("name", 'path and name, as "blocks.3.attn.weight" or "exp_avg of blocks.3.attn.weight"'),
        _text("dtype", 'as "float32"', nullable=True),
        _text("shape", 'as "768x3072"', nullable=True),
        _text(
            "global_shape",
            "shape of the whole, where the tensor is this rank's part of a distributed one",
            nullable=True,
        ),
        _text(
            "placement",
            "what this rank has of a distributed tensor: for each axis of the mesh its name (where it has one), "
            'the placement, the number of the part and of all parts, as "dp Shard(0) 1 of 4, tp Replicate 0 of 2"',
            nullable=True,
        ),
    ),
)

SAVED = Table(
    name="saved",
    row="one storage that autograd kept for the backward pass, found by walking the graph",
    columns=(
        _int("time_ns", "ns", "Unix time of the walk, at the start of backward"),
        _int("step", "step", "step in which it was seen"),
        _int("microbatch", "microbatch", "number of the microbatch in the step, from 0"),
        _text("device", "device"),
        _int("address", "address", "address of the storage"),
        _int("size_bytes", "bytes", "bytes of the storage"),
        _text("op", 'class of the node that keeps it, as "AddmmBackward0"; "checkpoint" for inputs of a checkpoint'),
        _text("dtype", 'as "float32"', nullable=True),
        _text("shape", 'as "8x128x384"', nullable=True),
    ),
)

KEEPERS = Table(
    name="keepers",
    row="one storage without an owner, and what of the program keeps it at a moment",
    columns=(
        _int("time_ns", "ns", "Unix time of the search"),
        _int(
            "step",
            "step",
            "step in which it was made, at its end or between two forwards; what was found at an end is told again "
            "when the next step begins",
        ),
        _text("device", "device"),
        _int("address", "address", "address of the storage"),
        _int("size_bytes", "bytes", "bytes of the storage"),
        _text(
            "keeper",
            'the way to it in words: "list \'losses\'", "graph of \'total\'", "ctx.x of MyFunction"',
        ),
        _text("kind", "variable, container, bounded, attribute, closure, traceback, context, cache, cycle or graph"),
        _text("file", "file of the call, module or class in which the way begins", nullable=True),
        _int("line", "line", "the one line there that puts things into it", nullable=True),
        _text("function", "function of that line, or the call in which the way begins", nullable=True),
        _int("num_storages", "storages", "storages that it was seen to keep at that moment"),
        _int("num_bytes", "bytes", "their bytes; long containers were not looked at to the end"),
        _int(
            "is_written",
            "1 or 0",
            "whether the program was seen to write to the storage between two searches; null if that could not be told",
            nullable=True,
        ),
    ),
)

OPTIMIZERS = Table(
    name="optimizers",
    row="one parameter group of one optimizer",
    columns=(
        _text("class_name", "class of the optimizer"),
        _int("group", "group", "number of the parameter group"),
        _int("num_parameters", "parameters", "parameters (elements) in the group"),
        _text("options", "its options, as JSON (lr, betas, foreach, fused, momentum, amsgrad …)"),
    ),
)

BUCKETS = Table(
    name="buckets",
    row="one bucket of gradients that DistributedDataParallel reduces at once, as its reducer logs it",
    columns=(
        _int("time_ns", "ns", "Unix time at which it was read"),
        _int("step", "step", "step in which it was read"),
        _int("replica", "replica", "number of the replicated model in the process, from 0"),
        _int("bucket", "bucket", "number of the bucket, in the order of reduction, from 0"),
        _int("size_bytes", "bytes", "bytes of the gradients in it"),
        _int("num_parameters", "tensors", "parameters (tensors) in it", nullable=True),
        _bool("rebuilt", "whether buckets had been rebuilt in the order in which gradients become ready"),
    ),
)

REPLICA_FORWARDS = Table(
    name="replica_forwards",
    row="one training forward of a model that DistributedDataParallel replicates",
    columns=(
        _int("time_ns", "ns", "Unix time at which it began"),
        _int("step", "step", "step it belongs to"),
        _int("microbatch", "microbatch", "number of the microbatch in the step, from 0"),
        _int("replica", "replica", "number of the replicated model in the process, from 0"),
        _bool("synchronizes", "whether its backward reduces gradients: false under no_sync"),
    ),
)

REDUCER_TIMINGS = Table(
    name="reducer_timings",
    row="one iteration that DistributedDataParallel itself timed: of the first ten and each hundredth after, at most",
    columns=(
        _int("replica", "replica", "number of the replicated model in the process, from 0"),
        _int("iteration", "iteration", "forwards that synchronize gradients, up to this one"),
        _int("backward_start_ns", "ns", "Unix time at which its forward had ended"),
        _int("backward_ns", "ns", "time from there until all gradients were ready"),
        _int("communication_ns", "ns", "time from the first all-reduce to the end of the last"),
        _int("overlap_ns", "ns", "part of it before all gradients were ready"),
        _int(
            "unused_bytes", "bytes", "bytes of parameters that got no gradient, if that was looked for", nullable=True
        ),
    ),
)

OWN_WORK = Table(
    name="own_work",
    row="one stretch in which the training thread worked for memtrace; those of one moment may overlap",
    columns=(
        _int("start_ns", "ns", "Unix time"),
        _int("end_ns", "ns", "Unix time"),
    ),
)

ANNOTATIONS = Table(
    name="annotations",
    row="one named range that the program marked (record_function)",
    columns=(
        _text("name", "name of the range"),
        _int("start_ns", "ns", "Unix time; null if it began before the history", nullable=True),
        _int("end_ns", "ns", "Unix time; null if it did not end", nullable=True),
        _text("device", "device of the history that holds it", nullable=True),
    ),
)

SEGMENTS = Table(
    name="segments",
    row="one segment in the last snapshot of an allocator",
    columns=(
        _text("device", "device"),
        _int("address", "address", "address of the segment"),
        _int("total_bytes", "bytes", "bytes reserved"),
        _int("allocated_bytes", "bytes", "bytes of blocks handed out"),
        _int("active_bytes", "bytes", "allocated, and freed but awaiting a stream"),
        _int("requested_bytes", "bytes", "bytes asked for in active blocks", nullable=True),
        _int("stream", "handle", "stream handle"),
        _text("segment_type", "small or large"),
        _text("pool_id", 'pool, as "0,0"'),
        _bool("is_expandable", "whether the segment can grow"),
        _int("stack", "row of stacks", "where it was taken from the device", nullable=True),
    ),
)

BLOCKS = Table(
    name="blocks",
    row="one block in the last snapshot of an allocator, in the order of segments and addresses",
    columns=(
        _int("segment", "row of segments", "the segment it is a piece of"),
        _int("address", "address", "address of the block"),
        _int("size_bytes", "bytes", "bytes of the block, rounding included"),
        _int("requested_bytes", "bytes", "bytes asked for; null where the snapshot does not say", nullable=True),
        _text("state", "see BlockState"),
        _int("stack", "row of stacks", "where it was allocated", nullable=True),
    ),
)

KERNELS = Table(
    name="kernels",
    row="one activity of a profiler trace that has a duration",
    columns=(
        _int("start_ns", "ns", "Unix time, or time since the profile's own zero where the file has no base"),
        _int("duration_ns", "ns", "duration"),
        _text("name", "name of the activity"),
        _text("kind", "category as the profiler wrote it: kernel, cpu_op, gpu_memcpy, python_function …"),
        _int("process", "pid", "process field as a number; null where it is a word", nullable=True),
        _int(
            "thread",
            "tid",
            "thread field as a number (a stream for device work); null where it is a word",
            nullable=True,
        ),
        _int("device", "device", "device index, for device work", nullable=True),
        _int("stream", "stream", "stream number, for device work", nullable=True),
        _int("correlation", "id", "joins a launch and its kernel", nullable=True),
    ),
)

COLLECTIVES = Table(
    name="collectives",
    row="one communication kernel of which the profile says what it moved",
    columns=(
        _int("start_ns", "ns", "Unix time, or time since the profile's own zero where the file has no base"),
        _int("duration_ns", "ns", "duration"),
        _int("correlation", "id", "joins it with its launch", nullable=True),
        _text("name", "collective as torch names it: allreduce, _allgather_base, _reduce_scatter_base …"),
        _text("group", "process group: its description, else its name", nullable=True),
        _int("group_size", "ranks", "ranks in the group", nullable=True),
        _int("input_bytes", "bytes", "bytes that this rank puts in", nullable=True),
        _int("output_bytes", "bytes", "bytes that this rank gets out", nullable=True),
        _text("dtype", 'as "float32"', nullable=True),
    ),
)

WARNINGS = Table(
    name="warnings",
    row="one thing that was not seen or went wrong, named by its slug in docs/messages.md",
    columns=(
        _text("slug", "short name of the message"),
        _text("message", "the message"),
        _int("count", "times", "how often it happened"),
    ),
)

TABLES: tuple[Table, ...] = (
    FRAMES,
    STACKS,
    EVENTS,
    WINDOWS,
    INITIAL_BLOCKS,
    STEPS,
    PHASES,
    SCOPES,
    OWNERS,
    SAVED,
    KEEPERS,
    OPTIMIZERS,
    BUCKETS,
    REPLICA_FORWARDS,
    REDUCER_TIMINGS,
    OWN_WORK,
    ANNOTATIONS,
    SEGMENTS,
    BLOCKS,
    KERNELS,
    COLLECTIVES,
    WARNINGS,
)
"""Every table of a rank, in the order in which a trace file holds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a header: its JSON type and meaning."""

    name: str
    """Its key in a header."""
    kind: str
    """What JSON holds, as "int or null"."""
    meaning: str
    """One line for docs/trace-format.md."""


TRACE_HEADER: tuple[Field, ...] = (
    Field(name="memtrace", kind="string", meaning="version of memtrace that wrote the file"),
    Field(name="command", kind="list of strings or null", meaning="what was run; null when redacted"),
    Field(name="redacted", kind="bool", meaning="whether argv and paths were dropped"),
    Field(name="exit_status", kind="int or null", meaning="exit status of the command; negative is a signal"),
    Field(name="options", kind="object", meaning="the recording options that were in force"),
    Field(name="warnings", kind="list of objects", meaning="slug, message and count of what assembling could not see"),
)
"""Fields of `header` in a trace file."""

RANK_HEADER: tuple[Field, ...] = (
    Field(name="source", kind="string", meaning="recorded, snapshot, kineto or predicted"),
    Field(name="rank", kind="int or null", meaning="global rank; null outside a distributed run"),
    Field(name="local_rank", kind="int or null", meaning="rank on its host"),
    Field(name="world_size", kind="int or null", meaning="number of ranks"),
    Field(name="host", kind="string or null", meaning="host name; null when redacted"),
    Field(name="pid", kind="int or null", meaning="process id"),
    Field(name="start_ns", kind="int or null", meaning="Unix time at which recording began"),
    Field(name="end_ns", kind="int or null", meaning="Unix time of the last record"),
    Field(name="complete", kind="bool", meaning="whether the recording ended in order"),
    Field(name="devices", kind="list of objects", meaning="name, capacity_bytes and kind of each device"),
    Field(name="sources", kind="object", meaning='which sources were available, as {"events": "cpu_allocator"}'),
    Field(
        name="versions",
        kind="object",
        meaning="python, torch, accelerator runtime; of a prediction also transformers and the like, where imported",
    ),
    Field(
        name="environment", kind="object", meaning="the few environment values that change memory (allocator settings)"
    ),
    Field(name="allocator_settings", kind="object", meaning="settings of the caching allocator as torch reports them"),
    Field(name="autocast_dtypes", kind="list of strings", meaning="dtypes seen under autocast"),
    Field(
        name="num_alloc_retries",
        kind="int",
        meaning="of a driverless prediction: how often the allocator gave cached memory back to make room",
    ),
    Field(
        name="cudnn_benchmark",
        kind="bool",
        meaning="of a prediction: whether cuDNN was to try the algorithms of each convolution (cudnn.benchmark)",
    ),
    Field(
        name="largest_unfolded_bytes",
        kind="int",
        meaning="of a driverless prediction: the largest input of a convolution, unfolded to a matrix",
    ),
    Field(
        name="convolutions",
        kind="list of objects",
        meaning="of a prediction, a convolution each: time_ns of its first call, workspace_bytes that cuDNN may take, "
        "level_bytes, the most that was allocated with them",
    ),
    Field(name="uses_grad_scaler", kind="bool", meaning="whether a gradient scaler was used"),
    Field(name="keeps_gradients", kind="bool", meaning="whether zero_grad(set_to_none=False) was called"),
    Field(
        name="unstepped_parameters",
        kind="list of strings",
        meaning="parameters with a gradient that are in no optimizer, of models of which others are",
    ),
    Field(
        name="following_parameters",
        kind="list of strings",
        meaning="parameters of models that no optimizer steps and no backward reaches, and that the program writes to",
    ),
    Field(
        name="exception",
        kind="object or null",
        meaning="type, message and stack of the exception that ended the script",
    ),
    Field(name="peak_host_rss_bytes", kind="int or null", meaning="largest resident host memory seen"),
    Field(
        name="prediction",
        kind="object or null",
        meaning="of a predicted run: the GPU, whether it fits, ranges of bytes, doubts (docs/predict.md)",
    ),
    Field(name="original_path", kind="string or null", meaning="script or module that ran; null when redacted"),
)
"""Fields of a rank's `header`. A missing field is not recorded."""
