"""Network of an agent: functions over one tree of parameters and one tree of module state."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from .heads import ValueOutput
from .prediction import Projection
from .recurrent import Core

Encode = Callable[[jax.Array, bool], jax.Array]
Value = Callable[[jax.Array, jax.Array, bool], ValueOutput]
Predict = Callable[[jax.Array, jax.Array], jax.Array]


class Network(NamedTuple):
    """Pure functions over a tree of parameters, ``params``, and a tree of module state, ``state``.

    An agent encodes observations, applies the core (if there is one) to the features, and computes action values from
    the result, ``hidden``. Without a core, ``hidden`` are the features. ``is_training`` is a Python bool. A key may be
    None: noisy layers then use their means, and an implicit-quantile head uses midpoints as fractions.

    Attributes:
        init: Function ``(key, observation) -> (params, state)`` of observations ``[B, ...]``.
        encode: Function ``(params, state, key, observation, is_training) -> (features, state)`` from observations
            ``[B, ...]`` to features ``[B, D]``.
        core: Function ``(params, features, a_tm1, r_tm1, first, recurrent_state) -> (hidden, recurrent_state)`` from
            features ``[B, T, D]`` to hidden states ``[B, T, H]``. ``a_tm1`` and ``r_tm1``, ``[B, T]``, are the action
            and the reward before each observation; ``first``, ``[B, T]`` bool, marks the first observation of an
            episode. None without a core.
        value: Function ``(params, state, key, hidden, observation, is_training) -> (ValueOutput, state)`` of hidden
            states ``[B, H]``. Only the fixed prior of an ensemble reads the observations ``[B, ...]``.
        initial_recurrent_state: Function from the batch size to the recurrent state at the beginning of an episode,
            which is ``()`` without a core.
        draws: Whether ``encode`` or ``value`` reads its key.
        predict: Function ``(params, hidden, actions) -> predictions`` from ``[B, H]`` and actions ``[B, K]`` to
            predictions of ``hidden`` after each action, ``[B, K, H]``, or of its projections, ``[B, K, P]``. None
            without a transition model.
        project: Function ``(params, hidden) -> projections`` from ``[..., H]`` to ``[..., P]``, with which predictions
            are compared. None if predictions are compared with ``hidden``.
    """

    init: Callable[[jax.Array, jax.Array], tuple[Any, Any]]
    encode: Callable[..., tuple[jax.Array, Any]]
    core: Callable[..., tuple[jax.Array, Any]] | None
    value: Callable[..., tuple[ValueOutput, Any]]
    initial_recurrent_state: Callable[[int], Any]
    draws: bool
    predict: Callable[[Any, jax.Array, jax.Array], jax.Array] | None = None
    project: Callable[[Any, jax.Array], jax.Array] | None = None


def compose(
    encode: Encode, value: Value, core: Core | None = None, *, draws: bool = True, predict: Predict | None = None
) -> Network:
    """Compose a network from Haiku functions.

    ``init`` runs encode, core and value in this order. The modules of ``encode`` have the path prefix ``torso`` and
    those of ``value`` the prefix ``head``, as in :func:`make_network`, so that parts of a target apply to both kinds of
    networks. ``encode`` and ``value`` may update module state, for example the averages of ``hk.BatchNorm``.

    Args:
        encode: Function ``(observation, is_training) -> features`` from observations ``[B, ...]`` in the dtype of the
            environment to ``[B, D]``. For bytes or integers, call :func:`scale_images` first.
        value: Function ``(hidden, observation, is_training) -> ValueOutput`` of features ``[B, D]``, or hidden states
            ``[B, H]`` of the core.
        core: Recurrent core between ``encode`` and ``value``, see :func:`lstm`; None for no core.
        draws: Whether ``encode`` or ``value`` reads a key with ``hk.maybe_next_rng_key``. The key is None in
            evaluation.
        predict: Function ``(hidden, actions) -> predictions`` from ``[B, H]`` and ``[B, K]`` to ``[B, K, H]``, for
            agents with self-prediction; see :class:`LatentTransition`. Its modules have the path prefix ``transition``.

    Returns:
        Network of the functions.

    Raises:
        TypeError: From the functions of the network, if ``value`` does not return a ``ValueOutput``.
        ValueError: From the functions of the network, if features or values have wrong shapes.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> def encode(observation, is_training):
        ...     hidden = hk.BatchNorm(True, True, 0.9)(hk.Linear(16)(observation), is_training)
        ...     return jax.nn.relu(hidden)
        >>> def value(hidden, observation, is_training):
        ...     return networks.ValueOutput(q_values=hk.Linear(2)(hidden))
        >>> network = networks.compose(encode, value, draws=False)
        >>> params, state = network.init(jax.random.key(0), jnp.zeros([1, 4]))
        >>> sorted(params)
        ['head/linear', 'torso/batch_norm', 'torso/linear']
        >>> features, state = network.encode(params, state, None, jnp.ones([8, 4]), True)
        >>> output, state = network.value(params, state, None, features, jnp.ones([8, 4]), True)
        >>> output.q_values.shape
        (8, 2)
    """

    def encode_in_scope(observation: jax.Array, is_training: bool) -> jax.Array:
        with hk.name_scope("torso"):
            features = encode(observation, is_training)
        _check_features(features, observation)
        return features

    def value_in_scope(hidden: jax.Array, observation: jax.Array, is_training: bool) -> ValueOutput:
        with hk.name_scope("head"):
            output = value(hidden, observation, is_training)
        return check_output(output, hidden.shape[0])

    def predict_in_scope(hidden: jax.Array, actions: jax.Array) -> jax.Array:
        assert predict is not None
        with hk.name_scope("transition"):
            predictions = predict(hidden, actions)
        _check_predictions(predictions, hidden, actions)
        return predictions

    return assemble(encode_in_scope, value_in_scope, core, draws, predict and predict_in_scope)


def assemble(
    encode: Encode,
    value: Value,
    core: Core | None,
    draws: bool,
    predict: Predict | None = None,
    projection: Projection | None = None,
) -> Network:
    """Build a network from Haiku functions whose modules have distinct names."""
    predictor = None if projection is None else projection.predictor

    def functions() -> tuple[Callable[..., ValueOutput], Any]:
        def run(observation: jax.Array) -> ValueOutput:
            hidden = encode(observation, True)
            if core is not None:
                batch = hidden.shape[0]
                a_tm1, r_tm1, first = (
                    jnp.zeros([batch, 1], jnp.int32),
                    jnp.zeros([batch, 1]),
                    jnp.ones([batch, 1], bool),
                )
                hidden = core.unroll(hidden[:, None], a_tm1, r_tm1, first, core.initial_state(batch))[0][:, 0]
            output = value(hidden, observation, True)
            if predict is not None:
                predict(hidden, jnp.zeros([hidden.shape[0], 1], jnp.int32))
            if projection is not None:
                projection.predictor(jnp.zeros([1, projection.size]))
            return output

        return run, (encode, None if core is None else core.unroll, value, predict, predictor)

    transformed = hk.multi_transform_with_state(functions)
    apply_encode, apply_core, apply_value, apply_predict, apply_predictor = transformed.apply

    def unroll(params: Any, *inputs: Any) -> tuple[jax.Array, Any]:
        out: tuple[jax.Array, Any] = apply_core(params, {}, None, *inputs)[0]
        return out

    def predicted(params: Any, hidden: jax.Array, actions: jax.Array) -> jax.Array:
        out: jax.Array = apply_predict(params, {}, None, hidden, actions)[0]
        if projection is not None:
            out = apply_predictor(params, {}, None, projection.project(params, out))[0]
        return out

    return Network(
        init=transformed.init,
        encode=apply_encode,
        core=None if core is None else unroll,
        value=apply_value,
        initial_recurrent_state=(lambda batch: ()) if core is None else core.initial_state,
        draws=draws,
        predict=None if predict is None else predicted,
        project=None if projection is None else projection.project,
    )


class Applied(NamedTuple):
    """Result of :func:`apply`.

    Attributes:
        output: Value output.
        state: Module state.
        recurrent_state: Recurrent state; ``()`` without a core.
        hidden: Input of the head, ``[B, H]``.
    """

    output: ValueOutput
    state: Any
    recurrent_state: Any
    hidden: jax.Array


def apply(
    network: Network,
    params: Any,
    state: Any,
    key: jax.Array | None,
    observation: jax.Array,
    is_training: bool,
    core: Callable[[jax.Array], tuple[jax.Array, Any]] | None = None,
) -> Applied:
    """Compute the values of observations: encode, core, value.

    Args:
        network: Network.
        params: Parameters.
        state: Module state.
        key: Random key, consumed; None for no random numbers.
        observation: Observations ``[B, ...]``.
        is_training: Whether module state is updated.
        core: Function from features ``[B, D]`` to ``(hidden [B, H], recurrent_state)``: the core of the network bound
            to its other inputs. None without a core.

    >>> import jax, jax.numpy as jnp
    >>> from polyak import networks
    >>> network = networks.make_network(2, torso="mlp", hidden_sizes=(16,))
    >>> params, state = network.init(jax.random.key(0), jnp.zeros([1, 4]))
    >>> applied = apply(network, params, state, None, jnp.zeros([8, 4]), False)
    >>> applied.output.q_values.shape, applied.hidden.shape
    ((8, 2), (8, 16))
    """
    # Haiku uses split(key), which equals fold_in(key, 0) and fold_in(key, 1), so the key of the encoder is fold_in 2.
    encode_key = None if key is None else jax.random.fold_in(key, 2)
    features, state = network.encode(params, state, encode_key, observation, is_training)
    hidden, recurrent_state = (features, ()) if core is None else core(features)
    output, state = network.value(params, state, key, hidden, observation, is_training)
    return Applied(output, state, recurrent_state, hidden)


def from_haiku(transformed: hk.Transformed | hk.TransformedWithState, *, draws: bool = True) -> Network:
    """Convert a Haiku transform from observations to action values to a network.

    ``encode`` returns the observation, and ``value`` applies the transform to it; ``is_training`` is not read. Use
    :func:`compose` for a network that behaves differently in training.

    Args:
        transformed: Result of ``hk.transform``, with ``apply(params, key, observation) -> ValueOutput``, or of
            ``hk.transform_with_state``, with ``apply(params, state, key, observation) -> (ValueOutput, state)``.
        draws: Whether ``apply`` reads its key. The key is None in evaluation.

    Returns:
        Network without a core.

    Raises:
        TypeError: If ``transformed`` is of another type; from ``value``, if ``apply`` does not return a
            ``ValueOutput``.
        ValueError: From ``value``, if the values are not ``[B, A]``.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> mlp = hk.transform(lambda observation: networks.ValueOutput(hk.nets.MLP([16, 2])(observation)))
        >>> network = networks.from_haiku(mlp, draws=False)
        >>> params, state = network.init(jax.random.key(0), jnp.zeros([1, 4]))
        >>> features, state = network.encode(params, state, None, jnp.zeros([8, 4]), False)
        >>> output, state = network.value(params, state, None, features, jnp.zeros([8, 4]), False)
        >>> output.q_values.shape
        (8, 2)
    """
    if isinstance(transformed, hk.Transformed):
        transformed = _with_empty_state(transformed)
    if not isinstance(transformed, hk.TransformedWithState):
        raise TypeError(
            f"transformed: got a {type(transformed).__name__}; expected the result of hk.transform or "
            "hk.transform_with_state. Apply one of them to your function first."
        )

    def encode(params: Any, state: Any, key: Any, observation: jax.Array, is_training: bool) -> tuple[jax.Array, Any]:
        del params, key, is_training
        return observation, state

    def value(
        params: Any, state: Any, key: Any, hidden: jax.Array, observation: jax.Array, is_training: bool
    ) -> tuple[ValueOutput, Any]:
        del observation, is_training
        output, state = transformed.apply(params, state, key, hidden)
        return check_output(output, hidden.shape[0]), state

    return Network(transformed.init, encode, None, value, lambda batch: (), draws)


def _with_empty_state(transformed: hk.Transformed) -> hk.TransformedWithState:
    """Add an empty module state; unlike ``hk.with_empty_state``, for a function that is transformed already."""

    def init(key: Any, observation: jax.Array) -> tuple[Any, Any]:
        return transformed.init(key, observation), {}

    def apply(params: Any, state: Any, key: Any, observation: jax.Array) -> tuple[Any, Any]:
        return transformed.apply(params, key, observation), state

    return hk.TransformedWithState(init, apply)


def support(state: Any) -> jax.Array | None:
    """Range of returns in the module state, ``[2]`` float32.

    Args:
        state: Module state of a network.

    Returns:
        ``[v_min, v_max]``, zeros before :func:`set_support`. None if the network was built with a fixed range, or has
        no atoms.

    Example:
        >>> from polyak import networks
        >>> networks.support(networks.set_support({"head": {"support": jnp.zeros(2)}}, -1.0, 5.0)).tolist()
        [-1.0, 5.0]
        >>> networks.support(()) is None
        True
    """
    modules = state.values() if isinstance(state, Mapping) else ()
    found = (leaves["support"] for leaves in modules if isinstance(leaves, Mapping) and "support" in leaves)
    return next(found, None)


def set_support(state: Any, v_min: Any, v_max: Any) -> Any:
    """Set the range of returns that defines the atoms of a categorical or hl_gauss head.

    Args:
        state: Module state of a network built with ``v_min=None, v_max=None``.
        v_min: Lowest return, a scalar.
        v_max: Highest return, a scalar above ``v_min``.

    Returns:
        Module state with the new range.

    Raises:
        ValueError: If the state has no range, or ``v_min`` and ``v_max`` are numbers and not ascending.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> network = networks.make_network(
        ...     2, torso="mlp", hidden_sizes=(8,), head="categorical", num_atoms=3, v_min=None, v_max=None
        ... )
        >>> params, state = network.init(jax.random.key(0), jnp.zeros([1, 4]))
        >>> state = networks.set_support(state, 0.0, 8.0)
        >>> output, _ = network.value(params, state, None, jnp.zeros([1, 8]), jnp.zeros([1, 4]), False)
        >>> output.atoms.tolist()
        [0.0, 4.0, 8.0]
    """
    if support(state) is None:
        raise ValueError(
            f"state: got modules {sorted(state)} without a support; expected one. Build the network with head="
            "'categorical' or 'hl_gauss', v_min=None and v_max=None."
        )
    if isinstance(v_min, int | float) and isinstance(v_max, int | float) and not v_min < v_max:
        raise ValueError(f"v_min: got {v_min}; expected less than v_max, {v_max}. Give the range of the returns.")
    bounds = jnp.stack([jnp.asarray(bound, jnp.float32) for bound in (v_min, v_max)])

    def replace(leaves: Mapping[str, Any]) -> dict[str, Any]:
        return {name: bounds if name == "support" else leaf for name, leaf in leaves.items()}

    return {module: replace(leaves) for module, leaves in state.items()}


def check_output(output: Any, batch: int) -> ValueOutput:
    """Return the output of a value function; raise unless it is a ``ValueOutput`` with values ``[B, A]``."""
    if not isinstance(output, ValueOutput):
        raise TypeError(
            f"value: got a {type(output).__name__} from the network; expected a ValueOutput. Return "
            "ValueOutput(q_values=...) with action values [B, A]."
        )
    shape = jnp.shape(output.q_values)
    if len(shape) != 2 or shape[0] != batch:
        raise ValueError(
            f"value: got q_values of shape {shape}; expected [B, A] with B = {batch}. Return one value of each action "
            "for each row."
        )
    return output


def _check_features(features: Any, observation: jax.Array) -> None:
    shape, batch = jnp.shape(features), observation.shape[0]
    if len(shape) != 2 or shape[0] != batch:
        raise ValueError(
            f"encode: got features of shape {shape}; expected [B, D] with B = {batch}. Flatten them, for example with "
            "hk.Flatten()."
        )


def _check_predictions(predictions: Any, hidden: jax.Array, actions: jax.Array) -> None:
    expected = (*actions.shape, hidden.shape[-1])
    if jnp.shape(predictions) != expected:
        raise ValueError(
            f"predict: got predictions of shape {jnp.shape(predictions)}; expected [B, K, H], {expected}, the features "
            "after each action. See polyak.networks.unroll_transition."
        )
