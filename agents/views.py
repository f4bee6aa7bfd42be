"""Views: outputs of the online and target networks on a sample, computed once for all terms of a loss."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..networks import Network, ValueOutput
from ..networks.network import apply
from ..replay.types import Sample, Sequence, Transition
from ..updates import Variables
from .config import SelfPrediction
from .latents import predict_latents
from .types import ENCODER, MAIN_TARGET, Outputs, Steps, Views

Array = Any
Tree = Any


def look(
    network: Network,
    key: jax.Array,
    online: Variables,
    targets: Mapping[str, Variables],
    own_state: frozenset[str],
    sample: Sample,
    burn_in: int,
    prediction: SelfPrediction | None = None,
    online_bootstrap: bool = False,
) -> tuple[Views, Tree, dict[str, Tree]]:
    """Compute the views of a sample.

    The online network is in training mode on the observations acted on, which updates its module state; on other
    observations it uses the stored averages of its module state. A target network uses stored averages too, unless it
    is in ``own_state``. All target networks use the same random draws.

    Args:
        network: Network of the agent.
        key: Random key, consumed.
        online: Online parameters and module state.
        targets: Mapping from name to the parameters and module state of a target.
        own_state: Names of the targets whose module state comes from their own forward pass.
        sample: Transitions or sequences.
        burn_in: Number of burn-in steps of a sequence, which only update the recurrent state.
        prediction: Self-prediction; its target is ``encoder``, or the main target if there is no ``encoder``.
        online_bootstrap: Whether the online network provides the bootstrap targets. Its outputs ``t`` and ``t_again``
            then have different random draws.

    Returns:
        Views, online module state after the forward pass, and mapping from name to module state of ``own_state``.

    Raises:
        ValueError: if the network has a recurrent core and the sample has transitions, or if self-prediction does not
            find its future steps in the sample.
    """
    key_tm1, key_t, key_again, key_target = jax.random.split(key, 4)
    steps, end = steps_of(sample, burn_in)
    found, states, hidden = {}, {}, {}
    for name, variables in targets.items():
        if name != ENCODER:
            seen, training = (variables, sample, end, burn_in), name in own_state
            found[name], states[name], hidden[name] = _outputs(network, [key_target, key_t, key_again], *seen, training)
    keys = [key_tm1, key_t if online_bootstrap else key_again, key_again]
    outputs, state, features = _outputs(network, keys, online, sample, end, burn_in, True)
    latents: Any = ()
    if prediction is not None:
        length = steps.a_tm1.shape[1]
        slow = targets.get(ENCODER, targets[MAIN_TARGET]) if prediction.stop_gradient else online
        wanted = features if not prediction.stop_gradient else hidden[MAIN_TARGET]
        # The main target's pass is reused if it had no noise and was not in training mode.
        is_other = ENCODER in targets or network.draws or MAIN_TARGET in own_state
        if isinstance(sample.transition, Sequence) and prediction.stop_gradient and is_other:
            wanted = _unroll_hidden(network, slow, sample.transition, burn_in)
        latents = predict_latents(prediction, network, online, slow, sample, features[:, :length], wanted, steps.learns)
    found = jax.tree.map(jax.lax.stop_gradient, found)
    views = Views(sample, steps, outputs, found, online, latents)
    return views, state, {name: states[name] for name in own_state}


def values_tm1(network: Network, variables: Variables, sample: Sample, burn_in: int) -> ValueOutput:
    """Compute the values ``[B, T, ...]`` of the observations acted on, in evaluation mode and without noise."""
    _, end = steps_of(sample, burn_in)
    return _outputs(network, [None, None, None], variables, sample, end, burn_in, False)[0].tm1


def features_tm1(network: Network, variables: Variables, sample: Sample, burn_in: int) -> tuple[Array, Array]:
    """Compute the features of the observations acted on, without noise.

    Returns:
        Features ``[B * T, H]``, and ``[B * T]`` bool, whether a step is learnt from.
    """
    learns, drawn = steps_of(sample, burn_in)[0].learns, sample.transition
    if isinstance(drawn, Sequence):
        features = _unroll_hidden(network, variables, drawn, burn_in)[:, :-1]
    else:
        features = network.encode(*variables, None, drawn.obs_tm1, False)[0]
    return features.reshape(learns.size, -1), learns.reshape(-1)


def steps_of(sample: Sample, burn_in: int) -> tuple[Steps, Array]:
    """Return the steps of a sample and the index of the observation to bootstrap each step from.

    Returns:
        Steps, and ``[B, T]`` int32, indices of observations in a sequence; ``()`` for transitions, which have only one
        observation to bootstrap from.
    """
    if isinstance(sample.transition, Sequence):
        return _sequence_steps(sample.transition, burn_in)
    t: Transition = sample.transition
    masks = [mask if isinstance(mask, tuple) else mask[:, None] for mask in (t.action_mask_tm1, t.action_mask_t)]
    learns = jnp.ones((len(t.a_tm1), 1), bool)
    return Steps(t.a_tm1[:, None], t.r_t[:, None], t.discount_t[:, None], learns, *masks), ()


def n_step_windows(r_t: Array, discount_t: Array, valid: Array, n_steps: Array) -> tuple[Array, Array, Array]:
    """Sum the rewards of the n-step window that begins at each step of a sequence, as the replay does for transitions.

    A window ends after ``n_steps`` steps, at the end of the episode or with the sequence, and is bootstrapped there.

    Args:
        r_t: ``[B, T]`` float32, rewards.
        discount_t: ``[B, T]`` float32, discounts; 0 at a termination.
        valid: ``[B, T]`` bool, False for padding, which comes last.
        n_steps: ``[B]`` int32, number of steps of a window, at least 1.

    Returns:
        Discounted sums of rewards, products of discounts, and int32 indices of the observations at which the windows
        end, each ``[B, T]``.

    >>> r_t, discount_t, valid = jnp.ones((1, 3)), jnp.full((1, 3), 0.5), jnp.ones((1, 3), bool)
    >>> [found.tolist() for found in n_step_windows(r_t, discount_t, valid, jnp.array([2]))]
    [[[1.5, 1.5, 1.0]], [[0.25, 0.25, 0.5]], [[2, 3, 3]]]
    """
    r_t, discount_t = jnp.asarray(r_t), jnp.asarray(discount_t)  # a traced number indexes them in the loop below
    length = r_t.shape[-1]
    steps = jnp.arange(length, dtype=jnp.int32)
    count = jnp.sum(valid, axis=-1, dtype=jnp.int32)
    end = jnp.minimum(steps[None] + n_steps[:, None].astype(jnp.int32), count[:, None])

    def extend(step: Array, window: tuple[Array, Array]) -> tuple[Array, Array]:
        total, factor = window
        at = jnp.minimum(steps + step, length - 1)
        inside = (steps + step)[None] < end
        total = jnp.where(inside, total + factor * r_t[:, at], total)
        return total, jnp.where(inside, factor * discount_t[:, at], factor)

    begin = (jnp.zeros_like(r_t), jnp.ones_like(discount_t))
    total, factor = jax.lax.fori_loop(0, jnp.max(n_steps), extend, begin)
    return total, factor, jnp.maximum(end, 0)


def _sequence_steps(sequence: Sequence, burn_in: int) -> tuple[Steps, Array]:
    r_t, discount_t, end = n_step_windows(sequence.r_t, sequence.discount_t, sequence.valid, sequence.n_steps)
    numbers = jnp.broadcast_to(jnp.arange(sequence.valid.shape[-1])[None], sequence.valid.shape)
    learns = sequence.valid & ((numbers >= burn_in) | sequence.first[:, None])
    masks: tuple[Array, ...] = ((), ())
    if not isinstance(sequence.action_mask, tuple):
        masks = (sequence.action_mask[:, :-1], _gather(sequence.action_mask, end))
    return Steps(sequence.a_tm1, r_t, discount_t, learns, *masks), end


def _outputs(
    network: Network, keys: list[Any], variables: Variables, sample: Sample, end: Array, burn_in: int, training: bool
) -> tuple[Outputs, Tree, Array]:
    """Compute a network's outputs on a sample, its module state after the observations acted on, and features.

    The features are those of the observations acted on for transitions, ``[B, 1, H]``, and of all observations for
    sequences, ``[B, T + 1, H]``.
    """
    key_tm1, key_t, key_again = keys
    if isinstance(sample.transition, Sequence):
        every, state, hidden = _unroll(network, key_tm1, variables, sample.transition, burn_in, training)
        again = every
        if network.draws and key_again is not None:
            again = _unroll(network, key_again, variables, sample.transition, burn_in, False)[0]
        tm1 = _map_batched(lambda leaf: leaf[:, :-1], every)
        t, t_again = (_map_batched(lambda leaf: _gather(leaf, end), output) for output in (every, again))
        return Outputs(tm1, t, t_again), state, hidden
    if network.core is not None:
        raise ValueError(
            "sample: got a Transition, but the network has a recurrent core; expected a Sequence, over which the core "
            "is unrolled. Draw sequences, with windows='sequences', or set core to 'none'."
        )
    transition: Transition = sample.transition
    tm1, state, _, hidden = apply(network, *variables, key_tm1, transition.obs_tm1, training)
    t = apply(network, *variables, key_t, transition.obs_t, False)[0]
    again = t
    if network.draws and key_again is not key_t:
        again = apply(network, *variables, key_again, transition.obs_t, False)[0]
    return (
        Outputs(*(_map_batched(lambda leaf: leaf[:, None], output) for output in (tm1, t, again))),
        state,
        hidden[:, None],
    )


def _unroll(
    network: Network, key: Any, variables: Variables, sequence: Sequence, burn_in: int, training: bool
) -> tuple[ValueOutput, Tree, Array]:
    """Compute the values ``[B, T + 1, ...]`` of all observations, the module state, and the features ``[B, T + 1, H]``.

    The gradient through the core stops at the end of the burn-in.
    """
    batch, length = sequence.obs.shape[:2]
    observation = sequence.obs.reshape(batch * length, *sequence.obs.shape[2:])

    def unroll(features: Array) -> tuple[Array, Tree]:
        hidden = _unroll_core(network, variables.params, features.reshape(batch, length, -1), sequence, burn_in)
        return hidden.reshape(batch * length, -1), ()

    core = None if network.core is None else unroll
    output, state, _, hidden = apply(network, *variables, key, observation, training, core)
    values = _map_batched(lambda leaf: leaf.reshape(batch, length, *leaf.shape[1:]), output)
    return values, state, hidden.reshape(batch, length, -1)


def _unroll_hidden(network: Network, variables: Variables, sequence: Sequence, burn_in: int) -> Array:
    """Compute the features ``[B, T + 1, H]`` of all observations, without values and without noise."""
    batch, length = sequence.obs.shape[:2]
    observation = sequence.obs.reshape(batch * length, *sequence.obs.shape[2:])
    features = network.encode(*variables, None, observation, False)[0].reshape(batch, length, -1)
    return features if network.core is None else _unroll_core(network, variables.params, features, sequence, burn_in)


def _unroll_core(network: Network, params: Tree, features: Array, sequence: Sequence, burn_in: int) -> Array:
    kept: Any = sequence.extras
    a_tm1 = jnp.concatenate([kept.a_tm1[:, None], sequence.a_tm1], axis=1)
    r_tm1 = jnp.concatenate([kept.r_tm1[:, None], sequence.r_t], axis=1)
    first = jnp.zeros(a_tm1.shape, bool).at[:, 0].set(sequence.first)
    inputs, core = (features, a_tm1, r_tm1, first), network.core
    assert core is not None
    if not burn_in:
        hidden: Array = core(params, *inputs, kept.core)[0]
        return hidden
    burnt_in, state = core(params, *(leaf[:, :burn_in] for leaf in inputs), kept.core)
    hidden, _ = core(params, *(leaf[:, burn_in:] for leaf in inputs), jax.lax.stop_gradient(state))
    return jnp.concatenate([burnt_in, hidden], axis=1)


def _gather(leaf: Array, end: Array) -> Array:
    """Index ``[B, T + 1, ...]`` with observation indices ``[B, T]``."""
    return jnp.take_along_axis(leaf, end.reshape(*end.shape, *[1] * (leaf.ndim - 2)), axis=1)


def _map_batched(function: Any, output: ValueOutput) -> ValueOutput:
    """Map over every field but the atoms, which all rows share."""
    fields = {name: leaf for name, leaf in output._asdict().items() if name != "atoms"}
    return output._replace(**jax.tree.map(function, fields))
