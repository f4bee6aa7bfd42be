"""What the network tests share: plain transforms, random parameters and inputs, the primitives of a jaxpr."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from polyak import networks

KEY = jax.random.key(0)


def transform(make: Any) -> hk.Transformed:
    return hk.without_apply_rng(hk.transform(lambda inputs: make()(inputs)))


def small_network(head: Any = "q", **arguments: Any) -> hk.Transformed:
    """A network of three actions over two dense layers; of each kind of its head's numbers there are few."""
    numbers = {"num_atoms": 5, "v_min": -1.0, "v_max": 1.0, "num_quantiles": 4, "num_heads": 2}
    return networks.value_network(3, **{"torso": "mlp", "hidden_sizes": (6, 5), "head": head, **numbers} | arguments)


def parameter_shapes(net: hk.Transformed, shape: tuple[int, ...] = (1, 4)) -> Any:
    return jax.tree.map(jnp.shape, jax.eval_shape(net.init, KEY, jnp.zeros(shape)))


def random_params(net: hk.Transformed, inputs: Any, seed: int = 0) -> Any:
    """Parameters without a zero, of the size of initial ones; compiles nothing, as the initialisers would do."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(net.init, KEY, inputs)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(leaf.size // leaf.shape[-1]), leaf.dtype), shapes
    )


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
