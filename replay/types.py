"""Types shared by environments, agents and replays: NamedTuples of arrays, and the interface of a replay.

In the shapes, ``N`` is the number of environments, ``A`` the number of actions, ``B`` the batch size and ``...`` the
shape of one observation. An action mask is True for each legal action; it is ``()`` if every action is always legal.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

Array = Any  # np.ndarray on the host, jax.Array on the device and under a trace
Tree = Any  # any pytree of arrays
State = Any  # state of a replay, a pytree of arrays


class EnvironmentSpec(NamedTuple):
    """Description of an environment, from which agents and replays are made.

    Attributes:
        observation: Shape and dtype of one stored observation without a batch axis, a ``jax.ShapeDtypeStruct``. uint8
            stays uint8, other numbers become float32, and an element of a ``Discrete`` space becomes a one-hot vector.
        num_actions: Number of actions; actions are counted from 0.
        action_mask: Whether every observation has an action mask.
    """

    observation: Any
    num_actions: int
    action_mask: bool = False


class TimeStep(NamedTuple):
    """Input of an agent's policy.

    Attributes:
        observation: Current observation ``[N, ...]``; after the end of an episode, the observation of the reset.
        reward: Reward before the observation, ``[N]`` float32; 0 at the first step of an episode.
        first: Whether the observation is the first of its episode, ``[N]`` bool; a recurrent agent resets its state.
        action_mask: Legal actions, ``[N, A]`` bool; ``()`` if the spec has no masks.
        a_tm1: Previous action, ``[N]`` int32, arbitrary if ``first``; ``()`` for an agent without recurrent state.
    """

    observation: Array
    reward: Array
    first: Array
    action_mask: Array = ()
    a_tm1: Array = ()


class Step(NamedTuple):
    """One step of ``N`` environments, the input of ``Replay.add``.

    Attributes:
        obs_tm1: Observation before the action, ``[N, ...]``.
        a_tm1: Action, ``[N]`` int32, counted from 0.
        r_t: Reward, ``[N]`` float32.
        discount_t: Continuation of the environment, ``[N]`` float32: 0 at termination, else 1, also at truncation.
        last: Whether the episode ended with this step, by termination or truncation, ``[N]`` bool.
        obs_t: True next observation, ``[N, ...]``: at the end of an episode its last observation, not that of a reset.
        extras_tm1: Tree of ``[N, ...]`` arrays that the agent stores with the step, for example its recurrent state.
        action_mask_tm1: Legal actions at ``obs_tm1``, ``[N, A]`` bool; ``()`` without masks.
        action_mask_t: Legal actions at ``obs_t``, ``[N, A]`` bool; all may be False at a termination.
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
    """n-step transition, input of the losses (``[B, ...]``, or without ``B`` inside ``vmap``).

    For a window of ``k`` steps, ``r_t = sum_i discount**i * r_i`` and ``discount_t = discount**k * prod_i
    continuation_i`` (Sutton, 1988). A window has ``k = n`` steps unless its episode ends earlier. At a truncation it
    bootstraps from the true last observation; at a termination ``discount_t`` is 0. A window that reaches the newest
    step of its environment ends there and bootstraps from the newest observation.

    Attributes:
        obs_tm1: Observation before the first action, ``[B, ...]``.
        a_tm1: First action, ``[B]`` int32.
        r_t: Discounted sum of the rewards in the window, ``[B]`` float32.
        discount_t: Factor of the bootstrap value, ``[B]`` float32.
        obs_t: Observation to bootstrap from, ``[B, ...]``.
        extras_tm1: Tree of ``[B, ...]`` arrays, stored with the first step of the window.
        action_mask_tm1: Legal actions at ``obs_tm1``, ``[B, A]`` bool; ``()`` without masks.
        action_mask_t: Legal actions at ``obs_t``, ``[B, A]`` bool; the bootstrap value uses only these.
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

    A step after the end of the episode, or after the newest step, is padding: ``valid`` is False, action, reward and
    discount are 0, and the last observation is repeated.

    Attributes:
        obs: Observation before each action, and the observation after the last step, ``[B, T+1, ...]``.
        a_tm1: Action at each observation except the last, ``[B, T]`` int32.
        r_t: Reward of each step, ``[B, T]`` float32.
        discount_t: Discount of the agent, ``[B, T]`` float32; 0 at a termination.
        valid: Whether each step is a step of the episode and not padding, ``[B, T]`` bool; always True for the first.
        first: Whether the sequence begins at the first step of its episode, ``[B]`` bool; a recurrent agent resets its
            state.
        complete: Whether the sequence has all ``T`` steps or ends with its episode, ``[B]`` bool; False if later steps
            of the episode may still be added.
        extras: Tree of ``[B, ...]`` arrays, stored with the first step, for example the recurrent state.
        action_mask: Legal actions at each observation, ``[B, T+1, A]`` bool; ``()`` without masks.
        n_steps: Number of steps of the n-step returns within the sequence, ``[B]`` int32; ``()`` if no loss computes
            them.
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
    """Batch sampled from a replay.

    Attributes:
        transition: Sampled transitions ``[B, ...]``, a ``Transition`` or a ``Sequence``.
        weights: Importance weights ``[B]`` float32; ones if sampling is uniform.
        rows: Integers ``[B]`` that identify the sampled steps, for ``Replay.update_priorities``.
        future: Future, a ``Sequence`` of the next ``K`` steps from the same rows, without extras;
            ``future.obs[:, 0]`` equals ``obs_tm1`` of the transition. ``()`` for a replay with ``future=0``.
    """

    transition: Any
    weights: Array
    rows: Array
    future: Any = ()


class DrawNumbers(NamedTuple):
    """Numbers of one sample that may change during a run; Python or NumPy numbers on the host, or traced numbers.

    Attributes:
        n_steps: Number of steps of an n-step transition, or of the n-step returns within a sequence.
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
        file: Number of bytes in the file of the observations; 0 without a file.
    """

    memory: int
    file: int = 0


class Init(Protocol):
    """Interface of ``Replay.init``."""

    def __call__(self, *, reopen: bool = False) -> State:
        """Make an empty replay.

        Args:
            reopen: Whether to keep the observations in the file of an earlier replay made with equal arguments; the
                caller restores the other arrays.

        Returns:
            State of the replay.

        Raises:
            ValueError: If the arrays exceed the available memory, the observations exceed the free space on the disk,
                the folder of the file does not exist, or the file to reopen is missing or of another size.
        """


class Add(Protocol):
    """Interface of ``Replay.add``."""

    def __call__(self, state: State, step: Step, valid: Array | None = None) -> State:
        """Add one step of every environment; consumes ``state``.

        Within an episode, ``obs_tm1`` must equal ``obs_t`` of the previous step, because the two are stored once. If an
        environment was restarted between two steps, call ``end_episode`` first.

        Args:
            state: State of the replay.
            step: One step of all ``N`` environments; dtypes may be wider than stored (float64 rewards).
            valid: Whether each environment was stepped, ``[N]`` bool; other entries of ``step`` are ignored. None if
                all were stepped.

        Returns:
            State of the replay with the step, whose ``obs_t`` can be sampled immediately.

        Raises:
            TypeError: If a field is not an array, or storing it would change the kind of its dtype (float in uint8).
            ValueError: If the shape of a field or the structure of the extras differs from that of the replay. The
                state is unchanged.
        """


class Draw(Protocol):
    """Interface of ``Replay.sample``."""

    def __call__(self, key: Array, state: State, numbers: DrawNumbers) -> Sample:
        """Sample a batch with replacement, as new arrays; the result depends only on the arguments.

        Sampling is uniform or proportional to priorities, ``P(i) = p_i / sum_j p_j``, with one sample in each of ``B``
        equal intervals of the sum. The importance weight is ``(N * P(i)) ** -importance_exponent`` for ``N`` steps,
        divided by the largest weight of the batch (Schaul et al., 2016, https://arxiv.org/abs/1511.05952, sections 3.3
        and 3.4, appendix B.2.1). If every priority is 0, sampling is uniform.

        Args:
            key: Words ``[2]`` to ``[4]`` uint32, for example the data of the run's key followed by the learner step.
            state: State of the replay; unchanged, except that stale sums of priorities may be recomputed in place.
            numbers: Numbers of this sample.

        Returns:
            Sample of transitions or sequences ``[B, ...]``, or ``[num_batches, B, ...]``.

        Raises:
            TypeError: If ``key`` is not an array of uint32.
            ValueError: If ``key`` has another shape, a number is out of range, or the replay has no steps to sample.
        """


class UpdatePriorities(Protocol):
    """Interface of ``Replay.update_priorities``."""

    def __call__(self, state: State, rows: Array, priorities: Array) -> State:
        """Set the priorities of sampled steps; consumes ``state``.

        The stored value is ``priority ** priority_exponent`` (Schaul et al., 2016, equation 1; ``0 ** 0`` is 1). A step
        that was overwritten after it was sampled is skipped. A step with priority 0 is not sampled again, unless all
        priorities are 0.

        Args:
            state: State of a prioritized replay.
            rows: Rows to update, ``Sample.rows``, integers of any shape.
            priorities: Numbers of the shape of ``rows``, for example absolute TD errors. If a row is repeated, its last
                priority is used.

        Returns:
            State of the replay with the priorities.

        Raises:
            TypeError: If ``rows`` are not integers.
            ValueError: If a priority is negative, not finite or too large to be summed, the shapes differ, or the
                replay is not prioritized. The state is unchanged. The device replay skips such a priority instead.
        """


class EndEpisode(Protocol):
    """Interface of ``Replay.end_episode``."""

    def __call__(self, state: State, lanes: Array) -> State:
        """Close the current episode of some environments as truncated; consumes ``state``.

        Call it for an environment that was restarted before its episode ended: the newest observation becomes the true
        last observation. Environments without a step in their current episode are unchanged.

        Args:
            state: State of the replay.
            lanes: Whether to close the episode of each environment, ``[N]`` bool.

        Returns:
            State of the replay with the closed episodes.

        Raises:
            TypeError: If ``lanes`` is not a bool array.
            ValueError: If ``lanes`` has another shape.
        """


class Replay(NamedTuple):
    """Functions of a replay state, with the hyper-parameters bound by a maker (``host.make`` or ``device.make``).

    Functions that consume a state may write into its arrays; use the state that they return.

    Attributes:
        init: Function ``(reopen=False) -> state``.
        add: Function ``(state, step, valid=None) -> state``.
        sample: Function ``(key, state, numbers) -> Sample``.
        update_priorities: Function ``(state, rows, priorities) -> state``.
        end_episode: Function ``(state, lanes) -> state``.
        size: Function ``(state) -> number``, the number of steps that can be sampled, over all environments.
        rewards: Function ``(state) -> [R] float32``, the rewards of these steps in no particular order.
        sample_spec: Function ``() -> Sample`` of ``jax.ShapeDtypeStruct``, with the dtypes that a compiled program
            receives: JAX converts int64 to int32 if 64-bit types are off.
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
