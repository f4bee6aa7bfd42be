"""Flags of ``polyak train``: every leaf of the parts that are there, and what is said of the others."""

import itertools
import re
import typing

import jax
import numpy as np
import pytest

from config_tools import LEAVES, unions
from polyak import networks
from polyak.agents import AGENTS, PRESETS, Schedule, make_configs
from polyak.agents.parts import bringers, leaves
from polyak.experiments import cli
from polyak.experiments.runs.config import RunConfig, make_run_config
from polyak.experiments.runs.flags import parse_run, run_flags


def parsed(text, **named):
    arguments = text.split() if isinstance(text, str) else text
    return parse_run(arguments, cli.TrainCommand, "", **named)[0]


def flag(name):
    return f"--{name.replace('_', '-')}"


# A value that is no default, as text and as it is read; of other leaves it follows from the type.
OTHER = {
    "hidden_sizes": ("3 4", (3, 4)),
    "transition_sizes": ("3 4", (3, 4)),
    "loggers": ("wandb", ("wandb",)),
    "target": ("none", "none"),
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
    ("bootstrap", "munchausen"): "--head quantile",
    ("self_prediction", "conv"): "--core none",
}


def beside(name, union, kind):
    """Flags that a kind needs beside it: those of ``BESIDE``, and others of parts that the agent could not keep."""
    config = make_run_config(name)
    words = [BESIDE[union, kind]] if (union, kind) in BESIDE else []
    if leaves(config).get("projection", "none") != "none" and kind in ("implicit_quantile", "ensemble"):
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
        ("--steps", "--steps"),
        ("--torso deep", "deep"),
        ("dqn rainbow", "rainbow"),
        ("--head", "--head"),
    ],
)
def test_values_that_cannot_be_read_are_told_by_tyro(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(["train", *arguments.split()])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert message in said.out + said.err


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
