"""The activation functions of ONNX's recurrent nodes, and the names that they have here."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Activation:
    """An activation of ONNX: its name, and its alpha and beta if it has them."""

    name: str
    alpha: float | None = None
    beta: float | None = None


# By the name here. Alpha and beta are those of the functions of jax.nn.
ACTIVATIONS = {
    "sigmoid": Activation("Sigmoid"),
    "tanh": Activation("Tanh"),
    "relu": Activation("Relu"),
    "linear": Activation("Affine", 1.0, 0.0),
    "hard_sigmoid": Activation("HardSigmoid", 1 / 6, 0.5),
    "leaky_relu": Activation("LeakyRelu", 0.01),
    "elu": Activation("Elu", 1.0),
    "soft_sign": Activation("Softsign"),
    "softplus": Activation("Softplus"),
}
# What alpha and beta are in ONNX if a node does not say; None: the activation has none. For the alpha of Affine,
# onnxruntime takes 0 and the specification 1: with nan it equals none here, and is refused.
DEFAULTS = {
    "Affine": (math.nan, 0.0),
    "LeakyRelu": (0.01, None),
    "ThresholdedRelu": (1.0, None),
    "ScaledTanh": (1.0, 1.0),
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0, None),
}


def name_here(caller: str, node: str, activation: Activation) -> str:
    """The name of the same function here. ONNX compares names without case."""
    given = (activation.alpha, activation.beta)
    for name, one in ACTIVATIONS.items():
        if one.name.lower() == activation.name.lower():
            usual = DEFAULTS.get(one.name, (None, None))
            values: list[Any] = [u if a is None else a for a, u in zip(given, usual, strict=True)]
            wanted = one.alpha, one.beta
            if all(
                w is None or math.isclose(v, w, rel_tol=1e-6, abs_tol=1e-7) for v, w in zip(values, wanted, strict=True)
            ):
                return name
            raise NotImplementedError(
                f"{caller}: node {node!r} has the activation {one.name} with alpha {values[0]} and beta {values[1]}; "
                f"here {name} has alpha {wanted[0]} and beta {wanted[1]}"
            )
    known = ", ".join(one.name for one in ACTIVATIONS.values())
    raise NotImplementedError(f"{caller}: node {node!r} has the activation {activation.name}; here are {known}")


def names_here(
    caller: str, node: str, names: Iterable[str], alphas: Iterable[float], betas: Iterable[float]
) -> list[str]:
    """The names here of a node's activations. Each takes the next alpha and beta, if it has any."""
    usual = {name.lower(): values for name, values in DEFAULTS.items()}
    alphas, betas = iter(alphas), iter(betas)
    found = []
    for name in names:
        alpha, beta = usual.get(name.lower(), (None, None))
        alpha = None if alpha is None else next(alphas, None)
        beta = None if beta is None else next(betas, None)
        found.append(name_here(caller, node, Activation(name, alpha, beta)))
    return found
