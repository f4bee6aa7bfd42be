"""Recurrent cores between the torso and the head."""

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from ._checks import check_positive


class Core(NamedTuple):
    """Recurrent core of a network, in Haiku.

    Attributes:
        unroll: Haiku function ``(features, a_tm1, r_tm1, first, recurrent_state) -> (hidden, recurrent_state)`` from
            features ``[B, T, D]`` to hidden states ``[B, T, H]``, without module state and without random numbers.
            ``a_tm1`` and ``r_tm1``, ``[B, T]``, are the action and the reward before each observation; ``first``,
            ``[B, T]`` bool, marks the first observation of an episode.
        initial_state: Function from the batch size to the recurrent state at the beginning of an episode.
    """

    unroll: Callable[..., tuple[jax.Array, Any]]
    initial_state: Callable[[int], Any]


def lstm(num_actions: int, size: int) -> Core:
    """LSTM over features, last actions and last rewards.

    The input of the LSTM is the features, the last action as a one-hot vector and the last reward. At the first step of
    an episode, last action and last reward are zero and the recurrent state is reset. The parameters have the path
    prefix ``lstm``.

    Reference:
        Kapturowski et al., "Recurrent experience replay in distributed reinforcement learning", ICLR 2019, section 2.3.

    Args:
        num_actions: Number of actions ``A``, at least 1.
        size: Number of units, at least 1.

    Returns:
        Core whose recurrent state is an ``hk.LSTMState`` of two ``[B, size]`` float32 arrays, initialized to zeros.

    Raises:
        TypeError: If a number is not an integer.
        ValueError: If a number is below 1; from ``unroll``, if the shapes of the inputs do not match.

    Example:
        >>> from polyak import networks
        >>> networks.lstm(num_actions=2, size=8).initial_state(3).hidden.shape
        (3, 8)
    """
    check_positive("num_actions", num_actions)
    check_positive("lstm_size", size)

    def unroll(
        features: jax.Array, a_tm1: jax.Array, r_tm1: jax.Array, first: jax.Array, recurrent_state: hk.LSTMState
    ) -> tuple[jax.Array, hk.LSTMState]:
        _check_shapes(features.shape[:2], a_tm1, r_tm1, first)
        _check_recurrent_state((features.shape[0], size), recurrent_state)
        starts = first[..., None]
        last_action = jnp.where(starts, 0.0, jax.nn.one_hot(a_tm1, num_actions))
        last_reward = jnp.where(starts, 0.0, r_tm1[..., None].astype(jnp.float32))
        inputs = jnp.concatenate([features, last_action, last_reward], axis=-1)
        core = hk.ResetCore(hk.LSTM(size, name="lstm"))
        out: tuple[jax.Array, hk.LSTMState] = hk.dynamic_unroll(
            core, (inputs, first), recurrent_state, time_major=False
        )
        return out

    def initial_state(batch: int) -> hk.LSTMState:
        return hk.LSTMState(hidden=jnp.zeros([batch, size]), cell=jnp.zeros([batch, size]))

    return Core(unroll, initial_state)


def _check_shapes(expected: tuple[int, ...], *arrays: jax.Array) -> None:
    for field, array in zip(("a_tm1", "r_tm1", "first"), arrays, strict=True):
        if array.shape != expected:
            raise ValueError(
                f"{field}: got shape {array.shape}; expected [B, T], {expected}, like the features. Pass one entry "
                "for each of them."
            )


def _check_recurrent_state(expected: tuple[int, int], recurrent_state: hk.LSTMState) -> None:
    for leaf in recurrent_state:
        if leaf.shape != expected:
            raise ValueError(
                f"recurrent_state: got shape {leaf.shape}; expected [B, lstm_size], {expected}. Start with "
                "initial_recurrent_state(B)."
            )
