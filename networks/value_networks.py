"""Action-value networks: a torso, an optional recurrent core, and one of seven heads."""

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
    iterated_output,
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
    num_iterations: int = 1,
    lstm_size: int | None = None,
    transition: TransitionName | None = None,
    transition_sizes: Sequence[int] = (),
    action_conditional: bool = True,
    feature_map: tuple[int, int, int] | None = None,
    projection: ProjectionName = "none",
    lowering: Lowering = "convolution",
) -> Network:
    """Build the network of an agent: ``scale_images``, a torso, an optional LSTM, and an action-value head.

    The parameters have the path prefixes ``torso``, ``lstm`` and ``head``. The last hidden layer belongs to the torso
    or to the head:

    - By default, all hidden layers belong to the torso.
    - With ``dueling``, each stream of the head has its own last hidden layer; the layers before it are shared. With
      ``torso="nature"`` and ``hidden_sizes=(512,)``, the network is that of Mnih et al., and with ``dueling`` that of
      Wang et al.
    - With the head ``implicit_quantile`` or a ``projection``, the last hidden layer belongs to the head. With the
      projection ``"shared"``, both streams share it.
    - With ``lstm_size``, the torso has all hidden layers, and a head with its own last hidden layer has a further layer
      of ``hidden_sizes[-1]`` units after the LSTM.

    The head determines the fields of ``ValueOutput`` in addition to ``q_values``:

    - ``q``: no further field.
    - ``categorical``: logits of ``num_atoms`` returns from ``v_min`` to ``v_max`` (C51, Bellemare et al., 2017).
    - ``hl_gauss``: logits of the centres of ``num_atoms`` bins from ``v_min`` to ``v_max`` (Farebrother et al., 2024).
    - ``quantile``: quantiles at the ``midpoints`` of ``num_quantiles`` equal intervals of [0, 1] (QR-DQN, Dabney et
      al., 2018a).
    - ``implicit_quantile``: quantiles at sampled fractions (IQN, Dabney et al., 2018b). The features are multiplied
      with the ``CosineEmbedding`` of each fraction (path prefix ``embedding``) before the last hidden layer.
    - ``ensemble``: values of ``num_members`` ensemble members, linear in shared features. ``prior_scale`` times the
      output of a fixed torso and head without an LSTM (path prefix ``prior``) is added to them (Osband et al., 2018).
      The parameters of the prior get no gradient, but weight decay of an optimizer changes them.
    - ``iterated``: values of ``num_iterations + 1`` heads, one linear layer over shared features. The action values are
      the means of all heads but head 0, which provides bootstrap targets only (iS-DQN, Vincent et al., 2026).

    Args:
        num_actions: Number of actions ``A``, at least 1.
        torso: Name of the torso, see ``make_torso``: ``"mlp"`` for observations of any shape, which are flattened; the
            others for images ``[B, H, W, C]``.
        hidden_sizes: Number of units of each hidden dense layer, one layer or more.
        torso_width: Multiplier of the number of filters of each convolution of the torso, at least 1.
        activation: Name of the activation function of the dense layers, see ``activation_fn``.
        normalize: Whether to scale the output of the torso to [0, 1] for each observation, see
            :func:`normalize_features`.
        head: Name of the head, one of the seven above.
        dueling: Whether the head has a value stream and an advantage stream, see ``DuelingHead``; not for
            the heads ensemble and iterated.
        noisy: Whether the layers of the head and the last hidden layer are ``NoisyLinear``; not for the heads
            ensemble and iterated. With an LSTM, only the layers after it are noisy.
        noisy_sigma: Initial scale of the noise, at least 0.
        num_atoms: Number of atoms of a categorical or hl_gauss head, at least 2.
        v_min: Lowest return of a categorical or hl_gauss head. If ``v_min`` and ``v_max`` are None, the range is module
            state, initialized to zeros and set by :func:`set_support`.
        v_max: Highest return of a categorical or hl_gauss head, above ``v_min``.
        num_quantiles: Number of quantiles of the quantile heads, at least 1.
        draw_fractions: Whether an implicit_quantile head samples its fractions if it has a key; if False, it uses the
            midpoints.
        num_members: Number of ensemble members, at least 1.
        prior_scale: Scale of the prior of an ensemble, at least 0; 0 for no prior.
        num_iterations: Number of heads of an iterated head besides head 0 (``K``), at least 1.
        lstm_size: Number of units of the LSTM, at least 1, see :func:`lstm`; None for no recurrent core.
        transition: Name of the transition model that predicts later features, see :class:`LatentTransition`; None for
            no model.
        transition_sizes: Number of units of each hidden layer of the transition model ``mlp``.
        action_conditional: Whether the transition model reads the actions.
        feature_map: Shape ``(H, W, C)`` of the features for the transition model ``conv``, see
            :func:`feature_map_shape`.
        projection: Layers of the head that project the predicted features before a linear predictor: ``none``,
            ``streams`` (the first layers of both streams) or ``shared`` (the hidden layer).
        lowering: Lowering of the convolutions, see ``Conv2D``; it does not change parameters or outputs.

    Returns:
        Network for observations ``[B, ...]`` of any real dtype; parameters and outputs are float32. ``encode`` and
        ``value`` use their keys to sample noise (once for the batch) and fractions (for each row). The module state is
        ``{}`` unless it holds the range of returns.

    Raises:
        TypeError: If a number has the wrong type.
        ValueError: If a number is out of range, ``hidden_sizes`` is empty, a name is unknown, the head ensemble or
            iterated is combined with ``dueling`` or ``noisy``, or the head does not have the layers of the projection.
            From the functions of the network, if the observation does not fit the torso, or shapes do not match.

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
    _check_head(head, dueling, noisy, v_min, v_max, noisy_sigma, prior_scale)
    counts = {"num_atoms": num_atoms, "num_quantiles": num_quantiles, "num_members": num_members}
    _check_counts(**counts, num_iterations=num_iterations)
    _check_projection(projection, head, dueling)
    core = None if lstm_size is None else lstm(num_actions, lstm_size)
    shared, own = split_hidden(hidden_sizes, head, dueling, lstm_size, projection)
    sigma = noisy_sigma if noisy else None
    last_sigma = sigma if not own and core is None else None  # if the last hidden layer belongs to the torso

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

    def members_of(hidden: jax.Array, number: int = num_members) -> jax.Array:  # [B, members, actions]
        out: jax.Array = LinearHead(number, num_actions, own, activation)(hidden)
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
        if head == "iterated":
            return iterated_output(members_of(hidden, num_iterations + 1))
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
            normalize and core is None,  # the output of a core is not normalized
        )
        return unroll_transition(model, hidden, actions)

    draws = noisy or (head == "implicit_quantile" and draw_fractions)
    if transition is None:
        return assemble(encode, value, core, draws)
    return assemble(encode, value, core, draws, predict, make_projection(projection, hidden_sizes[-1]))


def value_network(num_actions: int, **arguments: Any) -> hk.Transformed:
    """Build an action-value network without recurrent core and module state, as a Haiku transform.

    ``apply`` runs ``encode`` and ``value`` of :func:`make_network`.

    Args:
        num_actions: Number of actions ``A``, at least 1.
        **arguments: Arguments of :func:`make_network`, except ``lstm_size``; ``v_min`` and ``v_max`` must be numbers.

    Returns:
        Functions ``init(key, observation) -> params`` and ``apply(params, key, observation) -> ValueOutput`` of
        observations ``[B, ...]`` of any real dtype. ``apply`` uses the key to sample noise (once for the batch) and
        fractions (for each row). If the key is None, weights are their means and fractions are the midpoints.

    Raises:
        TypeError: If a number has the wrong type.
        ValueError: As in :func:`make_network`, or if ``lstm_size`` is given or ``v_min`` is None.

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
    """Split the hidden sizes between the torso and the head (for streams, fractions or a projection).

    >>> split_hidden((32, 16), "q", dueling=False), split_hidden((32, 16), "q", dueling=True)
    (((32, 16), ()), ((32,), (16,)))
    >>> split_hidden((32, 16), "q", dueling=True, lstm_size=8)
    ((32, 16), (16,))
    """
    hidden = tuple(hidden_sizes)
    own = hidden[-1:] if dueling or head == "implicit_quantile" or projection != "none" else ()
    return (hidden[:-1] if own and lstm_size is None else hidden), own


def _check_network(num_actions: Any, torso: Any, hidden_sizes: Any, activation: Any, lowering: Any) -> None:
    """Check the arguments that all heads use, before tracing."""
    check_positive("num_actions", num_actions)
    check_choice("torso", torso, get_args(TorsoName))
    check_choice("lowering", lowering, get_args(Lowering))
    check_sizes("hidden_sizes", hidden_sizes)
    if not hidden_sizes:
        raise ValueError("hidden_sizes: got no layer; expected one or more, for example (64,).")
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
            f"projection: got {projection!r} with head='implicit_quantile', whose hidden layer reads embedded "
            "fractions; expected another head. Use head='quantile', or projection='none'."
        )


def _check_counts(**counts: Any) -> None:
    """Check the numbers of outputs of all heads, also of those that are not chosen."""
    for field, count in counts.items():
        check_positive(field, count)
    if counts["num_atoms"] < 2:
        raise ValueError("num_atoms: got 1; expected an integer >= 2, for example 51.")


def _check_head(
    head: Any,
    dueling: bool,
    noisy: bool,
    v_min: Any,
    v_max: Any,
    noisy_sigma: Any,
    prior_scale: Any,
) -> None:
    """Check the arguments of all heads, also of those that are not chosen."""
    check_choice("head", head, get_args(HeadName))
    if not (v_min is None and v_max is None):
        for field, bound in (("v_min", v_min), ("v_max", v_max)):
            check_finite(field, bound)
        if v_min >= v_max:
            raise ValueError(f"v_min: got {v_min}; expected less than v_max, {v_max}. Give the range of the returns.")
    check_nonnegative("noisy_sigma", noisy_sigma)
    check_nonnegative("prior_scale", prior_scale)
    for field, wanted in (("dueling", dueling), ("noisy", noisy)):
        if wanted and head in ("ensemble", "iterated"):
            raise ValueError(
                f"{field}: got True with head={head!r}; expected False. Use another head, or omit the field."
            )
