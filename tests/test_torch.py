"""PyTorch as an oracle: outputs, final states and every gradient of its LSTM and GRU, in float64.

PyTorch writes its weights (gates, in), and gives each step two biases that it trains apart: the LSTM's enter as a sum,
so either has the gradient of our b. The GRU's differ in the gate n alone, where b_hh stands inside the product with r
and is our b_hn.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl

torch = pytest.importorskip("torch")

TOLERANCE = 1e-10
# (input size, hidden size, steps, batch): few, because each is compiled; I > H, I < H, one feature, one unit.
SIZES = [(3, 4, 6, 2), (7, 2, 9, 3), (1, 6, 3, 1), (2, 1, 4, 2)]
LAYERS = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU}


class Case(NamedTuple):
    """One layer of torch's, and what to run it on; NumPy arrays, batch-major."""

    cell: jl.LSTM | jl.GRU
    layer: torch.nn.Module
    xs: np.ndarray
    s_0: tuple[np.ndarray, ...]  # h, then c
    d_hs: np.ndarray  # the cotangents, so that every output counts
    d_s_T: tuple[np.ndarray, ...]


def a_case(kind, size, seed, **options):
    features, H, T, B = size
    rng = np.random.default_rng(seed)
    layer = LAYERS[kind](features, H, batch_first=True, dtype=torch.float64, **options)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.from_numpy(rng.normal(size=tuple(p.shape))))
    leaves = 2 if kind == "LSTM" else 1
    directions = 2 if options.get("bidirectional") else 1
    return Case(
        cell=getattr(jl, kind)(features, H),
        layer=layer,
        xs=rng.normal(size=(B, T, features)),
        s_0=tuple(rng.normal(size=(B, H)) for _ in range(leaves)),
        d_hs=rng.normal(size=(B, T, directions * H)),
        d_s_T=tuple(rng.normal(size=(B, H)) for _ in range(leaves)),
    )


def weights_of(layer, suffix="", k=0):
    """Torch's parameters of layer k in one direction: w_ih, w_hh, b_ih, b_hh, and w_hr with a projection."""
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"] + ["weight_hr"] * bool(getattr(layer, "proj_size", 0))
    return [getattr(layer, f"{name}_l{k}{suffix}") for name in names]


def ours_from(layer, suffix="", order=None, k=0):
    """Params with the values of a torch layer; `order` shuffles its gates."""
    w_ih, w_hh, b_ih, b_hh, *w_hr = (w.detach().numpy() for w in weights_of(layer, suffix, k))
    if order is not None:
        w_ih, w_hh, b_ih, b_hh = (
            np.concatenate([np.split(a, len(order))[k] for k in order]) for a in (w_ih, w_hh, b_ih, b_hh)
        )
    w_x, w_h = jnp.asarray(w_ih.T), jnp.asarray(w_hh.T)
    if isinstance(layer, torch.nn.LSTM):
        plain = jl.LSTMParams(w_x, w_h, jnp.asarray(b_ih + b_hh))
        return jl.LSTMVariantParams(*plain, w_p=jnp.asarray(w_hr[0].T)) if w_hr else plain
    H = layer.hidden_size
    b = np.concatenate([b_ih[: 2 * H] + b_hh[: 2 * H], b_ih[2 * H :]])
    return jl.GRUParams(w_x, w_h, jnp.asarray(b), jnp.asarray(b_hh[2 * H :]))


def weight_gradients(layer, suffix="", k=0):
    """Torch's, as (d_w_ih, d_w_hh, d_b_ih, d_b_hh), and d_w_hr with a projection."""
    return tuple(w.grad.numpy() for w in weights_of(layer, suffix, k))


def as_torch_counts_them(d_params):
    """Our gradients of the weights in torch's layout."""
    d_w_ih, d_w_hh = np.asarray(d_params.w_x).T, np.asarray(d_params.w_h).T
    d_b_ih = d_b_hh = np.asarray(d_params.b)
    if isinstance(d_params, jl.GRUParams):
        b_hn = np.asarray(d_params.b_hn)
        d_b_hh = np.concatenate([d_b_ih[: 2 * len(b_hn)], b_hn])
    if isinstance(d_params, jl.LSTMVariantParams):
        return d_w_ih, d_w_hh, d_b_ih, d_b_hh, np.asarray(d_params.w_p).T
    return d_w_ih, d_w_hh, d_b_ih, d_b_hh


def run_torch(case, start, flip=False):
    """hs, s_T, and the gradients of (xs, s_0, weights)."""
    xs = torch.tensor(case.xs, requires_grad=True)
    s_0 = tuple(torch.tensor(s[None], requires_grad=True) for s in case.s_0)
    into = torch.flip(xs, [1]) if flip else xs
    given = (s_0 if len(s_0) == 2 else s_0[0]) if start else None
    hs, s_T = case.layer(into, given)
    hs = torch.flip(hs, [1]) if flip else hs
    s_T = s_T if isinstance(s_T, tuple) else (s_T,)
    loss = (hs * torch.from_numpy(case.d_hs)).sum()
    for s, d in zip(s_T, case.d_s_T, strict=True):
        loss = loss + (s[0] * torch.from_numpy(d)).sum()
    case.layer.zero_grad()
    loss.backward()
    d_s_0 = tuple(s.grad.numpy()[0] for s in s_0) if start else ()
    return hs.detach().numpy(), tuple(s[0].detach().numpy() for s in s_T), (
        xs.grad.numpy(), d_s_0, weight_gradients(case.layer)
    )  # fmt: skip


def run_ours(case, start, reverse=False, order=None):
    """The same from the core."""
    State = type(case.cell.initial_state(ours_from(case.layer)))

    def run(params, xs, s_0):
        state, hs = jl.batched(jl.unroll)(case.cell, params, xs, State(*s_0) if s_0 else None, reverse=reverse)
        return hs, tuple(state)

    args = (ours_from(case.layer, order=order), case.xs, case.s_0 if start else ())
    (hs, s_T), pull = jax.vjp(run, *args)
    d_params, d_xs, d_s_0 = pull((jnp.asarray(case.d_hs), tuple(jnp.asarray(d) for d in case.d_s_T)))
    return hs, s_T, (d_xs, d_s_0, as_torch_counts_them(d_params))


def assert_close(actual, desired):
    actual, desired = jax.tree.leaves(actual), jax.tree.leaves(desired)
    assert len(actual) == len(desired)
    for a, d in zip(actual, desired, strict=True):
        np.testing.assert_allclose(a, d, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_states_and_all_gradients_are_those_of_torch(kind, size):
    for seed in range(3):
        case = a_case(kind, size, seed)
        assert_close(run_ours(case, start=True), run_torch(case, start=True))


@pytest.mark.parametrize("kind", LAYERS)
def test_without_an_initial_state_both_start_from_zeros(kind):
    case = a_case(kind, SIZES[0], seed=3)
    assert_close(run_ours(case, start=False), run_torch(case, start=False))


@pytest.mark.parametrize("kind", LAYERS)
def test_reverse_is_torch_on_the_flipped_sequence(kind):
    case = a_case(kind, SIZES[0], seed=4)
    assert_close(run_ours(case, start=True, reverse=True), run_torch(case, start=True, flip=True))


@pytest.mark.parametrize("kind", LAYERS)
def test_a_mask_is_torchs_packed_sequence_in_both_directions(kind):
    case = a_case(kind, (3, 4, 6, 3), seed=5, bidirectional=True)
    lengths = np.array([6, 2, 4])
    mask = np.arange(6) < lengths[:, None]

    xs = torch.tensor(case.xs, requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        xs, torch.from_numpy(lengths), batch_first=True, enforce_sorted=False
    )
    hs, s_T = case.layer(packed)
    hs, _ = torch.nn.utils.rnn.pad_packed_sequence(hs, batch_first=True)
    s_T = s_T if isinstance(s_T, tuple) else (s_T,)  # (2, B, H) each
    (hs * torch.from_numpy(case.d_hs)).sum().backward()

    def run(params, xs):
        states, outputs = zip(
            *(
                jl.batched(jl.unroll)(case.cell, p, xs, None, mask, reverse=reverse)
                for p, reverse in zip(params, (False, True), strict=True)
            ),
            strict=True,
        )
        return jnp.concatenate(outputs, axis=-1), jax.tree.map(lambda *a: jnp.stack(a), *states)

    params = ours_from(case.layer), ours_from(case.layer, "_reverse")
    ours, pull, state = jax.vjp(run, params, case.xs, has_aux=True)
    d_params, d_xs = pull(jnp.asarray(case.d_hs))

    assert_close((ours, tuple(state)), (hs.detach().numpy(), tuple(s.detach().numpy() for s in s_T)))
    assert_close(d_xs, xs.grad.numpy())
    for d, suffix in zip(d_params, ("", "_reverse"), strict=True):
        assert_close(as_torch_counts_them(d), weight_gradients(case.layer, suffix))


# (layers, directions, projection, input size): each number of layers with each of the rest; the last one's layers are
# alike, so that they are one loop.
DEEP = [(1, 2, None, 3), (1, 2, 2, 3), (2, 1, 2, 3), (2, 2, None, 3), (3, 2, 2, 3), (3, 1, None, 4)]


@pytest.mark.parametrize(("layers", "directions", "projection", "features"), DEEP)
def test_a_stack_is_torchs_layers_over_packed_sequences(layers, directions, projection, features):
    H, T, B = 4, 5, 3
    P = projection or H
    options = {"num_layers": layers, "bidirectional": directions == 2, "proj_size": projection or 0}
    layer = a_case("LSTM", (features, H, T, B), seed=9, **options).layer
    rng = np.random.default_rng(10)
    xs, lengths = rng.normal(size=(B, T, features)), np.array([4, 1, 5])
    suffixes = ("", "_reverse")[:directions]
    h_0, d_h_T = rng.normal(size=(2, layers, directions, B, P))
    c_0, d_c_T = rng.normal(size=(2, layers, directions, B, H))
    d_hs = rng.normal(size=(B, T, directions * P))

    def flat(a):  # torch's order: a layer's directions side by side
        return a.reshape(layers * directions, B, -1)

    given = [torch.tensor(a, requires_grad=True) for a in (xs, flat(h_0), flat(c_0))]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        given[0], torch.from_numpy(lengths), batch_first=True, enforce_sorted=False
    )
    hs, ends = layer(packed, tuple(given[1:]))
    hs, _ = torch.nn.utils.rnn.pad_packed_sequence(hs, batch_first=True)
    cotangents = (d_hs, flat(d_h_T), flat(d_c_T))
    torch.stack(
        [(a * torch.from_numpy(d)).sum() for a, d in zip((hs, *ends), cotangents, strict=True)]
    ).sum().backward()
    theirs = [a.detach().numpy() for a in (hs, *ends)], [a.grad.numpy() for a in given]

    def tree(leaf, both=jl.BidirectionalParams):  # of what each layer has in each direction, in our form
        return tuple(both(*(leaf(k, d) for d in range(2))) if directions == 2 else leaf(k, 0) for k in range(layers))

    widths = [features] + [directions * P] * (layers - 1)
    cells = [jl.LSTM(width, H, projection=projection) for width in widths]
    stack = jl.Stack(tuple(jl.Bidirectional(cell) if directions == 2 else cell for cell in cells))
    params = tree(lambda k, d: ours_from(layer, suffixes[d], k=k))
    mask = np.arange(T) < lengths[:, None]

    @jax.jit
    def both(params, xs, h_0, c_0):
        def run(params, xs, h_0, c_0):
            state = tree(lambda k, d: jl.LSTMState(h_0[k, d], c_0[k, d]), jl.BidirectionalState)
            end, hs = jl.batched(jl.unroll)(stack, params, xs, state, mask)
            ends = jax.tree.leaves(end, is_leaf=lambda s: isinstance(s, jl.LSTMState))
            return hs, jnp.stack([s.h for s in ends]), jnp.stack([s.c for s in ends])

        outputs, pull = jax.vjp(run, params, xs, h_0, c_0)
        return outputs, pull(jax.tree.map(jnp.asarray, cotangents))

    outputs, (d_params, *d_given) = both(params, xs, h_0, c_0)
    d_given[1:] = [flat(a) for a in d_given[1:]]
    assert_close((outputs, d_given), theirs)
    d_cells = jax.tree.leaves(d_params, is_leaf=lambda p: isinstance(p, jl.LSTMParams | jl.LSTMVariantParams))
    for n, d_cell in enumerate(d_cells):
        k, d = divmod(n, directions)
        assert_close(as_torch_counts_them(d_cell), weight_gradients(layer, suffixes[d], k))


@pytest.mark.parametrize("differentiate", [jax.jacrev, jax.jacfwd])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_jacobian_of_the_last_output_equals_torchs(kind, differentiate):
    case = a_case(kind, (3, 4, 8, 1), seed=6)
    xs = case.xs[0]
    theirs = torch.autograd.functional.jacobian(lambda xs: case.layer(xs)[0][-1], torch.from_numpy(xs))
    ours = differentiate(lambda xs: jl.unroll(case.cell, ours_from(case.layer), xs)[1][-1])(jnp.asarray(xs))
    assert ours.shape == (4, 8, 3)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=TOLERANCE, atol=0)


@pytest.mark.parametrize(("kind", "order"), [("LSTM", (0, 2, 1, 3)), ("LSTM", (1, 0, 2, 3)), ("GRU", (1, 0, 2))])
def test_another_gate_order_is_noticed(kind, order):
    case = a_case(kind, SIZES[0], seed=7)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_close(run_ours(case, start=True, order=order), run_torch(case, start=True))


def test_a_gru_without_its_second_bias_is_noticed():
    case = a_case("GRU", SIZES[0], seed=8)
    params = jl.GRUParams(*ours_from(case.layer)[:3], b_hn=jnp.zeros(4))
    _, hs = jl.batched(jl.unroll)(case.cell, params, case.xs)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_close(hs, run_torch(case, start=False)[0])
