"""Names of options in other libraries, answered with polyak's; none of them is accepted. It imports nothing heavy.

The names are those of CleanRL, Stable-Baselines3, Dopamine, Tianshou and Spinning Up.
"""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

_VALUE = "{}"


class _Row(NamedTuple):
    """Option of polyak in the place of names of other libraries.

    Attributes:
        field: Name of polyak's field.
        names: Names in other libraries, with spaces between.
        value: Value of the field: a text in which ``{}`` stands for the value that was given, or a Python value.
    """

    field: str
    names: str
    value: Any = _VALUE


_ROWS = (
    _Row("learning_rate", "lr step_size"),
    _Row("discount", "gamma discount_factor"),
    _Row("steps", "total_timesteps total_steps num_timesteps n_timesteps timesteps max_steps num_env_steps"),
    _Row("replay_capacity", "buffer_size replay_size replay_buffer_size memory_size buffer_capacity"),
    _Row("batch_size", "batch minibatch_size"),
    _Row("n_steps", "n_step nstep multi_step update_horizon"),
    _Row("epsilon", "eps epsilon_greedy"),
    _Row("epsilon", "start_e eps_start epsilon_start exploration_initial_eps", "linear({},0.05,10%)"),
    _Row("epsilon", "end_e eps_end epsilon_end epsilon_final exploration_final_eps epsilon_train", "linear(1,{},10%)"),
    _Row("epsilon", "exploration_fraction", "linear(1,0.05,{percent})"),
    _Row("target", "tau", "incremental:{}"),
    _Row("target", "polyak", "incremental:{rest}"),
    _Row("target", "target_network_frequency target_update_interval target_update_period", "periodic:{}env"),
    _Row("target", "target_update_freq", "periodic:{}"),
    _Row("env", "env_id env_name environment game gym_id"),
    _Row("num_envs", "n_envs num_environments training_num"),
    _Row("seeds", "num_seeds n_seeds"),
    _Row("train_every", "train_freq train_frequency update_period update_every step_per_collect"),
    _Row("learner_steps", "gradient_steps grad_steps updates_per_step"),
    _Row("learning_starts", "min_replay_history min_replay_size warmup_steps start_steps"),
    _Row("hidden_sizes", "net_arch hidden_size hidden_dim hidden_dims hidden_units"),
    _Row("activation", "activation_fn"),
    _Row("max_gradient_norm", "max_grad_norm grad_clip gradient_clip"),
    _Row("optimizer_epsilon", "adam_eps adam_epsilon"),
    _Row("optimizer", "optimizer_class"),
    _Row("num_atoms", "n_atoms"),
    _Row("num_quantiles", "n_quantiles"),
    _Row("v_min", "vmin"),
    _Row("v_max", "vmax"),
    _Row("double", "double_q is_double", True),
    _Row("sampling", "prioritized prioritized_replay prioritized_replay_buffer per", "prioritized"),
    _Row("priority_exponent", "prioritized_replay_alpha"),
    _Row("importance_exponent", "prioritized_replay_beta prioritized_replay_beta0", "linear({},1,100%)"),
    _Row("noisy_sigma", "noisy noisy_net noisy_nets", 0.5),
    _Row("torso", "policy policy_type", "auto"),
    _Row("evaluate_every", "eval_freq eval_frequency eval_every eval_interval"),
    _Row("evaluation_episodes", "n_eval_episodes num_eval_episodes eval_episodes"),
    _Row("checkpoint_every", "save_freq save_frequency save_interval checkpoint_freq"),
    _Row("log_every", "log_interval log_freq"),
    _Row("loggers", "track use_wandb wandb wandb_project_name wandb_entity", ("wandb",)),
    _Row("loggers", "tensorboard_log", ("tensorboard",)),
    _Row("out", "exp_name run_name tb_log_name", "runs/{}"),
    _Row("out", "log_dir logdir log_path save_dir save_path output_dir base_dir"),
    _Row("initial", "load load_path load_model"),
)
_OPTIONS: Mapping[str, _Row] = {name: row for row in _ROWS for name in row.names.split()}

_JAX = "JAX chooses the device: set the environment variable JAX_PLATFORMS={platform}"
_SENTENCES: Mapping[str, str] = {
    **dict.fromkeys(("device", "cuda", "gpu", "use_gpu", "no_cuda"), _JAX),
    **dict.fromkeys(("torch_deterministic", "cuda_deterministic"), "Leave it out; a seed repeats a run on a CPU"),
    **dict.fromkeys(("capture_video", "record_video", "render", "render_mode"), "Use polyak record RUN after the run"),
    **dict.fromkeys(("save_model", "save"), "Leave it out; the folder of a run holds its parameters"),
    **dict.fromkeys(("verbose", "progress_bar", "progress"), "Leave it out; quiet decides whether progress is shown"),
    **dict.fromkeys(("algo", "algorithm"), "The agent is the first argument, as in {command}"),
}


def other_name(name: str, value: Any, known: Iterable[str], *, flags: bool = False) -> str:
    """Hint at polyak's option for the name of an option in another library; empty if the name is in no library here.

    Args:
        name: Name with underscores.
        value: Value that was given: a Python value, or a text, or several, of a command line. None for no value.
        known: Names of polyak's fields; the hint names no other field.
        flags: Whether to answer with flags of the command line; else with keyword arguments of Python.

    >>> other_name("lr", 0.001, ["learning_rate"])
    ' Use learning_rate=0.001.'
    >>> other_name("total_timesteps", 1e6, ["steps"])
    ' Use steps=1000000.'
    >>> other_name("tau", ("0.005",), ["target"], flags=True)
    ' Use --target incremental:0.005.'
    >>> other_name("device", "cpu", [])
    ' JAX chooses the device: set the environment variable JAX_PLATFORMS=cpu.'
    >>> other_name("learning_rat", 0.001, ["learning_rate"])
    ''
    """
    if name in _SENTENCES:
        command = f"polyak train {_text(value)}" if flags else f"polyak.train({_text(value)!r})"
        return f" {_SENTENCES[name].format(platform=_platform(value), command=command)}."
    row = _OPTIONS.get(name)
    if row is None or row.field not in {*known}:
        return ""
    return f" Use {_flag(row, value) if flags else _keyword(row, value)}."


def _flag(row: _Row, value: Any) -> str:
    flag = f"--{row.field.replace('_', '-')}"
    if row.value is True:
        return flag
    if isinstance(row.value, tuple):
        return f"{flag} {' '.join(row.value)}"
    if row.value == _VALUE:
        texts = value if isinstance(value, tuple) else (value,)
        return f"{flag} {' '.join(shlex.quote(_number(_text(text))) for text in texts or (None,))}"
    return f"{flag} {shlex.quote(str(_filled(row, value)))}"


def _keyword(row: _Row, value: Any) -> str:
    if isinstance(value, float) and value > 1 and value.is_integer():
        value = int(value)  # 1e6 steps, because integers are not read from floats
    return f"{row.field}={value if row.value == _VALUE and value is not None else _filled(row, value)!r}"


def _filled(row: _Row, value: Any) -> Any:
    if not isinstance(row.value, str):
        return row.value
    text, share = _text(value), _share(value)
    percent, rest = (text, text) if share is None else (f"{100 * share:g}%", f"{1 - share:g}")
    return row.value.format(text, percent=percent, rest=rest)


def _text(value: Any) -> str:
    """Text of a value, or of the first of several; VALUE for none."""
    first = (value[0] if value else None) if isinstance(value, tuple) else value
    return "VALUE" if first in (None, "") else str(first)


def _number(text: str) -> str:
    """Text of a number; a whole number such as 1e6 without its exponent, because integers are not read with one."""
    try:
        return str(int(float(text))) if "e" in text.lower() and float(text).is_integer() else text
    except (ValueError, OverflowError):
        return text


def _share(value: Any) -> float | None:
    try:
        found = float(_text(value))
    except ValueError:
        return None
    return found if 0 <= found <= 1 else None


def _platform(value: Any) -> str:
    kind = _text(value).partition(":")[0]
    return kind if kind in ("cpu", "cuda", "tpu") else "cpu, or cuda"
