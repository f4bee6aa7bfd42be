"""Networks of action values: a torso and a head, as a pair of pure functions."""

from collections.abc import Sequence
from typing import Any, get_args

import haiku as hk
import jax
import jax.numpy as jnp

from ._checks import check_choice, check_finite, check_nonnegative, check_positive, check_sizes
from .conv import Lowering
from .dense import Activation, activation_fn
from .heads import (
    CosineEmbedding,
    DuelingHead,
    HeadName,
    LinearHead,
    ValueOutput,
    categorical_output,
    ensemble_output,
    make_atoms,
    midpoints,
    plain_output,
    quantile_output,
)
from .torsos import TorsoName, make_torso, scale_images


def value_network(
    num_actions: int,
    *,
    torso: TorsoName,
    hidden_sizes: Sequence[int],
    activation: Activation = "relu",
    head: HeadName = "q",
    dueling: bool = False,
    noisy: bool = False,
    noisy_sigma: float = 0.5,
    num_atoms: int = 51,
    v_min: float = -10.0,
    v_max: float = 10.0,
    num_quantiles: int = 64,
    num_heads: int = 10,
    prior_scale: float = 1.0,
    lowering: Lowering = "convolution",
) -> hk.Transformed:
    """Builds a network of action values: observations through ``scale_images``, a torso and a head.

    The parameters stand under ``torso`` and ``head``. With ``dueling`` the last hidden layer is doubled, one for each
    stream of the head, and those before it are shared: ``torso="nature", hidden_sizes=(512,)`` is the network of Mnih
    et al., and of Wang et al. with ``dueling``. What the head gives beside the values, see ``ValueOutput``:

    - ``q``: nothing.
    - ``categorical``: logits of ``num_atoms`` returns from ``v_min`` to ``v_max`` (C51, Bellemare et al., 2017).
    - ``hl_gauss``: the same of the centres of ``num_atoms`` bins between them (Farebrother et al., 2024).
    - ``quantile``: the quantiles at ``midpoints`` of as many equal slices of [0, 1] (QR-DQN, Dabney et al., 2018a).
    - ``implicit_quantile``: the quantiles at drawn fractions (IQN, Dabney et al., 2018b). The features are multiplied
      with those of each fraction, a ``CosineEmbedding`` under ``embedding``, and the last hidden layer comes after.
    - ``ensemble``: the values of ``num_heads`` members, linear in shared features, each with ``prior_scale`` times
      those of a network of the same shape, under ``prior``, added (Osband et al., 2018). No gradient reaches the
      latter; an optimizer that decays weights does.

    Args:
        num_actions: number of actions ``A``, at least 1.
        torso: see ``make_torso``: ``"mlp"`` for any observation, flattened; the others for images, ``[B, H, W, C]``.
        hidden_sizes: units of each hidden dense layer, one or more.
        activation: name of the activation of the dense layers, see ``activation_fn``.
        head: one of the six above.
        dueling: whether the head has a stream for the value and one for the advantages, see ``DuelingHead``; not for
            an ensemble.
        noisy: whether the layers of the head and the last hidden one are ``NoisyLinear``; not for an ensemble.
        noisy_sigma: initial scale of their noise, at least 0.
        num_atoms: of a categorical or hl_gauss head, at least 2.
        v_min: the lowest return of these heads.
        v_max: the highest, above ``v_min``.
        num_quantiles: of the quantile heads, at least 1.
        num_heads: members of an ensemble, at least 1.
        prior_scale: of an ensemble, at least 0; without a prior where it is 0.
        lowering: how convolutions are computed, see ``Conv2D``; parameters and values are those of either.

    Returns:
        ``init(key, observation) -> params``, the same for the same key, and ``apply(params, key, observation) ->
        ValueOutput``, where ``observation`` is ``[B, ...]`` of any real dtype and parameters and outputs are float32.
        ``apply`` draws noise (once for the whole batch) and fractions (for each row) from the key; with None, weights
        are their means and fractions the midpoints. Where nothing is drawn, the key is not read.

    Raises:
        TypeError: if a number is of another type.
        ValueError: if one is out of its range, ``hidden_sizes`` is empty, a name is unknown, or an ensemble is asked
            for with ``dueling`` or ``noisy``; and from ``init`` and ``apply``, if the observation does not suit the
            torso.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> network = networks.value_network(2, torso="mlp", hidden_sizes=(16,), head="categorical", num_atoms=11)
        >>> params = network.init(jax.random.key(0), jnp.zeros([1, 4]))
        >>> sorted(params)
        ['head/logits', 'torso/mlp/~/linear_0']
        >>> out = network.apply(params, None, jnp.zeros([8, 4]))
        >>> out.q_values.shape, out.logits.shape, out.atoms.shape
        ((8, 2), (8, 2, 11), (11,))
    """
    check_network(num_actions, torso, hidden_sizes, activation, lowering)
    _check_head(head, dueling, noisy, num_atoms, v_min, v_max, num_quantiles, num_heads, noisy_sigma, prior_scale)
    shared, own = split_hidden(hidden_sizes, head, dueling)
    sigma = noisy_sigma if noisy else None

    def features_of(observation: jax.Array) -> jax.Array:
        last = None if own else sigma  # The last hidden layer is one of the torso's where the head has none.
        body = make_torso(torso, hidden_sizes=shared, activation=activation, noisy_sigma=last, lowering=lowering)
        out: jax.Array = body(observation)
        return out

    def numbers_of(features: jax.Array, num_outputs: int, name: str) -> jax.Array:
        if dueling:
            layers = DuelingHead(num_actions, num_outputs, own, activation, sigma)
        else:
            layers = LinearHead(num_actions, num_outputs, own, activation, sigma, name)
        out: jax.Array = layers(features)
        return out

    def members_of(observation: jax.Array) -> jax.Array:  # each of them in the place of an action
        out: jax.Array = LinearHead(num_heads, num_actions)(features_of(observation))
        return out

    def forward(observation: jax.Array) -> ValueOutput:
        observation = scale_images(observation)
        if head == "ensemble":
            return ensemble_output(_with_prior(members_of, prior_scale, observation))
        features = features_of(observation)
        if head == "q":
            return plain_output(numbers_of(features, 1, "q_values"))
        if head in ("categorical", "hl_gauss"):
            atoms = make_atoms(head, num_atoms, v_min, v_max)
            return categorical_output(numbers_of(features, num_atoms, "logits"), atoms)
        taus = jnp.broadcast_to(midpoints(num_quantiles), (features.shape[0], num_quantiles))
        if head == "quantile":
            return quantile_output(jnp.swapaxes(numbers_of(features, num_quantiles, "quantiles"), -1, -2), taus)
        key = hk.maybe_next_rng_key()
        taus = taus if key is None else jax.random.uniform(key, taus.shape)
        product = features[:, None] * CosineEmbedding(features.shape[-1])(taus)
        return quantile_output(numbers_of(product, 1, "quantiles")[..., 0], taus)

    return hk.transform(forward)


def split_hidden(hidden_sizes: Sequence[int], head: HeadName, dueling: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The hidden layers of the torso, and those of the head: the last one, where it has streams or fractions.

    >>> split_hidden((32, 16), "q", dueling=False), split_hidden((32, 16), "q", dueling=True)
    (((32, 16), ()), ((32,), (16,)))
    """
    hidden = tuple(hidden_sizes)
    return (hidden[:-1], hidden[-1:]) if dueling or head == "implicit_quantile" else (hidden, ())


def _with_prior(network: Any, prior_scale: float, observation: jax.Array) -> jax.Array:
    """The sum of a network and a fixed one of the same shape, whose parameters stand under ``prior``."""
    out: jax.Array = network(observation)
    if prior_scale == 0:
        return out
    with hk.name_scope("prior"):
        prior: jax.Array = network(observation)
    return out + prior_scale * jax.lax.stop_gradient(prior)


def check_network(num_actions: Any, torso: Any, hidden_sizes: Any, activation: Any, lowering: Any) -> None:
    """Checks what every network is given: an error here comes before anything is traced."""
    check_positive("num_actions", num_actions)
    check_choice("torso", torso, get_args(TorsoName))
    check_choice("lowering", lowering, get_args(Lowering))
    check_sizes("hidden_sizes", hidden_sizes)
    if not hidden_sizes:
        raise ValueError("hidden_sizes: got no layer; expected one or more. Give (64,), for example.")
    activation_fn(activation)


def _check_head(
    head: Any,
    dueling: bool,
    noisy: bool,
    num_atoms: Any,
    v_min: Any,
    v_max: Any,
    num_quantiles: Any,
    num_heads: Any,
    noisy_sigma: Any,
    prior_scale: Any,
) -> None:
    """Checks the numbers of all heads, whichever is chosen."""
    check_choice("head", head, get_args(HeadName))
    for field, count in (("num_atoms", num_atoms), ("num_quantiles", num_quantiles), ("num_heads", num_heads)):
        check_positive(field, count)
    if num_atoms < 2:
        raise ValueError("num_atoms: got 1; expected an integer >= 2. Give 51, for example.")
    for field, bound in (("v_min", v_min), ("v_max", v_max)):
        check_finite(field, bound)
    if v_min >= v_max:
        raise ValueError(f"v_min: got {v_min}; expected less than v_max, {v_max}. Give the range of the returns.")
    check_nonnegative("noisy_sigma", noisy_sigma)
    check_nonnegative("prior_scale", prior_scale)
    for field, wanted in (("dueling", dueling), ("noisy", noisy)):
        if wanted and head == "ensemble":
            raise ValueError(
                f"{field}: got True with head='ensemble'; expected False. Use another head, or leave it out."
            )
