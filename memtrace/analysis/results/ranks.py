"""What comparing the ranks of a run returns: frozen dataclasses. Bytes are ints, missing is `None`.

`RankFacts` is what one rank contributes, from its trace alone; `RanksResult` is what all of them together tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankFacts:
    """What one rank holds of each parameter on one device: columns, a row a parameter, by name.

    Gradients and states are those at the end of `step`; 0 where the parameter had none then.
    """

    names: tuple[str, ...]
    """Names of parameters, ascending."""
    dtypes: tuple[str | None, ...]
    """As "bfloat16"; `None` where not recorded."""
    shapes: tuple[str | None, ...]
    """Shape of what is here, as "26x8"."""
    global_shapes: tuple[str | None, ...]
    """Shape of the whole, of a distributed tensor."""
    placements: tuple[str | None, ...]
    """How a mesh of ranks divides it, of a distributed tensor: the text of the trace."""
    parameter_bytes: IntArray
    """Bytes of the tensor here."""
    gradient_bytes: IntArray
    """Bytes of its gradient; 0 for none."""
    row_state_bytes: IntArray
    """Bytes of optimizer states that have a row for each row of the parameter."""
    other_state_bytes: IntArray
    """Bytes of all its other states: step counts, factored moments."""
    step: int | None
    """The last step at whose end owners were looked through; `None` where no step ended."""
    uses_ddp: bool
    """Whether DistributedDataParallel made a reducer."""
    gathers_forward: bool
    """Whether FSDP2 gathered parameters outside a backward pass."""
    gathers_backward: bool
    """Whether FSDP2 gathered parameters again in a backward pass."""
    optimizers: tuple[str, ...]
    """Classes of the optimizers, by name."""
    parallel_classes: tuple[str, ...]
    """Classes of modules whose name tells of tensor parallelism, by name."""
    sequence_parts: int | None
    """How many times more tokens the linear layers see than the norms: parts of the sequence; `None` if not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRow:
    """One rank: the device of it that its training uses."""

    rank: int
    """Its number."""
    position: int
    """Position of its report in `Report.ranks`."""
    device: str
    """As "cuda:0"."""
    host: str | None
    """Name of its machine; `None` where not recorded."""
    peak_bytes: int | None
    """Bytes at the peak: allocated, requested where that is not known."""
    by_category: Mapping[str, int]
    """Requested bytes at the peak."""
    steady_peak_bytes: int | None
    """The same from step 2 on, where that was recorded."""
    reserved_bytes: int | None
    """The most that the allocator took from the device."""
    capacity_bytes: int | None
    """Memory of the device; `None` where not recorded."""
    last_step: int | None
    """The last step that ended; `None` where no step was recorded."""
    failure: str | None
    """Why it did not end in order: oom, exception or incomplete; `None` if it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One amount over all ranks that have it."""

    name: str
    """peak, or a category at the peak."""
    min_bytes: int
    """The least."""
    min_rank: int
    """The rank that has it."""
    median_bytes: int
    """The lower of the two in the middle, so that it is the amount of a rank."""
    max_bytes: int
    """The most."""
    max_rank: int
    """The rank that has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A part in which a rank differs from the one in the middle."""

    name: str
    """Category, module or group of parameters."""
    num_bytes: int
    """Bytes of the rank."""
    median_bytes: int
    """Bytes of the rank in the middle, 0 where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """A rank whose peak is not that of the one in the middle, and what differs."""

    rank: int
    """Its number."""
    median_rank: int
    """The rank in the middle, which it is compared with."""
    peak_bytes: int
    """Its peak."""
    median_bytes: int
    """The peak of the rank in the middle."""
    excess_bytes: int
    """Bytes above the one in the middle; negative if below."""
    excess_pct: float
    """The same as a share of the one in the middle."""
    by_category: tuple[Difference, ...]
    """Categories that differ, the largest difference first."""
    by_module: tuple[Difference, ...]
    """Modules in which what was allocated differs at the peak, the largest difference first."""
    by_parameters: tuple[Difference, ...]
    """Layers and other groups of parameters that differ, with gradients and states, the largest difference first."""
    facts: tuple[str, ...]
    """Facts about the process that differ, a sentence each: host, versions, device, settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """One way in which the ranks share the work, and what tells."""

    kind: str
    """ddp, replicated (copies, nothing tells why), fsdp, zero, tp, sp or pp."""
    name: str
    """What it is called, as "FSDP2, ZeRO-3"."""
    stage: int | None
    """ZeRO stage; `None` where it is none."""
    factor: int | None
    """Ranks that it divides over (of ddp and replicated: copies); `None` where that is not known."""
    how: str
    """What tells, as a sentence."""
    inferred: bool
    """Whether it was concluded from shapes and names, rather than told by torch's own objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSaving:
    """What one rank would hold less at the end of a step, were that shared out of which other ranks have a copy.

    Each tensor is cut along its first dimension, as FSDP2 does: parameters and gradients padded to the same size on
    every rank, states for the rows that the rank would have.
    """

    rank: int
    """Its number."""
    parameter_bytes: int
    """Bytes less of parameters."""
    gradient_bytes: int
    """Bytes less of gradients."""
    state_bytes: int
    """Bytes less of optimizer states."""

    @property
    def zero_1_bytes(self) -> int:
        """Saved by ZeRO-1, which shares out optimizer states."""
        return self.state_bytes

    @property
    def zero_2_bytes(self) -> int:
        """Saved by ZeRO-2, which shares out gradients as well."""
        return self.state_bytes + self.gradient_bytes

    @property
    def zero_3_bytes(self) -> int:
        """Saved by ZeRO-3, which shares out parameters as well."""
        return self.state_bytes + self.gradient_bytes + self.parameter_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RanksResult:
    """The ranks of one run beside each other."""

    world_size: int | None
    """Ranks of the run, as the traces say; `None` where none does."""
    ranks: tuple[RankRow, ...]
    """Ranks with a trace, by number."""
    num_missing: int
    """Ranks of the run without a trace."""
    missing: tuple[int, ...]
    """Their numbers, by number; of very many the first."""
    failed: tuple[int, ...]
    """Ranks that did not end in order, those that stopped first in front."""
    behind: tuple[int, ...]
    """Ranks that ended in order, but at an earlier step than others."""
    spreads: tuple[Spread, ...]
    """The peak, then categories by their largest amount; empty with fewer than two ranks of known peak."""
    highest: Outlier | None
    """The rank with the highest peak, whether it stands out or not; `None` where all are equal or unknown."""
    outliers: tuple[Outlier, ...]
    """Ranks that stand out, the largest difference first; of very many the first."""
    schemes: tuple[Scheme, ...]
    """How the ranks share the work; empty where nothing tells."""
    copies: int | None
    """On how many ranks the most-copied state is; `None` where that is not known."""
    savings: tuple[RankSaving, ...]
    """By rank; empty where nothing is on several ranks, or where that is not known."""
    savings_inferred: bool
    """Whether that the ranks hold copies is concluded from names and shapes alone."""
