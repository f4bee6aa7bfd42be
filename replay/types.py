"""The words in which environment, agent and replay talk: plain NamedTuples of arrays.

In the shapes, ``N`` is the number of environments, ``A`` of actions, ``B`` the batch and ``...`` the shape of one
observation. An action mask says which actions are legal, True where one is; it is ``()`` where all of them always are.
"""

from typing import Any, NamedTuple

Array = Any  # np.ndarray on the host, jax.Array on the device and under a trace
Tree = Any  # any pytree of arrays


class EnvironmentSpec(NamedTuple):
    """What an agent and a replay must know of an environment before its first step.

    Attributes:
        observation: a ``jax.ShapeDtypeStruct``: shape and dtype of one observation as it is stored, without a batch
            axis: uint8 stays uint8, other numbers become float32, an element of a ``Discrete`` space a one-hot vector.
        num_actions: the number of actions; actions are counted from 0.
        action_mask: whether an action mask comes with every observation.
    """

    observation: Any
    num_actions: int
    action_mask: bool = False


class TimeStep(NamedTuple):
    """What an agent sees when it must act.

    Attributes:
        observation: ``[N, ...]``, the current observation, after a reset where an episode has just ended.
        reward: ``[N]`` float32, the reward that came with it; 0 at the first step of an episode.
        first: ``[N]`` bool, whether it is the first of its episode (an agent with memory resets there).
        action_mask: ``[N, A]`` bool, which actions are legal now; ``()`` where the spec has none.
        a_tm1: ``[N]`` int32, the actions taken before, whatever they are where ``first``; ``()`` for an agent without
            memory.
    """

    observation: Array
    reward: Array
    first: Array
    action_mask: Array = ()
    a_tm1: Array = ()


class Step(NamedTuple):
    """One step of ``N`` environments, as it is added to a replay.

    Attributes:
        obs_tm1: ``[N, ...]``, the observation acted on.
        a_tm1: ``[N]`` int32, the action, counted from 0.
        r_t: ``[N]`` float32, the reward.
        discount_t: ``[N]`` float32, the environment's continuation: 0 at termination, else 1 (truncation included).
        last: ``[N]`` bool, whether the episode ended with this step, by termination or by truncation.
        obs_t: ``[N, ...]``, the true next observation: at the end of an episode its last one, never a reset's.
        extras_tm1: a tree of ``[N, ...]`` arrays that the agent wants kept with the step, such as its memory.
        action_mask_tm1: ``[N, A]`` bool, the actions that were legal at ``obs_tm1``; ``()`` without masks.
        action_mask_t: ``[N, A]`` bool, the same at ``obs_t``; at a termination there may be none.
    """

    obs_tm1: Array
    a_tm1: Array
    r_t: Array
    discount_t: Array
    last: Array
    obs_t: Array
    extras_tm1: Tree = ()
    action_mask_tm1: Array = ()
    action_mask_t: Array = ()


class Transition(NamedTuple):
    """A transition over one or more steps, as the losses read it (``[B, ...]``, or unbatched inside a ``vmap``).

    Attributes:
        obs_tm1: ``[B, ...]``, the observation acted on.
        a_tm1: ``[B]`` int32, the action.
        r_t: ``[B]`` float32, the sum of ``discount**i * r_{t+i}`` over the steps that the transition spans.
        discount_t: ``[B]`` float32, the factor of the bootstrap value: the agent's discount to the power of the
            number of steps, 0 when the environment terminated within them.
        obs_t: ``[B, ...]``, the observation to bootstrap from.
        extras_tm1: what the agent had kept with the first of the steps.
        action_mask_tm1: ``[B, A]`` bool, the actions that are legal at ``obs_tm1``; ``()`` without masks.
        action_mask_t: ``[B, A]`` bool, those that are legal at ``obs_t``, which alone may be bootstrapped from.
    """

    obs_tm1: Array
    a_tm1: Array
    r_t: Array
    discount_t: Array
    obs_t: Array
    extras_tm1: Tree = ()
    action_mask_tm1: Array = ()
    action_mask_t: Array = ()


class Sequence(NamedTuple):
    """Steps of one episode in a row, ``T`` of them or fewer, as losses over time read them.

    A step that would lie beyond the end of the episode, or that was not taken yet, is padding: there ``valid`` is
    False, actions, rewards and discounts are 0, and the observation is the last one again.

    Attributes:
        obs: ``[B, T+1, ...]``, the observations acted on, and the one after the last step.
        a_tm1: ``[B, T]`` int32, the action at each of them but the last.
        r_t: ``[B, T]`` float32, the reward of each step.
        discount_t: ``[B, T]`` float32, the agent's discount; 0 for a step with which the environment terminated.
        valid: ``[B, T]`` bool, whether it is a step and no padding; the first always is one.
        first: ``[B]`` bool, whether the sequence begins with its episode (an agent with memory begins anew there).
        complete: ``[B]`` bool, whether it has all of its steps or ends with its episode; else it will have more, once
            they are taken.
        extras: what the agent had kept with the first step, such as its memory.
        action_mask: ``[B, T+1, A]`` bool, the actions that are legal at each observation; ``()`` without masks.
    """

    obs: Array
    a_tm1: Array
    r_t: Array
    discount_t: Array
    valid: Array
    first: Array
    complete: Array
    extras: Tree = ()
    action_mask: Array = ()


class Sample(NamedTuple):
    """What is drawn from a replay.

    Attributes:
        transition: the drawn transitions, ``[B, ...]``, or a ``Sequence``.
        weights: ``[B]`` float32 importance weights; ones where rows are drawn uniformly.
        rows: ``[B]`` int64, which rows were drawn, for the update of their priorities.
    """

    transition: Any
    weights: Array
    rows: Array
