"""Flags of ``polyak train``: every leaf of the parts that are there, and the errors of all others."""

import itertools
import os
import re
import shlex
import subprocess
import sys
import typing

import jax
import numpy as np
import pytest

from config_tools import LEAVES, unions
from polyak import networks
from polyak.agents import AGENTS, PRESETS, Schedule, make_configs, other_names
from polyak.agents.parts import bringers, leaves
from polyak.experiments import cli
from polyak.experiments.runs.config import RunConfig, make_run_config
from polyak.experiments.runs.flags import parse_run, run_flags


def parsed(text, **named):
    arguments = text.split() if isinstance(text, str) else text
    return parse_run(arguments, cli.TrainCommand, "", **named)[0]


def flag(name):
    return f"--{name.replace('_', '-')}"


# A value other than the default, as a text and as it is read; for other leaves it follows from the type.
OTHER = {
    "hidden_sizes": ("3 4", (3, 4)),
    "transition_sizes": ("3 4", (3, 4)),
    "loggers": ("wandb", ("wandb",)),
    "target": ("periodic:7", "periodic:7"),
    "average": ("incremental:0.1", "incremental:0.1"),
    "env": ("Acrobot-v1", "Acrobot-v1"),
    "env_kwargs": ('{"size":3}', '{"size": 3}'),
    "wrappers": ("my_module:wrap", ("my_module:wrap",)),
    "terms": ("mine=0.5*my_module:term", ("mine=0.5*my_module:term",)),
    "agent_module": ("math", "math"),
    "initial": ("runs/before", "runs/before"),
    "v_min": ("-3.5", -3.5),
    "v_max": ("1000.5", 1000.5),
    "munchausen_clip": ("-0.5", -0.5),
    "n_steps": ("linear(5,1,50%)", Schedule.of("linear(5,1,50%)")),
    "num_envs": ("3", 3),
    "workers": ("1", 1),
    "seed": ("3", 3),
    "steps": ("60000", 60000),
    "replay_capacity": ("70000", 70000),
    "noisy_sigma": ("0.25", 0.25),
    "loop": ("auto", "auto"),
}


def other(name, default):
    leaf = LEAVES[name]
    if name in OTHER:
        text, value = OTHER[name]
        return f"{flag(name)} {text}", value
    if leaf.annotation is bool:
        return (f"--no-{name.replace('_', '-')}" if default else flag(name)), not default
    if typing.get_origin(leaf.annotation) is typing.Literal:
        value = next(choice for choice in typing.get_args(leaf.annotation) if choice != default)
        return f"{flag(name)} {value}", value
    if leaf.annotation is Schedule:
        return f"{flag(name)} linear(0.5,0.25,10%)", Schedule.of("linear(0.5,0.25,10%)")
    value = leaf.annotation(7 if leaf.annotation is int else 0.625)
    return f"{flag(name)} {value}", value


KINDS = [pair for name, kinds in unions().items() for pair in itertools.product([name], kinds)]
# A flag that a kind needs beside it, for every agent.
BESIDE = {
    ("core", "lstm"): "--windows sequences",
    ("windows", "transitions"): "--core none",
    ("optimizer", "adamw"): "--head scalar",
    ("head", "ensemble"): "--optimizer adam",
    ("head", "iterated"): "--optimizer adam",
    ("target_role", "functional"): "--head scalar",
    ("target_role", "trust_region"): "--head scalar",
    ("bootstrap", "munchausen"): "--head quantile",
    ("self_prediction", "conv"): "--core none",
}


def beside(name, union, kind):
    """Flags that a kind needs beside it: those of ``BESIDE``, and others of parts that the agent could not keep."""
    config = make_run_config(name)
    words = [BESIDE[union, kind]] if (union, kind) in BESIDE else []
    if leaves(config).get("projection", "none") != "none" and kind in ("implicit_quantile", "ensemble", "iterated"):
        words.append("--projection none")
    if (union, kind) == ("resets", "none"):
        schedules = config.loop.draw.schedules.items()
        words += [f"--{leaf.replace('_', '-')} {schedule.initial}" for leaf, schedule in schedules if schedule.restarts]
    return " ".join(words)


@pytest.mark.parametrize("name", AGENTS)
def test_every_leaf_of_an_agent_is_reached_by_its_flag(name):
    default = leaves(make_run_config(name))
    names = [flag.name for flag in run_flags(make_configs(name)) if flag.name in LEAVES]
    assert set(names) == set(default) - set(unions()) - {"agent_name", "preset"}
    at_once = [
        leaf for leaf in names if leaf != "frame_stack" and (leaf, name) != ("value_rescaling", "munchausen_dqn")
    ]
    for chosen in (at_once, ["frame_stack"]):
        given = {leaf: other(leaf, default[leaf]) for leaf in chosen}
        found = leaves(parsed(" ".join([name, *(text for text, _ in given.values())])))
        assert {leaf: found[leaf] for leaf in chosen} == {leaf: value for leaf, (_, value) in given.items()}
        assert {leaf for leaf in found if found[leaf] != default[leaf]} == set(chosen)


@pytest.mark.parametrize("name", ["dqn", "rainbow", "r2d2"])
@pytest.mark.parametrize(("union", "kind"), KINDS)
def test_every_kind_of_a_union_is_reached_with_its_leaves(name, union, kind):
    needed = beside(name, union, kind)
    brought = [leaf for leaf, by in bringers(RunConfig).items() if kind in by.get(union, [])]
    given = {leaf: other(leaf, None) for leaf in brought}
    texts = " ".join(text for text, _ in given.values())
    found = leaves(parsed(f"{name} --{union} {kind} {needed} {texts}"))
    assert found[union] == kind
    assert {leaf: found[leaf] for leaf in brought} == {leaf: value for leaf, (_, value) in given.items()}
    assert leaves(parsed(f"{name} {texts} {needed} --{union}={kind}")) == found


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_takes_every_kind(name):
    for union, kind in KINDS:
        words = beside(name, union, kind).split()
        others = zip(words[::2], words[1::2], strict=True)
        given = {union: kind} | {flag.removeprefix("--").replace("-", "_"): value for flag, value in others}
        flags = {flag.name for flag in run_flags(make_configs(name), given)}
        assert flags == leaves(make_run_config(name, fields=given)).keys() - {"agent_name", "preset"}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", AGENTS)
def test_the_command_line_and_python_make_one_config(name, preset):
    fields = {"seed": 3, "steps": 10**6, "batch_size": 16, "epsilon": "linear(1,0.5,10%)", "hidden_sizes": (5, 6)}
    flags = "--seed 3 --steps 1000000 --batch-size=16 --epsilon linear(1,0.5,10%) --hidden-sizes 5 6"
    assert parsed(f"{name} --preset {preset} {flags}") == make_run_config(name, preset, fields)
    if preset == "classic":
        assert parsed(name) == make_run_config(name)


def test_without_arguments_it_is_the_default():
    assert parsed([]) == RunConfig()
    config, command = parse_run(["--out", "runs/x", "--quiet", "--noisy-sigma", "None"], cli.TrainCommand, "")
    assert config == RunConfig()
    assert (str(command.out), command.quiet, command.preset) == ("runs/x", True, "classic")
    assert parsed("--loggers").loggers == ()
    assert parsed("--num_envs 3").num_envs == 3


@pytest.mark.parametrize("leaf", bringers(RunConfig))
def test_a_flag_of_an_absent_part_names_the_flag_that_brings_it(leaf):
    ((union, kinds),) = bringers(RunConfig)[leaf].items()
    for kind in set(unions()[union]) - set(kinds):
        beside = "--windows sequences" if kind == "lstm" else ""
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (matched below)
            parsed(f"dqn --{union} {kind} {beside} {flag(leaf)} 1")
        way_out = f"--{union.replace('_', '-')} {kinds[0]}"
        assert re.search(rf"^{leaf}: got '?\w+'?, but {union} is '{kind}'; .*Try {way_out}\.$", str(caught.value))
    assert leaf in leaves(parsed(f"dqn {way_out} {'--windows sequences' if union == 'core' else ''}"))


BAD = {
    "unknown flag": ("--stepz 5", "^--stepz: no such option. Did you mean '--steps'"),
    "unknown flag of an agent": ("rainbow --num-atom 5", "^--num-atom: no such option. Did you mean '--num-atoms'"),
    "unknown switch": ("--no-dubble", "^--no-dubble: no such option"),
    "a switch that is none": ("--no-steps", "^--no-steps: no such option"),
    "absent switch": (
        "--head ensemble --no-dueling",
        "^dueling: got False, but head is 'ensemble'; .*Try --head scalar",
    ),
    "unknown agent": ("dqm", "^agent: got 'dqm'; expected one of dqn, .*bbf. Did you mean 'dqn'"),
    "unknown preset": ("--preset atarii", "^preset: got 'atarii'; .*Did you mean 'atari'"),
    "unknown kind": ("--head=categoricl", "^head: got 'categoricl'; .*Did you mean 'categorical'"),
    "a schedule that does not parse": ("--epsilon often", "^epsilon: got 'often'; expected a number, linear"),
    "a schedule out of range": (
        "--epsilon linear(2,0,5%)",
        r"^epsilon: got 'linear\(2,0,5%\)'; expected 0 <= epsilon <= 1",
    ),
    "a number out of range": ("--batch-size 0", "^batch_size: got 0; expected an integer >= 1"),
    "a preset that needs more steps": ("--preset atari", "^learning_starts: got 50000, but the run ends at step 50000"),
    "no support": ("c51 --v-min 100 --v-max 0", "^v_min: got 100.0, and v_max is 0.0"),
    "half a support": ("c51 --v-min 100", "^v_min: got 100.0, and v_max is None; expected numbers for both"),
    "a choice of a part that is not there": (
        "munchausen_dqn --double",
        "^double: got True, but bootstrap is 'munchausen'",
    ),
    "agents in another order of letters": ("dnq", "^agent: got 'dnq'; .*Did you mean 'dqn'"),
    "two agents": ("dqn rainbow", "^agent: got 'dqn' and 'rainbow'; expected one. Train each .*polyak compare RUN RUN"),
    "a word after the agent": ("dqn Acrobot-v1", "^agent: got 'Acrobot-v1' after 'dqn'; .*--env Acrobot-v1"),
    "a word after a value": ("dqn --seed 1 foo", "^foo: not read after --seed 1; expected an option.$"),
    "an agent that comes last": ("--seed 1 dqn", "^dqn: not read after --seed 1; .*first: polyak train dqn"),
    "a word after a switch": ("--no-double 3", "^3: not read after --no-double; expected an option"),
    "a number without a value": ("--steps", "^steps: got no value after --steps; expected one. Try --steps 50000"),
    "a part without a value": ("--head", "^head: got no value after --head; expected one. Try --head scalar"),
    "a path without a value": ("--out --quiet", "^out: got no value after --out; expected one.$"),
    "no layers": ("--hidden-sizes", "^hidden_sizes: got no layer; .*Try --hidden-sizes 64"),
    "an empty text of an absent part": ("--reset-parts=", "^reset_parts: got '', but resets is 'none'"),
    "images without an environment": (
        "--preset atari",
        "^learning_starts: .*Try --env ALE/Breakout-v5 --steps 500000; CartPole-v1 has no images",
    ),
    "images without enough steps": (
        "--preset atari --env ALE/Pong-v5",
        "^learning_starts: .*Try --learning-starts 5000, or --steps 500000",
    ),
    "names of another library": (
        "--lr 1e-3 --gamma 0.9",
        "^--lr: no such option. Use --learning-rate 1e-3. --gamma: no such option. Use --discount 0.9.$",
    ),
    "a recurrent core": ("rainbow --core lstm", "^windows: got 'transitions', but core is 'lstm'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_flags_are_one_message_before_a_folder_is_made(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[case]
    assert cli.run(["train", *arguments.split()]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(message, line.removeprefix("polyak: ")), line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--steps many", "many"),
        ("--torso deep", "deep"),
    ],
)
def test_values_that_cannot_be_read_are_reported_by_tyro(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(["train", *arguments.split()])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert message in said.out + said.err


@pytest.mark.parametrize(
    ("given", "closest"),
    [
        ("dnq", "dqn"),
        ("ranbow", "rainbow"),
        ("c15", "c51"),
        ("qrdqn", "qr_dqn"),
        ("double-dqn", "double_dqn"),
        ("DQN", "dqn"),
        ("bfb", "bbf"),
        ("munchausen", "munchausen_dqn"),
    ],
)
def test_the_closest_agent_is_named(given, closest):
    with pytest.raises(ValueError, match=rf"^agent: got '{given}'; .* Did you mean '{closest}'\?$"):
        parsed(given)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("--lr 0.001", "--learning-rate 0.001"),
        ("--gamma=0.9", "--discount 0.9"),
        ("--tau 0.005", "--target incremental:0.005"),
        ("--polyak 0.995", "--target incremental:0.005"),
        ("--target-network-frequency 500", "--target periodic:500env"),
        ("--total_timesteps 5e4", "--steps 50000"),
        ("--buffer-size 10000", "--replay-capacity 10000"),
        ("--exploration-fraction 0.5", "--epsilon 'linear(1,0.05,50%)'"),
        ("--start-e 0.9", "--epsilon 'linear(0.9,0.05,10%)'"),
        ("--end-e 0.1", "--epsilon 'linear(1,0.1,10%)'"),
        ("--train-frequency 8", "--train-every 8"),
        ("--gradient-steps 1", "--learner-steps 1"),
        ("--env-id Acrobot-v1", "--env Acrobot-v1"),
        ("--n-envs 4", "--num-envs 4"),
        ("--net-arch 64 32", "--hidden-sizes 64 32"),
        ("--max-grad-norm 10", "--max-gradient-norm 10"),
        ("--exp-name first", "--out runs/first"),
        ("--num-seeds 2", "--seeds 2"),
        ("--eval-freq 5000", "--evaluate-every 5000"),
        ("--track", "--loggers wandb"),
        ("--double-q", "--double"),
    ],
)
def test_an_option_of_another_library_is_answered_with_an_option_that_is_read(given, answer):
    option = given.split()[0].partition("=")[0].replace("_", "-")
    with pytest.raises(ValueError, match=f"^{option}: no such option. Use {re.escape(answer)}.$"):
        parsed(f"dqn {given}")
    assert isinstance(parsed(["dqn", *shlex.split(answer)]), RunConfig)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("--device cuda:0", "JAX_PLATFORMS=cuda."),
        ("--device auto", "JAX_PLATFORMS=cpu, or cuda."),
        ("--verbose 1", "quiet decides whether progress is shown."),
        ("--capture-video", "polyak record RUN"),
        ("--torch-deterministic", "a seed repeats a run on a CPU"),
        ("--algo c51", "polyak train c51"),
    ],
)
def test_an_option_of_another_library_that_is_no_option_here_is_answered_with_the_way(given, answer):
    with pytest.raises(ValueError, match=f"^--[a-z-]+: no such option. .*{re.escape(answer)}"):
        parsed(f"dqn {given}")


def test_no_name_of_another_library_is_an_option_and_each_is_answered_by_one():
    known = {*leaves(RunConfig()), *bringers(RunConfig), "out", "seeds", "quiet"}
    for name, row in other_names._OPTIONS.items():
        assert name not in known
        assert row.field in known
        assert other_names.other_name(name, ("1",), known, flags=True).startswith(
            f" Use --{row.field.replace('_', '-')}"
        )
    assert not known & other_names._SENTENCES.keys()
    names = [name for row in other_names._ROWS for name in row.names.split()]
    assert len(names) == len(set(names))


def test_what_jax_adds_to_an_error_of_a_trace_is_left_out(capsys, monkeypatch):
    network = networks.value_network(2, torso="nature", hidden_sizes=(4,))

    def build(arguments):
        return jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.uint8))

    with pytest.raises(ValueError, match=r"^observation: got images of 8x8") as caught:
        build([])
    assert caught.value.__notes__  # as JAX has it, where tracebacks are filtered
    monkeypatch.setitem(cli._COMMANDS, "train", build)
    assert cli.run(["train"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("polyak: observation: got images of 8x8; the nature torso takes 36x36 at least")


@pytest.mark.parametrize("command", [["agents"], ["agents", "--diff", "dqn", "rainbow"]])
def test_a_closed_pipe_is_quiet(command):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run([sys.executable, "-m", "polyak", *command], stdout=closed, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
