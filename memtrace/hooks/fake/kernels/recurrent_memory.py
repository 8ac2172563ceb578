"""What cuDNN keeps and takes for recurrent layers: a rule that stands on two logs that others published.

They print what the library asked for, in 2017: pytorch/pytorch#2895 (four layers of 320, 25,000 places in float32:
reserve of an LSTM 736,000,000 bytes and of a GRU 864,000,000; workspace 17,730,560 and 13,169,920) and
SeanNaren/deepspeech.pytorch#172 (a GRU of 800 both ways, 326 x 64 places: 801,177,600 and 313,344,000). So each place
and unit keeps 5 numbers in an LSTM and 6 in a GRU, and one more for each layer but the last: its output. The workspace
holds the weights once more and a few rows for each sample; both ways it grows with the places, as the rule has it to
5 %. The driverless engine's stand-in (`libcudnn.c`) has the same rule. Nobody has published what cuDNN 9 takes, what a
plain recurrent layer keeps (2 are assumed), or what dropout between layers adds (nothing is).
"""

from __future__ import annotations

from dataclasses import dataclass

RELU, TANH, LSTM, GRU = range(4)
"""Cells, by torch's numbers."""
_GATES = {LSTM: 4, GRU: 3}
_KEPT = {LSTM: 5, GRU: 6}
_KEPT_PLAIN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Recurrent layers on each other; sizes are in elements."""

    cell: int
    width: int
    """Of the input."""
    hidden: int
    projected: int = 0
    """Width that an LSTM's output is projected to; 0 if it is not."""
    number: int = 1
    directions: int = 1

    @property
    def gates(self) -> int:
        """Matrices of a cell on its input, and as many on its state."""
        return _GATES.get(self.cell, 1)

    @property
    def output(self) -> int:
        """Width of what a layer hands on, in one direction."""
        return self.projected or self.hidden

    @property
    def num_matrix_elements(self) -> int:
        """Elements of all matrices."""
        widths = (self.width, *([self.output * self.directions] * (self.number - 1)))
        of_one = (self.gates * self.hidden * (width + self.output) + self.projected * self.hidden for width in widths)
        return self.directions * sum(of_one)

    @property
    def num_weights(self) -> int:
        """Elements of all weights: the library has two biases for each matrix of a cell, used or not."""
        return self.num_matrix_elements + self.number * self.directions * 2 * self.gates * self.hidden

    def reserve(self, steps: int, samples: int) -> int:
        """Return the elements that are kept for the backward pass.

        >>> four = {"width": 123, "hidden": 320, "number": 4}
        >>> 4 * Layers(cell=LSTM, **four).reserve(250, 100), 4 * Layers(cell=GRU, **four).reserve(250, 100)
        (736000000, 864000000)
        >>> 4 * Layers(cell=GRU, width=672, hidden=800, directions=2).reserve(326, 64)
        801177600
        """
        kept = _KEPT.get(self.cell, _KEPT_PLAIN) * self.hidden * self.number + self.output * (self.number - 1)
        return steps * samples * self.directions * kept

    def workspace(self, steps: int, samples: int) -> int:
        """Return the elements that a pass takes while it runs.

        >>> four = {"width": 123, "hidden": 320, "number": 4}
        >>> 4 * Layers(cell=LSTM, **four).workspace(250, 100), 4 * Layers(cell=GRU, **four).workspace(250, 100)
        (17730560, 13169920)
        >>> 0.95 < 4 * Layers(cell=GRU, width=672, hidden=800, directions=2).workspace(326, 64) / 313344000 < 1
        True
        """
        rows = (3 * self.gates - 1) * self.number * self.directions + 4 * (self.directions - 1) * steps
        return self.num_matrix_elements + rows * samples * self.hidden
