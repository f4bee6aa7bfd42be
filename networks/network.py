"""The network of every agent: functions over one tree of parameters and one tree of module state."""

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
    """Pure functions over one tree of parameters, ``params``, and one of module state, ``state``.

    An agent encodes observations, passes the features through the core where there is one, and reads values from the
    result, ``hidden``; without a core, ``hidden`` is the features. ``is_training`` is a Python bool. A key may be None:
    noisy layers then use their means, and an implicit-quantile head the midpoints.

    Attributes:
        init: ``init(key, observation) -> (params, state)``, from observations ``[B, ...]``.
        encode: ``encode(params, state, key, observation, is_training) -> (features, state)``, from observations
            ``[B, ...]`` to features ``[B, D]``.
        core: ``core(params, features, a_tm1, r_tm1, first, recurrent_state) -> (hidden, recurrent_state)``, from
            sequences ``[B, T, D]``, the actions ``[B, T]`` and rewards ``[B, T]`` that led to each observation, and
            whether an episode begins with it, ``[B, T]`` bool, to ``[B, T, H]``. None without a core.
        value: ``value(params, state, key, hidden, observation, is_training) -> (ValueOutput, state)``, from
            ``[B, H]``. The observation, ``[B, ...]``, is read by the fixed prior of an ensemble alone.
        initial_recurrent_state: ``initial_recurrent_state(batch)``, the recurrent state at the beginning of an episode;
            ``()`` without a core.
        draws: Whether ``encode`` or ``value`` reads its key.
        predict: ``predict(params, hidden, actions) -> predictions``, the ``hidden`` of the observations after each of
            the actions ``[B, K]``, from ``[B, H]`` to ``[B, K, H]``, or their projections, ``[B, K, P]``. None without
            a model of them.
        project: ``project(params, hidden) -> projections``, from ``[..., H]`` to ``[..., P]``, what predictions are
            compared with. None where that is ``hidden`` itself.
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

    ``init`` runs encode, core and value in this order. Modules of ``encode`` stand under ``torso``, those of ``value``
    under ``head``, as in the networks of :func:`make_network`, so that labels of parts apply to both. Module state,
    such as the averages of ``hk.BatchNorm``, is updated by ``encode`` and ``value``.

    Args:
        encode: ``encode(observation, is_training) -> features``, from ``[B, ...]`` of the environment's dtype to
            ``[B, D]``. Begin with :func:`scale_images` where observations are bytes or integers.
        value: ``value(hidden, observation, is_training) -> ValueOutput``, from ``[B, D]``, or ``[B, H]`` of the core.
        core: Recurrent core between the two, see :func:`lstm`.
        draws: Whether ``encode`` or ``value`` reads a key, with ``hk.maybe_next_rng_key``; the key is None where the
            agent is evaluated.
        predict: ``predict(hidden, actions) -> predictions``, from ``[B, H]`` and ``[B, K]`` to ``[B, K, H]``, for an
            agent with self-prediction; see :class:`LatentTransition`. Its modules stand under ``transition``.

    Returns:
        A ``Network``.

    Raises:
        TypeError: from the network's functions, if ``value`` returns something other than a ``ValueOutput``.
        ValueError: from the network's functions, if the features or values have other shapes.

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
    """Build a network from Haiku functions that name their modules apart."""
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
    """Values of observations, and what they were read from.

    Attributes:
        output: Values.
        state: Module state.
        recurrent_state: Recurrent state; ``()`` without a core.
        hidden: ``[B, H]``, what the values are read from.
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
    """Values of observations ``[B, ...]``: encode, core, value.

    Args:
        network: Network.
        params: Parameters.
        state: Module state.
        key: Consumed; None for no draws.
        observation: ``[B, ...]``.
        is_training: Whether module state is updated.
        core: ``features [B, D] -> (hidden [B, H], recurrent_state)``, the network's core bound to its other inputs;
            None without one.

    >>> import jax, jax.numpy as jnp
    >>> from polyak import networks
    >>> network = networks.make_network(2, torso="mlp", hidden_sizes=(16,))
    >>> params, state = network.init(jax.random.key(0), jnp.zeros([1, 4]))
    >>> applied = apply(network, params, state, None, jnp.zeros([8, 4]), False)
    >>> applied.output.q_values.shape, applied.hidden.shape
    ((8, 2), (8, 16))
    """
    # Haiku draws from split(key), which is fold_in(key, 0) and fold_in(key, 1): the encoder's key is neither.
    encode_key = None if key is None else jax.random.fold_in(key, 2)
    features, state = network.encode(params, state, encode_key, observation, is_training)
    hidden, recurrent_state = (features, ()) if core is None else core(features)
    output, state = network.value(params, state, key, hidden, observation, is_training)
    return Applied(output, state, recurrent_state, hidden)


def from_haiku(transformed: hk.Transformed | hk.TransformedWithState, *, draws: bool = True) -> Network:
    """Take a whole network of action values from Haiku.

    ``encode`` returns the observation, and ``value`` applies the network to it; ``is_training`` is not read. A network
    that behaves differently in training is written with :func:`compose`.

    Args:
        transformed: Result of ``hk.transform``, with ``apply(params, key, observation) -> ValueOutput``, or of
            ``hk.transform_with_state``, with ``apply(params, state, key, observation) -> (ValueOutput, state)``.
        draws: Whether ``apply`` reads its key; the key is None where the agent is evaluated.

    Returns:
        A ``Network`` without a core.

    Raises:
        TypeError: If ``transformed`` is something else; from ``value``, if ``apply`` returns something other than a
            ``ValueOutput``.
        ValueError: from ``value``, if the values are not ``[B, A]``.

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
            "hk.transform_with_state. Give a function of modules to one of them first."
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
    """Add an empty module state; ``hk.with_empty_state`` takes the result of ``hk.transform`` alone."""

    def init(key: Any, observation: jax.Array) -> tuple[Any, Any]:
        return transformed.init(key, observation), {}

    def apply(params: Any, state: Any, key: Any, observation: jax.Array) -> tuple[Any, Any]:
        return transformed.apply(params, key, observation), state

    return hk.TransformedWithState(init, apply)


def support(state: Any) -> jax.Array | None:
    """Range of returns that the module state holds, ``[2]`` float32.

    Returns:
        ``[v_min, v_max]``, zeros before :func:`set_support`; None where the network was built with numbers, or has no
        atoms.

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
    """Set the range of returns that a categorical or hl_gauss head takes its atoms from.

    Args:
        state: Module state of a network built with ``v_min=None, v_max=None``.
        v_min: Lowest return, a scalar.
        v_max: Highest return, a scalar above ``v_min``.

    Returns:
        The module state with the new range.

    Raises:
        ValueError: If the state holds no range, or ``v_min`` and ``v_max`` are numbers that are not ascending.

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
    """Return the output of a value function; raise unless it is a ``ValueOutput`` of ``[B, A]`` values."""
    if not isinstance(output, ValueOutput):
        raise TypeError(
            f"value: got a {type(output).__name__} from the network; expected a ValueOutput. Return "
            "ValueOutput(q_values=...) with the action values, [B, A]."
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
            f"predict: got predictions of shape {jnp.shape(predictions)}; expected [B, K, H], {expected}: the features "
            "after each action. See polyak.networks.unroll_transition."
        )
