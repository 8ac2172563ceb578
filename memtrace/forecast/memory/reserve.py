"""What the caching allocator reserves for a training step: the step's requests, layer by layer, through its model.

In: `ModelSpec`, `Run`, `Layout` of one pipeline stage, in whole numbers. Out: `Reserve`. The sequence is that of a
plain training loop: weights, then for three steps the tensors that each layer keeps, the gradients of each layer as
what it kept is given back, the optimizer. Its sizes are those of the estimate. That a term is one tensor is a
simplification; on small models the result may be off by a segment.
"""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.allocator.blocks import Device
from memtrace.allocator.model import Allocator
from memtrace.allocator.settings import Settings
from memtrace.forecast.memory.activations import ActivationTerms, Terms, activation_terms
from memtrace.forecast.memory.kept_by_kernels import loss_bytes
from memtrace.forecast.memory.kept_by_two_stacks import encoder_output, encoder_run
from memtrace.forecast.memory.layout import Layout, Run, ceil_div
from memtrace.forecast.model.adapters import frozen_bytes, trained_precision, trained_tensors
from memtrace.forecast.model.parameter_tensors import Division, ParameterTensor, Place, parameter_tensors
from memtrace.forecast.model.spec import ModelSpec

NUM_STEPS = 3
"""The states come in the first; from the second on a step finds the segments of the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """What the model of the allocator says of the sequence."""

    peak_allocated_bytes: int
    peak_reserved_bytes: int

    @property
    def overhead_bytes(self) -> int:
        """Bytes that are reserved beyond what was ever in use at once: rounding and fragmentation."""
        return self.peak_reserved_bytes - self.peak_allocated_bytes


def simulated_reserve(spec: ModelSpec, run: Run, layout: Layout) -> Reserve:
    """Return what the allocator reserves on a GPU without a limit.

    >>> from memtrace.forecast.model.presets import preset
    >>> found = simulated_reserve(preset("gpt2"), Run(micro_batch=4), Layout())
    >>> 0 <= found.overhead_bytes < found.peak_allocated_bytes // 5
    True
    """
    program = _Program(spec, run, layout)
    program.start()
    for _ in range(NUM_STEPS):
        program.step()
    return Reserve(peak_allocated_bytes=program.peak, peak_reserved_bytes=program.allocator.reserved_bytes)


class _Program:
    """A training loop on the model of the allocator."""

    def __init__(self, spec: ModelSpec, run: Run, layout: Layout) -> None:
        self.spec, self.run, self.layout = spec, run, layout
        self.allocator = Allocator(Settings(), Device())
        self.terms: ActivationTerms = activation_terms(spec, run, layout)
        self.of_encoder: ActivationTerms | None = None
        if spec.encoder is not None:
            self.of_encoder = activation_terms(spec.encoder, encoder_run(run), layout)
        self.tensors = trained_tensors(spec, run.adapter)
        self.precision = trained_precision(run.precision, run.adapter)
        self.peak = 0
        self.gradients: list[int] = []
        self.has_states = False
        self.whole: tuple[list[int], list[int]] = ([], [])
        """Gathered weights of the layer before and of this one."""
        tokens = run.micro_batch * ceil_div(run.sequence, layout.cp)
        longest = max(tokens, run.micro_batch * run.source if spec.encoder is not None else 0)
        self.hidden = longest * spec.hidden * run.precision.residual_bytes
        width = max(spec.ffn, spec.expert_ffn * spec.experts_per_token)
        self.inner = ceil_div(longest * width, layout.tp) * run.precision.compute_bytes
        logits = tokens * ceil_div(spec.vocabulary, layout.tp)
        self.vocabulary = loss_bytes(spec, run) * logits if spec.has_head else 0

    def take(self, *sizes: int) -> list[int]:
        """Ask for tensors and return their addresses; nothing is asked for a tensor without bytes."""
        blocks = [self.allocator.malloc(int(size)) for size in sizes if size > 0]
        self.peak = max(self.peak, self.allocator.allocated_bytes)
        return [block.address for block in blocks if block is not None]

    def give(self, addresses: list[int]) -> None:
        """Give tensors back."""
        for address in addresses:
            self.allocator.free(address)

    def start(self) -> None:
        """Make the weights."""
        precision, adapter = self.precision, self.run.adapter
        if adapter is not None:
            for one in parameter_tensors(self.spec):
                for _ in range(self.copies(one)):
                    self.take(frozen_bytes(one, adapter, self.run.precision))
        for one in self.tensors:
            for _ in range(self.copies(one)):
                self.take(self.size(one, 3) * precision.weight_bytes, self.size(one, 3) * precision.weight_copy_bytes)

    def step(self) -> None:
        """Run one step: a micro-batch forward and backward, then the optimizer. More of them take no more memory."""
        root = self.gather(Place.EMBEDDING) + self.gather(Place.HEAD)
        encoder = self.encode()
        embedding = self.take(*self.terms.embedding.values())
        layers = []
        for at in range(self.num_layers):
            self.prefetch(at)
            layers.append(self.forward(self.layer_terms(at)))
        head = self.take(*(size for name, size in self.terms.head.items() if name != "head: logits"))
        logits = self.take(self.terms.head.get("head: logits", 0))
        for_loss = self.take(self.vocabulary, self.vocabulary)
        self.give(for_loss[:1])
        self.make_gradients(Place.HEAD)
        self.give(head + for_loss[1:])
        for at in reversed(range(self.num_layers)):
            self.prefetch(at)
            self.backward(layers[at], self.layer_terms(at), self.place(at))
        self.encode_backward(encoder)
        self.make_gradients(Place.EMBEDDING)
        self.give(embedding + root + self.whole[0] + self.whole[1])
        self.whole = ([], [])
        self.optimize()
        self.give(logits + self.gradients)
        self.gradients = []

    @property
    def num_layers(self) -> int:
        """Layers of a pipeline stage."""
        return int(ceil_div(self.spec.num_layers, self.layout.pp))

    def layer_terms(self, at: int) -> Terms:
        """Return what a layer keeps, dense layers first."""
        return self.terms.dense_layer if self.place(at) is Place.DENSE_LAYER else self.terms.moe_layer

    def forward(self, terms: Terms) -> list[int]:
        """Run a layer and return what it keeps."""
        passing = self.take(self.inner)
        if self.run.recompute == 2:
            kept = self.take(self.terms.layer_input)
        else:
            drops = self.run.recompute == 1
            kept = self.take(*(size for name, size in terms.items() if not (drops and "weights" in name)))
        self.give(passing)
        return kept

    def encode(self) -> list[list[int]]:
        """Run the encoder where there is one, and return what each layer keeps, and last the rest."""
        if self.spec.encoder is None or self.of_encoder is None:
            return []
        layers = [self.forward(self.of_encoder.dense_layer) for _ in range(self.spec.encoder.num_layers)]
        rest = [*self.of_encoder.embedding.values(), *self.of_encoder.head.values()]
        return [*layers, self.take(*rest, encoder_output(self.spec, self.run))]

    def encode_backward(self, kept: list[list[int]]) -> None:
        """Run the encoder backward."""
        if self.of_encoder is not None:
            *layers, rest = kept
            for layer in reversed(layers):
                self.backward(layer, self.of_encoder.dense_layer, Place.ENCODER_LAYER)
            self.give(rest)

    def backward(self, kept: list[int], terms: Terms, place: Place) -> None:
        """Run a layer backward, with what it has to compute again."""
        again: list[int] = []
        if self.run.recompute == 2:
            again = self.take(*terms.values())
        elif self.run.recompute == 1:
            again = self.take(*(size for name, size in terms.items() if "weights" in name))
        passing = self.take(self.hidden, self.inner, self.inner if self.spec.gated else 0)
        self.make_gradients(place)
        self.give(again + passing + kept)

    def place(self, at: int) -> Place:
        """Return of which kind a layer is, dense ones first."""
        return Place.DENSE_LAYER if at < self.spec.num_layers - self.spec.num_moe_layers else Place.MOE_LAYER

    def gather(self, place: Place) -> list[int]:
        """Gather the weights of a layer, of the embedding or of the head in one buffer, where ZeRO-3 divides them."""
        if self.layout.zero < 3 or self.layout.shards == 1:
            return []
        elements = sum(self.size(one, 4) for one in self.tensors if one.place is place)
        return self.take(elements * self.run.precision.compute_bytes)

    def prefetch(self, at: int) -> None:
        """Gather a layer's weights beside those of the layer before it, and give back those of the one before that."""
        oldest, last = self.whole
        self.give(oldest)
        self.whole = (last, self.gather(self.place(at)))

    def make_gradients(self, place: Place) -> None:
        """Make the gradients of one layer, of the embedding or of the head."""
        for one in self.tensors:
            if one.place is place:
                self.gradients += self.take(self.size(one, 2) * self.precision.gradient_bytes)

    def optimize(self) -> None:
        """Make the states in the first step, and in each the temporaries of the update."""
        precision, temporaries = self.precision, []
        for one in self.tensors:
            for _ in range(self.copies(one)):
                if not self.has_states:
                    share = ceil_div(one.numel, max(1, self.size(one, 1)))
                    states = ceil_div(self.run.optimizer.tensor_bytes(one, precision), share)
                    self.take(ceil_div(states, 2), states // 2, self.size(one, 1) * precision.master_bytes)
                if self.run.optimizer.temporary_tensors and not self.run.is_fused:
                    temporaries += self.take(self.size(one, 1) * precision.state_bytes)
        self.has_states = True
        self.give(temporaries)

    def copies(self, tensor: ParameterTensor) -> int:
        """Return how many copies of a tensor the stage holds."""
        return int(ceil_div(tensor.copies, self.layout.pp))

    def size(self, tensor: ParameterTensor, from_stage: int) -> int:
        """Return the elements of a tensor on this rank, where ZeRO divides it from a stage on."""
        divisor = 1 if tensor.division is Division.WHOLE else self.layout.tp
        is_expert = tensor.division is Division.EXPERTS
        if is_expert:
            divisor *= self.layout.ep
        if self.layout.zero >= from_stage:
            divisor *= self.layout.shards // self.layout.ep if is_expert else self.layout.shards
        return int(ceil_div(tensor.numel, divisor))
