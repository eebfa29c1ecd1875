"""Base class of the layers that wrap one cell: sizes, causality and output are those of the cell."""

from dataclasses import dataclass
from typing import Any

from jax_lstm import checks
from jax_lstm.abilities import is_causal, output, output_size, takes_constants
from jax_lstm.cell import OptionalMethods


@dataclass(frozen=True)
class CellWrapper(OptionalMethods):
    """Base class of a layer that wraps one cell; the field `cell` is any cell or layer."""

    cell: Any

    def __post_init__(self):
        checks.check_cell(type(self).__name__, self.cell)

    @property
    def input_size(self) -> int:
        """I, the number of input features of the cell."""
        return self.cell.input_size

    @property
    def hidden_size(self) -> int:
        """H, the number of units of the cell."""
        return self.cell.hidden_size

    @property
    def output_size(self) -> int:
        """The number of output features of the cell."""
        return output_size(self.cell)

    @property
    def causal(self) -> bool:
        """Whether the cell is causal: no output depends on later inputs."""
        return is_causal(self.cell)

    @property
    def takes_constants(self) -> bool:
        """Whether the cell reads constants."""
        return takes_constants(self.cell)

    def output(self, state: Any) -> Any:
        """The output (output_size,) of the cell in this state."""
        return output(self.cell, state)
