"""Learner: updates the optimizer state, then the parameters, then the targets."""

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
    """Parameters and module state of a network; the module state is empty for stateless networks."""

    params: Tree
    state: Tree = ()


class LossOutput(NamedTuple):
    """Auxiliary output of a loss.

    Attributes:
        state: Online module state after the forward pass; empty for stateless networks.
        target_state: Mapping from the name of a target whose module state is ``"own"`` to its module state after its
            own forward pass.
        priorities: New priorities ``[B]`` of the rows in the batch; empty for an agent without priorities.
        metrics: Mapping from name to scalar.
    """

    state: Tree = ()
    target_state: Mapping[str, Tree] = {}
    priorities: Any = ()
    metrics: Mapping[str, jax.Array] = {}


class Loss(Protocol):
    """Loss over a batch; called under ``jit`` and differentiated with respect to ``params``."""

    def __call__(
        self, key: jax.Array, params: Tree, state: Tree, targets: Mapping[str, Variables], batch: Any
    ) -> tuple[jax.Array, LossOutput]:
        """Return the scalar loss and its auxiliary output; the key is consumed."""


def _everything(tree: Tree) -> Tree:
    return tree


class Target(NamedTuple):
    """Target of a learner: its rule, and the part of the online parameters that it copies.

    Attributes:
        rule: Rule of the target, a ``TargetRule`` or a :class:`Partition`.
        select: Function from the online parameters (or the online module state) to the part that the target copies.
        module_state: Source of the target's module state. ``"copied"``: the online module state, copied whenever the
            rule fires (as in SB3). ``"own"``: the target's own forward pass, through ``LossOutput.target_state`` (as in
            BYOL).
    """

    rule: Rule
    select: Callable[[Tree], Tree] = _everything
    module_state: Literal["copied", "own"] = "copied"


class LearnerState(NamedTuple):
    """State of a learner, a pytree that can be donated.

    Attributes:
        params: Online parameters.
        state: Online module state; empty for stateless networks.
        optimizer_state: State of the optax optimizer.
        targets: Mapping from the name of a target to its state.
    """

    params: Tree
    state: Tree
    optimizer_state: Any
    targets: dict[str, TargetState]


class LearnOutput(NamedTuple):
    """Output of a learner step, or of K learner steps in one call.

    Attributes:
        priorities: New priorities ``[B]`` (``[K, B]`` after K steps), or empty.
        metrics: Mapping from name to scalar (``[K]`` after K steps), including ``loss`` and ``gradient_norm``. With
            ``skip_nonfinite`` it also has ``skipped``, which is 1 if the step was undone and 0 otherwise. Metrics of a
            skipped step keep their values and may be NaN.
    """

    priorities: Any
    metrics: dict[str, jax.Array]


class Learner(NamedTuple):
    """Pure functions of a learner, made by :func:`learner`. The functions are not jitted.

    Attributes:
        init: Function ``(params, state=()) -> LearnerState``.
        step: Function ``(key, LearnerState, batch) -> (LearnerState, LearnOutput)``; the key is consumed.
        steps: Function with the arguments of ``step`` but ``K`` batches ``[K, B, ...]``, in one scan. Equal to K calls
            of ``step`` with the keys ``jax.random.split(key, K)``.
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
    """Make a learner, whose step is: gradient, ``optimizer.update``, ``apply_updates``, update of every target.

    With ``skip_nonfinite``, a step is undone if its loss, gradient norm, parameters or module state contain NaN or
    infinity. Parameters, module state, optimizer state and the parameters and counts of all targets then keep their
    values, exact to the bit, so a period counts only the steps that were kept. Priorities of the batch that are not
    finite become 0. (``optax.apply_if_finite`` checks only the gradients and skips only the optimizer's update: module
    state and targets are still updated. After a number of consecutive errors it applies the updates.)

    Args:
        loss: Function ``(key, params, state, targets, batch) -> (loss, LossOutput)``.
        optimizer: Optax optimizer.
        targets: Mapping from name to target. The loss receives a mapping from the same names to :class:`Variables`,
            under stop-gradient.
        skip_nonfinite: Whether to undo a step that is not finite, and to report it in the metric ``skipped``.

    Raises:
        ValueError: If the ``module_state`` of a target is neither ``"copied"`` nor ``"own"``, or a rule is out of
            range. At the first step, if the loss does not return a module state, or is not a scalar.

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
        # Without the barrier, XLA computes the new parameters twice: as a result and inside the update of the targets.
        params = jax.lax.optimization_barrier(verbs.apply_updates(params, updates))
        slow = {name: _move(name, named, params, slow[name], output) for name, named in targets.items()}
        metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradients), **output.metrics}
        after = LearnerState(params, output.state, optimizer_state, slow)
        if not skip_nonfinite:
            return after, LearnOutput(output.priorities, metrics)
        finite = _all_finite((value, metrics["gradient_norm"], params, output.state, output.target_state))
        # where instead of cond: see polyak.updates.verbs.move.
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, learner_state)
        priorities = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0), output.priorities)
        return kept, LearnOutput(priorities, {**metrics, "skipped": 1 - finite.astype(jnp.float32)})

    return Learner(init, step, repeat(step))


def init_targets(targets: Mapping[str, Target], params: Tree, state: Tree = ()) -> dict[str, TargetState]:
    """Initialize every target as a copy of the parameters that it selects; called by the ``init`` of a learner.

    Args:
        targets: Mapping from name to target.
        params: Online parameters.
        state: Online module state.

    Returns:
        Mapping from the name of a target to its state.

    Raises:
        ValueError: If a part of a target matches no parameter; the message names both and lists the modules.

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
    """Make a function that runs ``K`` learner steps in one scan.

    Args:
        step: Function ``(key, state, batch) -> (state, output)``.

    Returns:
        Function ``(key, state, batches) -> (state, outputs)`` with batches ``[K, B, ...]`` and outputs ``[K, ...]``.
        Step ``k`` gets the key ``jax.random.split(key, K)[k]``.

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
