"""What a compiled program is made of: loops, products and collectives, read off its jaxpr and its HLO text."""

import contextlib
import re
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def compilations():
    """A list that fills with everything JAX traces, lowers or compiles meanwhile."""
    seen = []

    def listen(event, duration, **_):
        if event.startswith("/jax/core/compile/"):
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def equations(jaxpr) -> Iterator:
    """Every equation, those of inner jaxprs included."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")
        ):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from equations(inner)


def scans(jaxpr) -> list:
    """The scan equations."""
    return [eqn for eqn in equations(jaxpr) if eqn.primitive.name == "scan"]


def products(jaxpr) -> int:
    """How many dot_general equations, those of inner jaxprs included."""
    return sum(eqn.primitive.name == "dot_general" for eqn in equations(jaxpr))


def carried_shapes(scan) -> list[tuple[int, ...]]:
    """The shapes that a scan carries from step to step: what leaves the loop with no time axis more than its body."""
    body = getattr(scan.params["jaxpr"], "jaxpr", scan.params["jaxpr"])
    pairs = zip(body.outvars, scan.outvars, strict=True)
    return [out.aval.shape for inner, out in pairs if inner.aval.shape == out.aval.shape]


def shapes(jaxpr) -> set[tuple[int, ...]]:
    """The shape of every value computed."""
    return {v.aval.shape for eqn in equations(jaxpr) for v in eqn.outvars if hasattr(v.aval, "shape")}


class HLO:
    """Optimised HLO text as named computations."""

    def __init__(self, text: str):
        self.computations: dict[str, list[str]] = {}
        name = ""
        for line in text.splitlines():
            if opened := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
                name = opened.group(1)
                self.computations[name] = []
            elif name:
                self.computations[name].append(line)

    def loop_bodies(self) -> list[str]:
        """The names of the bodies of the while loops."""
        lines = [line for lines in self.computations.values() for line in lines]
        return [m.group(1) for line in lines if (m := re.search(r" while\(.*body=%?([\w.\-]+)", line))]

    def within(self, name: str) -> list[str]:
        """The instructions of a computation and of all that it calls."""
        lines, todo, seen = [], [name], set()
        while todo:
            here = todo.pop()
            if here in seen:
                continue
            seen.add(here)
            lines += self.computations.get(here, [])
            for line in self.computations.get(here, []):
                todo += re.findall(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)", line)
        return lines

    def count(self, name: str, kind: str) -> int:
        """How many instructions of a kind ("dot", "all-reduce") stand in a computation and in what it calls."""
        return sum(bool(re.search(rf" {kind}(-start)?\(", line)) for line in self.within(name))

    def kernels(self) -> set[str]:
        """The fused computations that differ in more than names: what the compiler has to make machine code of."""
        called = {
            name for lines in self.computations.values() for name in re.findall(r"calls=%?([\w.\-]+)", "\n".join(lines))
        }
        bodies = ["\n".join(self.computations[name]) for name in sorted(called)]
        return {_renamed(re.sub(r", (metadata|backend_config)=\{.*", "", body)) for body in bodies}


def _renamed(body: str) -> str:
    """The same with its values numbered as they come."""
    names: dict[str, str] = {}
    return re.sub(r"%[\w.\-]+", lambda m: names.setdefault(m.group(), f"%{len(names)}"), body)
