"""Warnings about settings and symptoms that probably indicate mistakes."""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from ...agents import AgentConfig, LoopConfig
from ...agents.head_parts import Ensemble
from ...replay import Replay
from ...updates import Periodic, Target, rules_by_part
from ..loops.carry import Carry
from ..loops.learning import Record

LIKE_A_DECAY = 0.5  # step sizes above this value, and below 1, are rarely intended
LEAST_MOVED = 0.01  # fraction of the way to the online parameters, over a whole run
LONG_EPISODE = 100_000  # environment steps
LARGE_REWARD = 1_000.0
CLIPPED = 0.05  # fraction of the bootstrap targets
COLLAPSED_SPREAD = 0.4  # spread of the projections; half of the value in healthy runs
COLLAPSED_AT = "feature_rank/0.01"


def of_targets(targets: Mapping[str, Target], learner_steps: int) -> Iterator[str]:
    """Warnings about target rules that barely move in ``learner_steps``, or move almost completely at each update.

    >>> from polyak.updates import incremental, periodic
    >>> for text in of_targets({"q": Target(periodic(30_000)), "average": Target(incremental(0.1))}, 24_500):
    ...     print(text)
    target q: periodic:30000 moves every 30000 learner steps, and the run has 24500, so it never moves. Give a shorter
    period, or frozen if this is intended.
    >>> for text in of_targets({"q": Target(incremental(0.995))}, 24_500):
    ...     print(text)
    target q: incremental:0.995 goes 0.995 of the way to the online parameters at each update, so it is almost a hard
    copy. If 0.995 is a decay, the weight of the old parameters, give incremental:0.005.
    """
    for name, rule in rules_by_part({name: named.rule for name, named in targets.items()}).items():
        if not rule.period or not rule.step_size:
            continue  # none and frozen never move
        if LIKE_A_DECAY < (size := float(rule.step_size)) < 1:
            yield (
                f"target {name}: {rule} goes {size:g} of the way to the online parameters at each update, so it is "
                f"almost a hard copy. If {size:g} is a decay, the weight of the old parameters, give incremental:"
                f"{round(1 - size, 12):g}."
            )
        updates = learner_steps // int(rule.period)
        step_size = float(rule.step_size) / (2 if rule.horizon else 1)  # the mean of a cosine is half of it
        moved = 1.0 if step_size == 1 else -math.expm1(updates * math.log1p(-step_size))
        if not updates:
            yield (
                f"target {name}: {rule} moves every {rule.period} learner steps, and the run has {learner_steps}, so "
                "it never moves. Give a shorter period, or frozen if this is intended."
            )
        elif moved < LEAST_MOVED:
            yield (
                f"target {name}: {rule} goes {moved:.2g} of the way to the online parameters in the {learner_steps} "
                "learner steps of the run. Give a larger step size, or frozen if this is intended."
            )


def of_operations(periodic: Mapping[str, Periodic], learner_steps: int) -> Iterator[str]:
    """Warnings about periodic operations that never fire in a run of ``learner_steps``.

    >>> for text in of_operations({"resets": Periodic(400, lambda key, state: state, last=100)}, 500):
    ...     print(text)
    resets: never fires in the 500 learner steps of the run, because its period is 400 and it does not fire in the last
    period. Give a period of at most 250 learner steps.
    >>> print(*of_operations({"shifts": Periodic(400, lambda key, state: state)}, 100))
    shifts: never fires in the 100 learner steps of the run, because its period is 400. Give a period of at most 100
    learner steps.
    """
    for name, operation in periodic.items():
        if not operation.count(learner_steps):
            until_last = "" if operation.last is None else " and it does not fire in the last period"
            longest = learner_steps if operation.last is None else learner_steps // 2
            yield (
                f"{name}: never fires in the {learner_steps} learner steps of the run, because its period is "
                f"{operation.period}{until_last}. Give a period of at most {longest} learner steps."
            )


def of_exploration(agent: AgentConfig, loop: LoopConfig) -> Iterator[str]:
    """Warning about an agent that stops exploring: final epsilon 0, no noisy layers, and no ensemble.

    >>> from polyak.agents import make_configs
    >>> configs = make_configs("dqn", fields={"epsilon": "linear(1,0,25%)"})
    >>> for text in of_exploration(configs.agent, configs.loop):
    ...     print(text)
    epsilon: got linear(1,0,25%), which ends at 0, and the agent has neither noise nor an ensemble, so it stops
    exploring. Try linear(1,0.05,25%).
    >>> configs = make_configs("noisy_dqn")
    >>> list(of_exploration(configs.agent, configs.loop))
    []
    """
    epsilon = loop.exploration.epsilon
    ends_at = epsilon.initial if epsilon.final is None else epsilon.final
    explores = isinstance(agent.head, Ensemble) or getattr(agent.head, "noisy_sigma", None) is not None
    if ends_at == 0 and not explores:
        how = "never explores" if epsilon.is_constant else "stops exploring"
        yield (
            f"epsilon: got {epsilon}, which ends at 0, and the agent has neither noise nor an ensemble, so it {how}. "
            "Try linear(1,0.05,25%)."
        )


class Watch:
    """Warnings during a run, each issued once; called with the values that the loop yields.

    Args:
        replay: Replay of the run.
        discount: Discount of the agent.
        steps: Number of environment steps so far.
    """

    def __init__(self, replay: Replay, discount: float, steps: int = 0) -> None:
        self._replay, self._discount = replay, discount
        self._ended_at: float = steps
        self._look_at: float = 0
        self._support_fits = True
        self._features_differ = replay.sample_spec().weights.shape[-1] > 1  # the features of one row always have rank 1

    def __call__(self, carry: Carry, record: Record) -> Iterator[str]:
        """Yield each new warning."""
        if record["ended_at"] and self._ended_at < math.inf:
            self._ended_at = max(record["ended_at"])
        if carry.steps - self._ended_at >= LONG_EPISODE:
            steps, self._ended_at = int(carry.steps - self._ended_at), math.inf
            values = " With discount 1 values have no bound then: reduce it." if self._discount == 1 else ""
            yield (
                f"no episode has ended in the last {steps} environment steps. If they should end, register the "
                f"environment with max_episode_steps.{values}"
            )
        clipped = record.get("clipped_targets") or 0.0
        if clipped > CLIPPED and self._support_fits:
            self._support_fits = False
            yield (
                f"clipped_targets: {clipped:.0%} of the bootstrap targets lie outside of v_min to v_max, the range of "
                "the support. Set them to the lowest and the highest discounted return of an episode, or set "
                "normalize_rewards."
            )
        if is_collapsed(record) and self._features_differ:
            self._features_differ = False
            yield (
                f"{COLLAPSED_AT}: the features of all observations point in one direction, or are 0, within 1 % of "
                "their size: they have collapsed and carry no information. Try a slower target, as in "
                '--target "q=periodic:50 encoder=incremental:0.005", --predictor-rate 10, a smaller '
                "--prediction-weight, or --isotropy 0.1; --no-stop-gradient alone causes collapse."
            )
        if carry.steps >= self._look_at and not carry.normalization.returns:
            # At increasing intervals, because it reads the whole replay.
            largest = float(np.abs(self._replay.rewards(carry.replay)).max(initial=0.0))
            self._look_at = 2 * carry.steps
            if largest >= LARGE_REWARD:
                self._look_at = math.inf
                yield (
                    f"rewards: the largest so far is {largest:g} in size, and errors of that size dominate all others. "
                    "Set normalize_rewards, or scale or clip them with gymnasium.wrappers.TransformReward."
                )


def is_collapsed(record: Record) -> bool:
    """Whether the features of all observations point in one direction, within 1 % of their size.

    >>> is_collapsed({"feature_rank/0.01": 1.0}), is_collapsed({})
    (True, False)
    """
    rank = record.get(COLLAPSED_AT)
    return rank is not None and rank <= 1


class PretrainWatch:
    """Warnings during pretraining, each issued once; called with the values that the loop yields."""

    def __init__(self) -> None:
        self._differ = True

    def __call__(self, carry: object, record: Record) -> Iterator[str]:
        """Yield each new warning."""
        del carry
        spread = record["projection_spread"]
        if self._differ and (spread < COLLAPSED_SPREAD or is_collapsed(record)):
            self._differ = False
            yield (
                f"projection_spread: {spread:.2g}, where 1 is that of vectors in all directions: the projections of "
                "all images are nearly identical. They have collapsed, so the features learn little. Keep the "
                "predictor and the stop-gradient, or try a slower target, as in --target incremental:0.004, or a "
                "lower --learning-rate."
            )
