"""polyak.updates: parameter updates, which are optimizer steps and target networks.

The package has three update functions with optax's signatures, target rules as data, target states as pytrees, and the
learner, which updates parameters and targets. It depends on jax and optax only, and on no other package of polyak.
"""

from . import diagnostics, target
from .learner import (
    Learner,
    LearnerState,
    LearnOutput,
    Loss,
    LossOutput,
    Target,
    Variables,
    init_targets,
    learner,
    repeat,
)
from .parts import Partition, Rule, parse_named, partition, rules_by_part, text_named
from .rule import (
    TargetRule,
    frozen,
    incremental,
    incremental_cosine,
    is_none,
    none,
    parse,
    periodic,
    step_size_at,
    text,
)
from .surgery import Periodic, check_parts, reset, shift_heads, shrink_and_perturb
from .target import TargetState
from .verbs import apply_updates, incremental_update, periodic_update

__all__ = [
    "LearnOutput",
    "Learner",
    "LearnerState",
    "Loss",
    "LossOutput",
    "Partition",
    "Periodic",
    "Rule",
    "Target",
    "TargetRule",
    "TargetState",
    "Variables",
    "apply_updates",
    "check_parts",
    "diagnostics",
    "frozen",
    "incremental",
    "incremental_cosine",
    "incremental_update",
    "init_targets",
    "is_none",
    "learner",
    "none",
    "parse",
    "parse_named",
    "partition",
    "periodic",
    "periodic_update",
    "repeat",
    "reset",
    "rules_by_part",
    "shift_heads",
    "shrink_and_perturb",
    "step_size_at",
    "target",
    "text",
    "text_named",
]
