"""Types shared by environments, agents and replays: NamedTuples of arrays, and the interface of a replay.

In the shapes, ``N`` is the number of environments, ``A`` of actions, ``B`` the batch and ``...`` the shape of one
observation. An action mask is True for each legal action; it is ``()`` where every action is always legal.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

Array = Any  # np.ndarray on the host, jax.Array on the device and under a trace
Tree = Any  # any pytree of arrays
State = Any  # the state of a replay, a pytree of arrays


class EnvironmentSpec(NamedTuple):
    """Description of an environment, from which agents and replays are made.

    Attributes:
        observation: ``jax.ShapeDtypeStruct``, shape and dtype of one observation as it is stored, without a batch
            axis: uint8 stays uint8, other numbers become float32, an element of a ``Discrete`` space a one-hot vector.
        num_actions: Number of actions; actions are counted from 0.
        action_mask: Whether an action mask comes with every observation.
    """

    observation: Any
    num_actions: int
    action_mask: bool = False


class TimeStep(NamedTuple):
    """Input of an agent that must act.

    Attributes:
        observation: ``[N, ...]``, current observation, after a reset where an episode has just ended.
        reward: ``[N]`` float32, reward that came with it; 0 at the first step of an episode.
        first: ``[N]`` bool, whether the observation is the first of its episode (a recurrent agent resets there).
        action_mask: ``[N, A]`` bool, actions that are legal now; ``()`` where the spec has none.
        a_tm1: ``[N]`` int32, previous actions, arbitrary where ``first``; ``()`` for an agent without recurrent state.
    """

    observation: Array
    reward: Array
    first: Array
    action_mask: Array = ()
    a_tm1: Array = ()


class Step(NamedTuple):
    """One step of ``N`` environments, as it is added to a replay.

    Attributes:
        obs_tm1: ``[N, ...]``, observation before the action.
        a_tm1: ``[N]`` int32, action, counted from 0.
        r_t: ``[N]`` float32, reward.
        discount_t: ``[N]`` float32, continuation of the environment: 0 at termination, else 1 (truncation included).
        last: ``[N]`` bool, whether the episode ended with this step, by termination or by truncation.
        obs_t: ``[N, ...]``, true next observation: at the end of an episode its last one, never that of a reset.
        extras_tm1: tree of ``[N, ...]`` arrays that the agent keeps with the step, such as its recurrent state.
        action_mask_tm1: ``[N, A]`` bool, actions that were legal at ``obs_tm1``; ``()`` without masks.
        action_mask_t: ``[N, A]`` bool, actions that are legal at ``obs_t``; there may be none at a termination.
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
    """n-step transition, as the losses read it (``[B, ...]``, or unbatched inside a ``vmap``).

    With ``k`` the number of steps from the drawn one to the end of its window, ``r_t = sum_i discount**i * r_i`` and
    ``discount_t = discount**k * prod_i continuation_i`` (Sutton, 1988). A window has ``k = n`` steps unless its episode
    ends before: at a truncation it bootstraps from the true last observation, at a termination ``discount_t`` is 0. A
    window that reaches the newest step of its environment ends there and bootstraps from the newest observation.

    Attributes:
        obs_tm1: ``[B, ...]``, observation before the first action.
        a_tm1: ``[B]`` int32, first action.
        r_t: ``[B]`` float32, discounted sum of the rewards in the window.
        discount_t: ``[B]`` float32, factor of the bootstrap value.
        obs_t: ``[B, ...]``, observation to bootstrap from.
        extras_tm1: tree of ``[B, ...]`` arrays, kept with the first step of the window.
        action_mask_tm1: ``[B, A]`` bool, actions that are legal at ``obs_tm1``; ``()`` without masks.
        action_mask_t: ``[B, A]`` bool, actions that are legal at ``obs_t``; only these may be bootstrapped from.
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
    """Up to ``T`` consecutive steps of one episode, padded to ``T``.

    A step beyond the end of the episode, or beyond the newest step, is padding: ``valid`` is False, action, reward and
    discount are 0, and the last observation is repeated.

    Attributes:
        obs: ``[B, T+1, ...]``, observation before each action, and the one after the last step.
        a_tm1: ``[B, T]`` int32, action at each observation but the last.
        r_t: ``[B, T]`` float32, reward of each step.
        discount_t: ``[B, T]`` float32, discount of the agent; 0 for a step at which the environment terminated.
        valid: ``[B, T]`` bool, whether each step was taken, not padded; the first always is.
        first: ``[B]`` bool, whether the sequence begins with its episode (a recurrent agent resets there).
        complete: ``[B]`` bool, whether the sequence has all ``T`` steps or ends with its episode; False where later
            steps of the episode may still be added.
        extras: tree of ``[B, ...]`` arrays, kept with the first step, such as the recurrent state.
        action_mask: ``[B, T+1, A]`` bool, actions that are legal at each observation; ``()`` without masks.
        n_steps: ``[B]`` int32, number of steps over which a loss sums rewards within the sequence; ``()`` where no
            loss sums them.
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
    n_steps: Array = ()


class Sample(NamedTuple):
    """Batch that was drawn from a replay.

    Attributes:
        transition: drawn transitions, a ``Transition`` of ``[B, ...]``, or a ``Sequence``.
        weights: ``[B]`` float32 importance weights; ones where draws are uniform.
        rows: ``[B]`` integers that identify the drawn steps, for the update of their priorities.
        future: ``Sequence`` of the next ``K`` steps from the same rows, without extras; its ``obs[:, 0]`` is the
            observation that the transition starts from. ``()`` for a replay made with ``future=0``.
    """

    transition: Any
    weights: Array
    rows: Array
    future: Any = ()


class DrawNumbers(NamedTuple):
    """Numbers of a draw that may change during a run: Python or NumPy numbers on the host, or traced ones.

    Attributes:
        n_steps: Number of steps that a transition spans at most, or over which a loss sums within a sequence.
        discount: Discount of the agent for one step, in [0, 1].
        importance_exponent: Exponent of the importance weights, in [0, 1]; not read by a uniform replay.
    """

    n_steps: Any = 1
    discount: Any = 0.99
    importance_exponent: Any = 0.0


class Nbytes(NamedTuple):
    """Sizes of a replay in bytes.

    Attributes:
        memory: Number of bytes in memory.
        file: Number of bytes in the file of the observations; 0 without one.
    """

    memory: int
    file: int = 0


class Init(Protocol):
    """Interface of ``Replay.init``."""

    def __call__(self, *, reopen: bool = False) -> State:
        """Make an empty replay.

        Args:
            reopen: Whether to keep the observations in the file of an earlier replay of the same arguments; the caller
                restores the other arrays.

        Raises:
            ValueError: if the arrays exceed the memory that is available, or the observations the space on the disk; if
                the file's folder does not exist, or the file to reopen is missing or of another size.
        """


class Add(Protocol):
    """Interface of ``Replay.add``."""

    def __call__(self, state: State, step: Step, valid: Array | None = None) -> State:
        """Add one step of every environment; consumes ``state``.

        Within an episode ``obs_tm1`` must be the ``obs_t`` of the step before, because both are stored once. Where an
        environment was restarted in between, call ``end_episode`` first.

        Args:
            state: the replay.
            step: one step of all ``N`` environments; numbers may be wider than stored (float64 rewards).
            valid: ``[N]`` bool, whether each environment was stepped; other entries of ``step`` are ignored. None: all.

        Returns:
            The replay with the step; its ``obs_t`` can be drawn at once.

        Raises:
            TypeError: if a field is no array, or its dtype cannot be stored without changing its kind (float in uint8).
            ValueError: if a field's shape or the structure of the extras differs from what the replay was made for.
                Nothing has been written then.
        """


class Draw(Protocol):
    """Interface of ``Replay.sample``."""

    def __call__(self, key: Array, state: State, numbers: DrawNumbers) -> Sample:
        """Draw a batch with replacement, as fresh arrays; a function of its arguments alone.

        Draws are uniform, or proportional to priorities: ``P(i) = p_i / sum_j p_j``, one in each of ``B`` equal slices
        of the sum, with weight ``(N * P(i)) ** -importance_exponent`` for ``N`` steps, divided by the largest weight of
        its batch (Schaul et al., 2016, https://arxiv.org/abs/1511.05952, sections 3.3 and 3.4, appendix B.2.1). Where
        every priority is 0, draws are uniform.

        Args:
            key: ``[2]`` to ``[4]`` uint32 words, such as the raw data of the run's key followed by the learner step.
            state: the replay; unchanged, except that sums of priorities may be brought up to date in place.
            numbers: numbers of this draw.

        Returns:
            Transitions or sequences ``[B, ...]``, or ``[num_batches, B, ...]``.

        Raises:
            TypeError: if ``key`` is no array of uint32.
            ValueError: if the shape of ``key`` or a number is out of its range, or there is nothing to draw.
        """


class UpdatePriorities(Protocol):
    """Interface of ``Replay.update_priorities``."""

    def __call__(self, state: State, rows: Array, priorities: Array) -> State:
        """Set the priorities of drawn steps; consumes ``state``.

        The stored value is ``priority ** priority_exponent`` (Schaul et al., 2016, equation 1; ``0 ** 0`` is 1). A step
        that was overwritten since it was drawn is skipped. A step with priority 0 is not drawn any more, unless all
        priorities are 0.

        Args:
            state: a prioritized replay.
            rows: integers of any shape, ``Sample.rows`` of a draw.
            priorities: numbers of the same shape, such as absolute TD errors. The last one of repeated rows counts.

        Raises:
            TypeError: if ``rows`` are no integers.
            ValueError: if a priority is negative, not finite or too large to be summed, the shapes differ, or the
                replay is not prioritized. Nothing has been changed then.
        """


class EndEpisode(Protocol):
    """Interface of ``Replay.end_episode``."""

    def __call__(self, state: State, lanes: Array) -> State:
        """Close the current episode of some environments as truncated; consumes ``state``.

        For an environment that was restarted without an end of its episode: its newest observation becomes the true
        last one. Environments without a step in their current episode are unchanged.

        Args:
            state: the replay.
            lanes: ``[N]`` bool, whether to close each environment's episode.

        Raises:
            TypeError: if ``lanes`` is no bool array.
            ValueError: if it has another shape.
        """


class Replay(NamedTuple):
    """Replay as a value: pure functions of a state, with the hyper-parameters bound by a maker such as ``host.make``.

    Functions that consume a state may write into its arrays; use the state that they return.

    Attributes:
        init: function ``(reopen=False) -> state``.
        add: function ``(state, step, valid=None) -> state``.
        sample: function ``(key, state, numbers) -> Sample``.
        update_priorities: function ``(state, rows, priorities) -> state``.
        end_episode: function ``(state, lanes) -> state``.
        size: function ``(state) -> number of steps`` that can be drawn, over all environments.
        rewards: function ``(state) -> [R] float32``, rewards of these steps in no particular order.
        sample_spec: function ``() -> Sample`` of ``jax.ShapeDtypeStruct``, with the dtypes that a compiled program
            receives: JAX turns int64 into int32 where 64-bit types are off.
        nbytes: Sizes of the state in bytes.
    """

    init: Init
    add: Add
    sample: Draw
    update_priorities: UpdatePriorities
    end_episode: EndEpisode
    size: Callable[[State], Any]
    rewards: Callable[[State], Array]
    sample_spec: Callable[[], Sample]
    nbytes: Nbytes
