"""The learner: the one place where optimizer, parameters and targets move, in that order."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from . import target as target_module
from . import verbs
from ._tree import Tree, is_averaged
from .parts import Rule, rules_by_part
from .rule import check_rule, is_none
from .target import TargetState


class Variables(NamedTuple):
    """What a network is applied with: its parameters and its module state (empty for stateless networks)."""

    params: Tree
    state: Tree = ()


class LossOutput(NamedTuple):
    """What a loss returns beside its value.

    Attributes:
        state: the online module state after the forward pass; empty for stateless networks.
        target_state: target name to its module state after the target's own forward pass, for targets whose module
            state is ``"own"``.
        priorities: ``[B]``, the new priorities of the batch's rows; empty for an agent that has none.
        metrics: name to scalar.
    """

    state: Tree = ()
    target_state: Mapping[str, Tree] = {}
    priorities: Any = ()
    metrics: Mapping[str, jax.Array] = {}


class Loss(Protocol):
    """A loss over a batch; called under ``jit`` and differentiated with respect to ``params``."""

    def __call__(
        self, key: jax.Array, params: Tree, state: Tree, targets: Mapping[str, Variables], batch: Any
    ) -> tuple[jax.Array, LossOutput]:
        """Returns the scalar loss and what goes with it; the key is consumed."""


def _everything(tree: Tree) -> Tree:
    return tree


class Target(NamedTuple):
    """A named target of a learner: a selection of the online tree, and the rule it moves under.

    Attributes:
        rule: the rule, or a :class:`Partition`.
        select: picks the part of the online parameters (and of the module state) that the target is a copy of.
        module_state: ``"copied"``: the online module state is copied whenever the rule fires (as SB3 does);
            ``"own"``: it comes from the target's own forward pass, through ``LossOutput.target_state`` (as in BYOL).
    """

    rule: Rule
    select: Callable[[Tree], Tree] = _everything
    module_state: Literal["copied", "own"] = "copied"


class LearnerState(NamedTuple):
    """All that a learner carries; a pytree, to be donated.

    Attributes:
        params: the online parameters.
        state: the online module state; empty for stateless networks.
        optimizer_state: the state of the optax optimizer.
        targets: name to target.
    """

    params: Tree
    state: Tree
    optimizer_state: Any
    targets: dict[str, TargetState]


class LearnOutput(NamedTuple):
    """What a learner step tells the loop.

    Attributes:
        priorities: ``[B]`` (``[K, B]`` after K steps in one call), or empty.
        metrics: name to scalar (``[K]`` after K steps); ``loss`` and ``gradient_norm`` among them, and with
            ``skip_nonfinite`` also ``skipped``, 1 where the step was undone and else 0. Those of a skipped step are as
            they were measured: they may be NaN.
    """

    priorities: Any
    metrics: dict[str, jax.Array]


class Learner(NamedTuple):
    """Three pure functions, made by :func:`learner`; none of them is jitted.

    Attributes:
        init: ``(params, state=()) -> LearnerState``.
        step: ``(key, LearnerState, batch) -> (LearnerState, LearnOutput)``; the key is consumed.
        steps: the same over ``K`` batches ``[K, B, ...]`` in one scan; equal to K calls of ``step`` with
            ``jax.random.split(key, K)``.
    """

    init: Callable[..., LearnerState]
    step: Callable[[jax.Array, LearnerState, Any], tuple[LearnerState, LearnOutput]]
    steps: Callable[[jax.Array, LearnerState, Any], tuple[LearnerState, LearnOutput]]


def learner(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    targets: Mapping[str, Target],
    skip_nonfinite: bool = False,
) -> Learner:
    """Makes a learner: gradient, ``optimizer.update``, ``apply_updates``, then every target's update.

    With ``skip_nonfinite``, a step whose loss, gradient norm, parameters or module state are NaN or infinite leaves
    the whole state as it was, to the bit: parameters, module state, optimizer state, and of every target the copy and
    the count, so that no target moves and a period counts the steps that were kept. The priorities of its batch are 0
    where they are not finite. (``optax.apply_if_finite`` looks at the gradients and guards the optimizer alone: module
    state and targets would go on, and after a number of such steps in a row it lets them through.)

    Args:
        loss: ``loss(key, params, state, targets, batch) -> (loss, LossOutput)``.
        optimizer: an optax optimizer.
        targets: name to target; the loss gets them, under stop-gradient, as :class:`Variables` by the same names.
        skip_nonfinite: whether a step that is not finite is undone, and counted in the metric ``skipped``.

    Raises:
        ValueError: a target's ``module_state`` is neither ``"copied"`` nor ``"own"``, or a rule is out of range; at
            the first step, a module state that the loss did not return, or a loss that is no scalar.

    >>> import jax, jax.numpy as jnp, optax
    >>> from polyak.updates import LossOutput, Target, learner, periodic
    >>> def loss(key, params, state, targets, batch):
    ...     return (params["w"] - (targets["q"].params["w"] + 1.0)) ** 2, LossOutput()
    >>> follow = learner(loss, optax.sgd(0.5), {"q": Target(periodic(2))})
    >>> state = follow.init({"w": jnp.array(0.0)})
    >>> for key in jax.random.split(jax.random.key(0), 3):
    ...     state, output = jax.jit(follow.step)(key, state, None)
    ...     print(float(state.params["w"]), float(state.targets["q"].params["w"]))
    1.0 0.0
    1.0 1.0
    2.0 1.0
    """
    for name, named in targets.items():
        if named.module_state not in ("copied", "own"):
            raise ValueError(f'{name}.module_state: got {named.module_state!r}; expected "copied" or "own".')
        for rule in rules_by_part({name: named.rule}).values():
            check_rule(rule)

    def init(params: Tree, state: Tree = ()) -> LearnerState:
        return LearnerState(params, state, optimizer.init(params), init_targets(targets, params, state))

    def step(key: jax.Array, learner_state: LearnerState, batch: Any) -> tuple[LearnerState, LearnOutput]:
        params, state, optimizer_state, slow = learner_state
        read = {
            name: Variables(
                *target_module.read(named.rule, named.select(params), slow[name], _select_state(named, state))
            )
            for name, named in targets.items()
        }

        def loss_of(differentiated: Tree) -> tuple[jax.Array, LossOutput]:
            value, output = loss(key, differentiated, state, read, batch)
            if jnp.shape(value) != ():
                raise ValueError(f"loss: got an array of shape {jnp.shape(value)}; expected a scalar. Take its mean.")
            return value, output

        (value, output), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        got, expected = str(jax.tree.structure(output.state)), str(jax.tree.structure(state))
        if got != expected:
            raise ValueError(
                f"LossOutput.state: got {got}; expected the module state after the forward pass, {expected}."
            )
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
        # The barrier keeps XLA from computing the new parameters twice, for themselves and inside the targets' update.
        params = jax.lax.optimization_barrier(verbs.apply_updates(params, updates))
        slow = {name: _move(name, named, params, slow[name], output) for name, named in targets.items()}
        metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradients), **output.metrics}
        after = LearnerState(params, output.state, optimizer_state, slow)
        if not skip_nonfinite:
            return after, LearnOutput(output.priorities, metrics)
        finite = _all_finite((value, metrics["gradient_norm"], params, output.state, output.target_state))
        # where, not cond: see polyak.updates.verbs.move.
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, learner_state)
        priorities = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0), output.priorities)
        return kept, LearnOutput(priorities, {**metrics, "skipped": 1 - finite.astype(jnp.float32)})

    return Learner(init, step, repeat(step))


def init_targets(targets: Mapping[str, Target], params: Tree, state: Tree = ()) -> dict[str, TargetState]:
    """Makes every target, as a copy of its selection of the online tree; what a learner's ``init`` does.

    Args:
        targets: name to target.
        params: the online parameters.
        state: the online module state.

    Raises:
        ValueError: a part of a target matches no parameter; the message names both and lists the modules.

    >>> import jax.numpy as jnp
    >>> from polyak.updates import periodic
    >>> init_targets({"q": Target(periodic(500))}, {"w": jnp.ones(2)})["q"].params
    {'w': Array([1., 1.], dtype=float32)}
    """
    return {
        name: target_module.init(named.rule, named.select(params), _select_state(named, state), name=name)
        for name, named in targets.items()
    }


def repeat(step: Callable[[jax.Array, Any, Any], tuple[Any, Any]]) -> Callable[[jax.Array, Any, Any], tuple[Any, Any]]:
    """Makes one call of ``K`` learner steps from one of a single step.

    Args:
        step: ``(key, state, batch) -> (state, output)``.

    Returns:
        ``(key, state, batches)`` with batches ``[K, B, ...]`` to ``(state, outputs)`` with outputs ``[K, ...]``; step
        ``k`` gets ``jax.random.split(key, K)[k]``.

    >>> import jax, jax.numpy as jnp
    >>> total, seen = repeat(lambda key, total, x: (total + x, total))(jax.random.key(0), 0, jnp.arange(4))
    >>> int(total), seen.tolist()
    (6, [0, 0, 1, 3])
    """

    def steps(key: jax.Array, state: Any, batches: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key, jax.tree.leaves(batches)[0].shape[0])
        return jax.lax.scan(lambda carry, x: step(x[0], carry, x[1]), state, (keys, batches))

    return steps


def _all_finite(tree: Tree) -> jax.Array:
    checked = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree) if is_averaged(leaf)]
    return jnp.all(jnp.stack(checked))


def _select_state(named: Target, state: Tree) -> Tree:
    return named.select(state) if jax.tree.leaves(state) else state


def _move(name: str, named: Target, params: Tree, slow: TargetState, output: LossOutput) -> TargetState:
    copied = named.module_state == "copied"
    online_state = _select_state(named, output.state) if copied else ()
    moved = target_module.update(named.rule, named.select(params), slow, state=online_state)
    if copied or is_none(named.rule):
        return moved
    if name not in output.target_state:
        raise ValueError(
            f'{name}: its module state is "own", but the loss returned target_state for '
            f"{', '.join(output.target_state) or 'no target'}. Return LossOutput(target_state={{{name!r}: ...}})."
        )
    return moved._replace(state=output.target_state[name])
