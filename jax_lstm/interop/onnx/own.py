"""The weights of a whole cell or `Model` by the names that `dump` gives them, both ways.

Names are paths in the params (docs/layers.md, "Checkpoint names"):

    params.cell.0.W    W (D, n H, I), R, B and P of the node of the cell with the params params.cell.0; weights.py has
                       the layouts. Of a Bidirectional there is one node, with D = 2 directions.
    params.state.h     a learned initial state, (1, 1, H)
    params.readout.w   every other leaf as it is
"""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jax_lstm import checks
from jax_lstm.interop.onnx.files import METADATA, array_of
from jax_lstm.interop.onnx.plan import Direction, Node, nodes_of, plan_of
from jax_lstm.interop.onnx.weights import pack, unpack
from jax_lstm.layers.model import Model
from jax_lstm.registry import from_config

if TYPE_CHECKING:
    import onnx


def plan_of_model(caller: str, cell: Any) -> Any:
    """The nodes of a cell or of the cell of a `Model`; see `plan_of`."""
    return plan_of(caller, cell.cell, "params.cell") if isinstance(cell, Model) else plan_of(caller, cell)


def arrays_of(nodes: Iterable[Node], params: Any) -> dict[str, np.ndarray]:
    """All weights by name."""
    nodes = list(nodes)
    leaves = {
        checks.leaf_name("params", path): np.array(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    arrays = {}
    for node in nodes:
        packed = [pack(one.cell, _params(one, leaves)) for one in node.directions]
        arrays |= {f"{node.name}.{name}": np.stack([p[name] for p in packed]) for name in packed[0]}
    learned = tuple(f"{name}." for node in nodes for one in node.directions for name in one.learned)
    return arrays | {name: a.reshape(1, 1, -1) if name.startswith(learned) else a for name, a in leaves.items()}


def read_own(model: "onnx.ModelProto", folder: str | None = None) -> tuple[Any, Any] | None:
    """The cell or `Model` of a file of `dump`, and its params, bit for bit.

    Args:
        model: what `onnx.load` returns.
        folder: where the files of external data are, if weights were moved there.

    Returns:
        (cell, params), or None if the file is not of `dump`, or was changed so that weights are missing or have other
        names, shapes or dtypes, as after a quantization.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA not in metadata:
        return None
    try:
        arrays = {one.name: array_of("interop.onnx.load", one, folder) for one in model.graph.initializer}
        cell = from_config(json.loads(metadata[METADATA]))
        nodes = list(nodes_of(plan_of_model("interop.onnx.load", cell)))
        dtype = arrays[f"{nodes[0].name}.W"].dtype
        arrays |= {name: np.array(json.loads(a), dtype) for name, a in metadata.items() if name.startswith("params.")}
        params = _params_from(cell, nodes, arrays)
        return cell, checks.check_params("interop.onnx.load", cell, params)[0]
    except (LookupError, ValueError, TypeError, NotImplementedError, OverflowError, RecursionError):
        return None


def _params_from(cell: Any, nodes: list[Node], arrays: Mapping[str, np.ndarray]) -> Any:
    """The params from all weights by name; the inverse of `arrays_of`."""
    leaves = {}
    for node in nodes:
        for k, one in enumerate(node.directions):
            names = "WRBP" if getattr(one.cell, "peephole", False) else "WRB"
            params = unpack(one.cell, {name: arrays[f"{node.name}.{name}"][k] for name in names})
            leaves |= {f"{one.params}.{field}": leaf for field, leaf in params._asdict().items()}
    paths, tree = jax.tree_util.tree_flatten_with_path(checks.params_shapes(cell))
    named = [(checks.leaf_name("params", path), leaf.shape) for path, leaf in paths]
    return tree.unflatten([leaves[n] if n in leaves else arrays[n].reshape(shape) for n, shape in named])


def _params(one: Direction, leaves: dict[str, np.ndarray]) -> Any:
    """The params of one direction, taken out of the leaves by name."""
    shapes = checks.params_shapes(one.cell)
    return type(shapes)(*(leaves.pop(f"{one.params}.{field}", None) for field in shapes._fields))
