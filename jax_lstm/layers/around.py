"""What the layers share that stand around one cell: its sizes, and what else it says of itself."""

from dataclasses import dataclass
from typing import Any

from jax_lstm.cells import base, door


@dataclass(frozen=True)
class Around:
    """A layer around `cell`."""

    cell: Any

    def __post_init__(self):
        door.cell(type(self).__name__, self.cell)

    @property
    def input_size(self) -> int:
        """I."""
        return self.cell.input_size

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.cell.hidden_size

    @property
    def output_size(self) -> int:
        """How many features the cell gives."""
        return base.output_size(self.cell)

    @property
    def causal(self) -> bool:
        """Whether the cell is."""
        return base.is_causal(self.cell)

    def output(self, state: Any) -> Any:
        """What the cell shows of a state."""
        return base.output(self.cell, state)
