"""Tools of the network tests: plain transforms, random parameters and inputs, unrolls, the primitives of a jaxpr."""

import pathlib
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from polyak import networks

KEY = jax.random.key(0)
GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"


def transform(make: Any) -> hk.Transformed:
    return hk.without_apply_rng(hk.transform(lambda inputs: make()(inputs)))


def small_network(head: Any = "q", **arguments: Any) -> hk.Transformed:
    """A network of three actions over two dense layers; of each kind of its head's numbers there are few."""
    return networks.value_network(3, **small_arguments(head) | arguments)


def small_arguments(head: Any = "q") -> dict[str, Any]:
    numbers = {"num_atoms": 5, "v_min": -1.0, "v_max": 1.0, "num_quantiles": 4, "num_members": 2, "num_iterations": 2}
    return {"torso": "mlp", "hidden_sizes": (6, 5), "head": head, **numbers}


def parameter_shapes(net: hk.Transformed, shape: tuple[int, ...] = (1, 4)) -> Any:
    return jax.tree.map(jnp.shape, jax.eval_shape(net.init, KEY, jnp.zeros(shape)))


def random_params(net: hk.Transformed | networks.Network, inputs: Any, seed: int = 0) -> Any:
    """Parameters without a zero, of the size of initial ones; compiles nothing, as the initialisers would do."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(net.init, KEY, inputs)
    if isinstance(net, networks.Network):
        shapes = shapes[0]
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(leaf.size // leaf.shape[-1]), leaf.dtype), shapes
    )


def unroll(
    net: networks.Network, params: Any, observation: Any, a_tm1: Any, r_tm1: Any, first: Any, recurrent_state: Any
) -> tuple[networks.ValueOutput, Any]:
    """Values of sequences, [B, T, ...], as an agent computes them: no module state, no key; atoms as they are."""
    batch, time = first.shape
    flat = jnp.reshape(observation, (batch * time, *observation.shape[2:]))
    features, _ = net.encode(params, {}, None, flat, False)
    assert net.core is not None
    hidden, recurrent_state = net.core(params, features.reshape(batch, time, -1), a_tm1, r_tm1, first, recurrent_state)
    output, _ = net.value(params, {}, None, hidden.reshape(batch * time, -1), flat, False)
    rows = {
        field: leaf.reshape(batch, time, *leaf.shape[1:])
        for field, leaf in output._asdict().items()
        if field != "atoms" and not isinstance(leaf, tuple)
    }
    return output._replace(**rows), recurrent_state


def random_floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def primitives(jaxpr: Any) -> set[str]:
    """The names of all primitives of a jaxpr, those of nested ones included."""
    names = set()
    for eqn in jaxpr.eqns:
        names.add(eqn.primitive.name)
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    names |= primitives(inner)
    return names
