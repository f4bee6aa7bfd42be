"""Networks of action values: a torso, a recurrent core where it is asked for, and one of six heads."""

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
    atoms_of_support,
    categorical_output,
    ensemble_output,
    make_atoms,
    midpoints,
    plain_output,
    quantile_output,
)
from .network import Network, apply, assemble
from .prediction import (
    LatentTransition,
    ProjectionName,
    TransitionName,
    make_projection,
    normalize_features,
    unroll_transition,
)
from .recurrent import lstm
from .torsos import TorsoName, make_torso, scale_images


def make_network(
    num_actions: int,
    *,
    torso: TorsoName,
    hidden_sizes: Sequence[int],
    torso_width: int = 1,
    activation: Activation = "relu",
    normalize: bool = False,
    head: HeadName = "q",
    dueling: bool = False,
    noisy: bool = False,
    noisy_sigma: float = 0.5,
    num_atoms: int = 51,
    v_min: float | None = -10.0,
    v_max: float | None = 10.0,
    num_quantiles: int = 64,
    draw_fractions: bool = True,
    num_members: int = 10,
    prior_scale: float = 1.0,
    lstm_size: int | None = None,
    transition: TransitionName | None = None,
    transition_sizes: Sequence[int] = (),
    action_conditional: bool = True,
    feature_map: tuple[int, int, int] | None = None,
    projection: ProjectionName = "none",
    lowering: Lowering = "convolution",
) -> Network:
    """Build the network of an agent: ``scale_images``, a torso, perhaps an LSTM, and a head of action values.

    The parameters stand under ``torso``, ``lstm`` and ``head``. With ``dueling`` the last hidden layer is doubled, one
    for each stream of the head, and those before it are shared: ``torso="nature", hidden_sizes=(512,)`` is the network
    of Mnih et al., and of Wang et al. with ``dueling``. With ``lstm_size`` the torso has all hidden layers, and each
    stream has one more of ``hidden_sizes[-1]`` after the LSTM. With a ``projection`` the last hidden layer is the
    head's too; ``"shared"`` is one layer for both streams. Fields of ``ValueOutput`` beside ``q_values``, by head:

    - ``q``: none.
    - ``categorical``: logits of ``num_atoms`` returns from ``v_min`` to ``v_max`` (C51, Bellemare et al., 2017).
    - ``hl_gauss``: logits of the centres of ``num_atoms`` bins between them (Farebrother et al., 2024).
    - ``quantile``: quantiles at ``midpoints`` of ``num_quantiles`` equal slices of [0, 1] (QR-DQN, Dabney et al.,
      2018a).
    - ``implicit_quantile``: quantiles at drawn fractions (IQN, Dabney et al., 2018b). The features are multiplied with
      those of each fraction, a ``CosineEmbedding`` under ``embedding``, and the last hidden layer comes after.
    - ``ensemble``: values of ``num_members`` members, linear in shared features, each with ``prior_scale`` times
      those of a fixed torso and head, under ``prior``, added (Osband et al., 2018). The prior has no LSTM. No gradient
      reaches its parameters; an optimizer that decays weights does.

    Args:
        num_actions: Number of actions ``A``, at least 1.
        torso: Name of the torso, see ``make_torso``: ``"mlp"`` for any observation, flattened; the others for images,
            ``[B, H, W, C]``.
        hidden_sizes: Units of each hidden dense layer, one or more.
        torso_width: Factor of the number of filters of each convolution of the torso, at least 1.
        activation: Name of the activation of the dense layers, see ``activation_fn``.
        normalize: Whether the features of each observation, the torso's output, are scaled to [0, 1], see
            :func:`normalize_features`.
        head: Name of one of the six heads above.
        dueling: Whether the head has a stream for the value and one for the advantages, see ``DuelingHead``; not for
            an ensemble.
        noisy: Whether the layers of the head and the last hidden one are ``NoisyLinear``; not for an ensemble. With
            an LSTM, the layers after it.
        noisy_sigma: Initial scale of their noise, at least 0.
        num_atoms: Number of atoms of a categorical or hl_gauss head, at least 2.
        v_min: Lowest return of these heads. None, together with ``v_max``, puts the range into the module state, zeros
            at first, for :func:`set_support`.
        v_max: Highest return of these heads, above ``v_min``.
        num_quantiles: Number of quantiles of the quantile heads, at least 1.
        draw_fractions: Whether an implicit_quantile head draws its fractions where it has a key; else they are the
            midpoints, and a key is for the noise alone.
        num_members: Number of members of an ensemble, at least 1.
        prior_scale: Scale of the prior of an ensemble, at least 0; 0 builds none.
        lstm_size: Number of units of the LSTM, at least 1; None for a network without a core. See :func:`lstm`.
        transition: Name of the model with which the features of later observations are predicted, see
            :class:`LatentTransition`; None for a network without one.
        transition_sizes: Units of each hidden layer of the model ``mlp``.
        action_conditional: Whether the model sees the actions.
        feature_map: Shape ``(H, W, C)`` of the features, for the model ``conv``, see :func:`feature_map_shape`.
        projection: Layers of the head by which predicted features are projected, before a linear predictor: ``none``;
            ``streams``, the first layers of both streams; ``shared``, the hidden layer.
        lowering: Form of the convolutions, see ``Conv2D``; parameters and values are those of either.

    Returns:
        A ``Network``. Observations are ``[B, ...]`` of any real dtype; parameters and outputs are float32. ``encode``
        and ``value`` draw noise (once for the whole batch) and fractions (for each row) from their keys. The module
        state is ``{}`` unless the range of returns is in it.

    Raises:
        TypeError: If a number is of another type.
        ValueError: If one is out of its range, ``hidden_sizes`` is empty, a name is unknown, an ensemble is asked for
            with ``dueling`` or ``noisy``, or a projection does not suit the head; and from its functions, if the
            observation does not suit the torso, or shapes do not go together.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> network = networks.make_network(2, torso="mlp", hidden_sizes=(16,), head="quantile", lstm_size=8)
        >>> params, state = network.init(jax.random.key(0), jnp.zeros([1, 4]))
        >>> sorted(params)
        ['head/quantiles', 'lstm/linear', 'torso/mlp/~/linear_0']
        >>> observation = jnp.zeros([3, 4])
        >>> features, state = network.encode(params, state, None, observation, False)
        >>> a_tm1, r_tm1, first = jnp.zeros([3, 1], int), jnp.zeros([3, 1]), jnp.ones([3, 1], bool)
        >>> recurrent_state = network.initial_recurrent_state(3)
        >>> hidden, recurrent_state = network.core(params, features[:, None], a_tm1, r_tm1, first, recurrent_state)
        >>> output, state = network.value(params, state, None, hidden[:, 0], observation, False)
        >>> output.q_values.shape, output.quantiles.shape
        ((3, 2), (3, 64, 2))
    """
    _check_network(num_actions, torso, hidden_sizes, activation, lowering)
    _check_head(head, dueling, noisy, num_atoms, v_min, v_max, num_quantiles, num_members, noisy_sigma, prior_scale)
    _check_projection(projection, head, dueling)
    core = None if lstm_size is None else lstm(num_actions, lstm_size)
    shared, own = split_hidden(hidden_sizes, head, dueling, lstm_size, projection)
    sigma = noisy_sigma if noisy else None
    last_sigma = sigma if not own and core is None else None  # The last hidden layer is one of the torso's there.

    def encode(observation: jax.Array, is_training: bool) -> jax.Array:
        del is_training
        body = make_torso(
            torso,
            hidden_sizes=shared,
            activation=activation,
            noisy_sigma=last_sigma,
            lowering=lowering,
            width=torso_width,
        )
        features = body(scale_images(observation))
        return normalize_features(features) if normalize else features

    def head_of(num_outputs: int, name: str) -> Any:
        if dueling:
            both, each = (own, ()) if projection == "shared" else ((), own)
            return DuelingHead(num_actions, num_outputs, each, activation, sigma, both)
        return LinearHead(num_actions, num_outputs, own, activation, sigma, name)

    def members_of(hidden: jax.Array) -> jax.Array:  # Members stand in the place of actions.
        out: jax.Array = LinearHead(num_members, num_actions, own, activation)(hidden)
        return out

    def atoms_of(layers: Any) -> jax.Array:
        if v_min is None or v_max is None:
            return atoms_of_support(head, num_atoms, layers.support())
        return make_atoms(head, num_atoms, v_min, v_max)

    def value(hidden: jax.Array, observation: jax.Array, is_training: bool) -> ValueOutput:
        if head == "ensemble":
            members = members_of(hidden)
            if prior_scale != 0:
                with hk.name_scope("prior"):
                    prior = members_of(encode(observation, is_training))
                members = members + prior_scale * jax.lax.stop_gradient(prior)
            return ensemble_output(members)
        if head == "q":
            return plain_output(head_of(1, "q_values")(hidden))
        if head in ("categorical", "hl_gauss"):
            layers = head_of(num_atoms, "logits")
            return categorical_output(layers(hidden), atoms_of(layers))
        taus = jnp.broadcast_to(midpoints(num_quantiles), (hidden.shape[0], num_quantiles))
        if head == "quantile":
            return quantile_output(jnp.swapaxes(head_of(num_quantiles, "quantiles")(hidden), -1, -2), taus)
        key = hk.maybe_next_rng_key() if draw_fractions else None
        taus = taus if key is None else jax.random.uniform(key, taus.shape)
        product = hidden[:, None] * CosineEmbedding(hidden.shape[-1])(taus)
        return quantile_output(head_of(1, "quantiles")(product)[..., 0], taus)

    def predict(hidden: jax.Array, actions: jax.Array) -> jax.Array:
        assert transition is not None
        model = LatentTransition(
            num_actions,
            transition,
            transition_sizes,
            activation,
            action_conditional,
            feature_map,
            normalize and core is None,  # the features of a core are not
        )
        return unroll_transition(model, hidden, actions)

    draws = noisy or (head == "implicit_quantile" and draw_fractions)
    if transition is None:
        return assemble(encode, value, core, draws)
    return assemble(encode, value, core, draws, predict, make_projection(projection, hidden_sizes[-1]))


def value_network(num_actions: int, **arguments: Any) -> hk.Transformed:
    """Build a network of action values without a core or module state, as one pair of functions.

    The functions are those of :func:`make_network`: ``apply`` encodes and reads the values.

    Args:
        num_actions: Number of actions ``A``, at least 1.
        **arguments: Arguments of :func:`make_network`, except ``lstm_size``; ``v_min`` and ``v_max`` are numbers.

    Returns:
        ``init(key, observation) -> params`` and ``apply(params, key, observation) -> ValueOutput``, where
        ``observation`` is ``[B, ...]`` of any real dtype. ``apply`` draws noise (once for the whole batch) and
        fractions (for each row) from the key; with None, weights are their means and fractions the midpoints.

    Raises:
        TypeError: If a number is of another type.
        ValueError: as in :func:`make_network`, or if ``lstm_size`` is given or ``v_min`` is None.

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
    network = make_network(num_actions, **arguments)
    for field, absent in (("lstm_size", network.core is None), ("v_min", arguments.get("v_min", 0.0) is not None)):
        if not absent:
            raise ValueError(
                f"{field}: got {arguments[field]}; expected a network without a core or module state. Use make_network."
            )

    def init(key: jax.Array, observation: jax.Array) -> Any:
        return network.init(key, observation)[0]

    def apply_network(params: Any, key: jax.Array | None, observation: jax.Array) -> ValueOutput:
        return apply(network, params, {}, key if network.draws else None, observation, False).output

    return hk.Transformed(init, apply_network)


def split_hidden(
    hidden_sizes: Sequence[int],
    head: HeadName,
    dueling: bool,
    lstm_size: int | None = None,
    projection: ProjectionName = "none",
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes of the hidden layers of the torso, and of those of the head: for streams, fractions or a projection.

    >>> split_hidden((32, 16), "q", dueling=False), split_hidden((32, 16), "q", dueling=True)
    (((32, 16), ()), ((32,), (16,)))
    >>> split_hidden((32, 16), "q", dueling=True, lstm_size=8)
    ((32, 16), (16,))
    """
    hidden = tuple(hidden_sizes)
    own = hidden[-1:] if dueling or head == "implicit_quantile" or projection != "none" else ()
    return (hidden[:-1] if own and lstm_size is None else hidden), own


def _check_network(num_actions: Any, torso: Any, hidden_sizes: Any, activation: Any, lowering: Any) -> None:
    """Check the arguments that every head reads, before anything is traced."""
    check_positive("num_actions", num_actions)
    check_choice("torso", torso, get_args(TorsoName))
    check_choice("lowering", lowering, get_args(Lowering))
    check_sizes("hidden_sizes", hidden_sizes)
    if not hidden_sizes:
        raise ValueError("hidden_sizes: got no layer; expected one or more. Give (64,), for example.")
    activation_fn(activation)


def _check_projection(projection: Any, head: Any, dueling: bool) -> None:
    """Check that the head has the layers of a projection."""
    check_choice("projection", projection, get_args(ProjectionName))
    if projection == "none":
        return
    if projection == "streams" and not dueling:
        raise ValueError("projection: got 'streams' with dueling=False; expected a head with streams, or 'shared'.")
    if head == "implicit_quantile":
        raise ValueError(
            f"projection: got {projection!r} with head='implicit_quantile', whose hidden layer sees features of "
            "fractions; expected another head. Use head='quantile', or projection='none'."
        )


def _check_head(
    head: Any,
    dueling: bool,
    noisy: bool,
    num_atoms: Any,
    v_min: Any,
    v_max: Any,
    num_quantiles: Any,
    num_members: Any,
    noisy_sigma: Any,
    prior_scale: Any,
) -> None:
    """Check the numbers of all heads, whichever is chosen."""
    check_choice("head", head, get_args(HeadName))
    for field, count in (("num_atoms", num_atoms), ("num_quantiles", num_quantiles), ("num_members", num_members)):
        check_positive(field, count)
    if num_atoms < 2:
        raise ValueError("num_atoms: got 1; expected an integer >= 2. Give 51, for example.")
    if not (v_min is None and v_max is None):
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
