"""The engine "auto", the default, which chooses "hoisted" or "plain"."""

from dataclasses import dataclass
from typing import Any

import jax

from jax_lstm.cell import CompositeCell
from jax_lstm.engines.engine import Engine, Inputs, Options
from jax_lstm.engines.hoisted import Hoisted
from jax_lstm.engines.plain import Plain


@jax.tree_util.register_static
@dataclass(frozen=True)
class Auto:
    """The engine "hoisted" for a cell that it can run, else "plain". A cell made of cells is run part by part."""

    def refuses(self, cell: Any, inputs: Inputs, options: Options) -> str | None:
        """Refuse a cell made of cells, so that the driver runs its parts, and a cell that "plain" refuses too."""
        if isinstance(cell, CompositeCell):
            return f'engine "auto": {type(cell).__name__} is made of cells; run its parts'
        engine, why_not_hoisted = self.choice(cell, inputs, options)
        return None if why_not_hoisted is None else engine.refuses(cell, inputs, options)

    def run(self, cell: Any, inputs: Inputs, options: Options) -> tuple[Any, Any]:
        """Run the cell on the chosen engine."""
        return self.choice(cell, inputs, options)[0].run(cell, inputs, options)

    def choice(self, cell: Any, inputs: Inputs, options: Options) -> tuple[Engine, str | None]:
        """The engine for this run, and why "hoisted" refuses the cell; None if it does not."""
        why_not = Hoisted().refuses(cell, inputs, options)
        return (Hoisted(), None) if why_not is None else (Plain(), why_not)
