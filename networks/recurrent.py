"""A network of action values with a memory: torso, LSTM and head, applied to a step or to whole sequences."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from ._checks import check_positive
from .conv import Lowering
from .dense import Activation
from .heads import DuelingHead, LinearHead, ValueOutput, plain_output
from .torsos import TorsoName, make_torso, scale_images
from .value_networks import check_network


class RecurrentNetwork(NamedTuple):
    """Four pure functions over the same parameters; ``memory`` is an ``hk.LSTMState`` of two ``[B, lstm_size]``.

    Attributes:
        init: ``init(key, observation) -> params``, from observations ``[B, ...]``.
        apply: ``apply(params, observation, a_tm1, r_tm1, first, memory) -> (ValueOutput, memory)``, one step of ``B``
            environments: their observations ``[B, ...]``, the actions ``[B]`` and rewards ``[B]`` that led to them,
            and where an episode begins, ``[B]`` bool. There the memory is reset, and action and reward are not read.
        unroll: the same of sequences: ``[B, T, ...]``, ``[B, T]``, ``[B, T]``, ``[B, T]`` and the memory before the
            first step, to values ``[B, T, A]`` and the memory after the last.
        initial_memory: ``initial_memory(batch) -> memory`` of zeros.
    """

    init: Callable[[jax.Array, jax.Array], Any]
    apply: Callable[..., tuple[ValueOutput, hk.LSTMState]]
    unroll: Callable[..., tuple[ValueOutput, hk.LSTMState]]
    initial_memory: Callable[[int], hk.LSTMState]


def recurrent_value_network(
    num_actions: int,
    *,
    torso: TorsoName,
    hidden_sizes: Sequence[int],
    activation: Activation = "relu",
    dueling: bool = False,
    lstm_size: int = 512,
    lowering: Lowering = "convolution",
) -> RecurrentNetwork:
    """Builds the network of R2D2: observations through a torso, an LSTM and a head of plain action values.

    The LSTM sees the torso's features, the last action as a one-hot vector and the last reward, both of them zero at
    the first step of an episode. With ``dueling`` each stream of the head has a hidden layer of ``hidden_sizes[-1]``.
    The parameters stand under ``torso``, ``lstm`` and ``head``. In sequences, the torso and the head see all steps at
    once, and the LSTM alone runs in a loop.

    Reference:
        Kapturowski et al., "Recurrent experience replay in distributed reinforcement learning", ICLR 2019.

    Args:
        num_actions: number of actions ``A``, at least 1.
        torso: see ``make_torso``.
        hidden_sizes: units of each dense layer of the torso, one or more.
        activation: name of the activation of the dense layers, see ``activation_fn``.
        dueling: whether the head has a stream for the value and one for the advantages, see ``DuelingHead``.
        lstm_size: units of the LSTM, at least 1.
        lowering: how convolutions are computed, see ``Conv2D``.

    Returns:
        A ``RecurrentNetwork``; everything is float32, and nothing is drawn but the initial parameters.

    Raises:
        TypeError: if a number is no integer.
        ValueError: if one is below 1, ``hidden_sizes`` is empty, or a name is unknown; and from its functions, if the
            observation does not suit the torso, or shapes do not go together.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> network = networks.recurrent_value_network(2, torso="mlp", hidden_sizes=(16,), lstm_size=8)
        >>> params = network.init(jax.random.key(0), jnp.zeros([1, 4]))
        >>> sorted(params)
        ['head/q_values', 'lstm/linear', 'torso/mlp/~/linear_0']
        >>> memory = network.initial_memory(3)
        >>> a_tm1, r_tm1, first = jnp.zeros([3, 5], int), jnp.zeros([3, 5]), jnp.zeros([3, 5], bool)
        >>> out, memory = network.unroll(params, jnp.zeros([3, 5, 4]), a_tm1, r_tm1, first, memory)
        >>> out.q_values.shape, memory.hidden.shape
        ((3, 5, 2), (3, 8))
    """
    check_network(num_actions, torso, hidden_sizes, activation, lowering)
    check_positive("lstm_size", lstm_size)
    hidden = tuple(hidden_sizes)

    def forward(
        observation: jax.Array, a_tm1: jax.Array, r_tm1: jax.Array, first: jax.Array, memory: hk.LSTMState
    ) -> tuple[ValueOutput, hk.LSTMState]:  # of sequences, [B, T, ...]
        body = make_torso(torso, hidden_sizes=hidden, activation=activation, lowering=lowering)
        features = body(scale_images(observation.reshape(-1, *observation.shape[2:])))
        starts = first[..., None]
        last_action = jnp.where(starts, 0.0, jax.nn.one_hot(a_tm1, num_actions))
        last_reward = jnp.where(starts, 0.0, r_tm1[..., None].astype(jnp.float32))
        inputs = jnp.concatenate([features.reshape(*first.shape, -1), last_action, last_reward], axis=-1)
        core = hk.ResetCore(hk.LSTM(lstm_size, name="lstm"))
        hiddens, memory = hk.dynamic_unroll(core, (inputs, first), memory, time_major=False)
        layers = DuelingHead(num_actions, 1, hidden[-1:], activation) if dueling else LinearHead(num_actions)
        return plain_output(layers(hiddens)), memory

    net = hk.without_apply_rng(hk.transform(forward))

    def initial_memory(batch: int) -> hk.LSTMState:
        return hk.LSTMState(hidden=jnp.zeros([batch, lstm_size]), cell=jnp.zeros([batch, lstm_size]))

    def init(key: jax.Array, observation: jax.Array) -> Any:
        batch = observation.shape[0]
        a_tm1, r_tm1, first = jnp.zeros([batch, 1], jnp.int32), jnp.zeros([batch, 1]), jnp.ones([batch, 1], bool)
        return net.init(key, observation[:, None], a_tm1, r_tm1, first, initial_memory(batch))

    def unroll(
        params: Any, observation: jax.Array, a_tm1: jax.Array, r_tm1: jax.Array, first: jax.Array, memory: hk.LSTMState
    ) -> tuple[ValueOutput, hk.LSTMState]:
        _check_shapes("[B, T]", observation.shape[:2], a_tm1, r_tm1, first)
        _check_memory((observation.shape[0], lstm_size), memory)
        out: tuple[ValueOutput, hk.LSTMState] = net.apply(params, observation, a_tm1, r_tm1, first, memory)
        return out

    def apply(
        params: Any, observation: jax.Array, a_tm1: jax.Array, r_tm1: jax.Array, first: jax.Array, memory: hk.LSTMState
    ) -> tuple[ValueOutput, hk.LSTMState]:
        _check_shapes("[B]", observation.shape[:1], a_tm1, r_tm1, first)
        observation, a_tm1, r_tm1, first = (leaf[:, None] for leaf in (observation, a_tm1, r_tm1, first))
        out, memory = unroll(params, observation, a_tm1, r_tm1, first, memory)  # of sequences of one step
        return ValueOutput(q_values=out.q_values[:, 0]), memory

    return RecurrentNetwork(init, apply, unroll, initial_memory)


def _check_shapes(named: str, expected: tuple[int, ...], *arrays: jax.Array) -> None:
    for field, array in zip(("a_tm1", "r_tm1", "first"), arrays, strict=True):
        if array.shape != expected:
            raise ValueError(
                f"{field}: got shape {array.shape}; expected {named}, {expected}, as the observations have. Give one "
                "for each of them."
            )


def _check_memory(expected: tuple[int, int], memory: hk.LSTMState) -> None:
    for leaf in memory:
        if leaf.shape != expected:
            raise ValueError(
                f"memory: got shape {leaf.shape}; expected [B, lstm_size], {expected}. Start with initial_memory(B)."
            )
