"""Runs on disk: which of them are one group, and what the groups are called."""

import re

import pytest

from polyak.experiments.reports.comparison import compare
from polyak.experiments.reports.found_runs import read_run, run_folders
from polyak.experiments.reports.run_groups import (
    grouped,
    parse_labels,
    pooling_notes,
    renamed,
)
from written_runs import write_run


class TestGroups:
    def test_seed_environment_and_what_changes_no_learning_part_nothing(self, tmp_path):
        changed = [
            {},
            {"seed": 1},
            {"seed": 2, "log_every": 50, "checkpoint_every": 300, "evaluation_episodes": 7},
            {"seed": 3, "num_envs": 1, "workers": 1, "worker_timeout": 9.0, "on_env_failure": "restart"},
            {"env": "Acrobot-v1"},
        ]
        runs = [read_run(write_run(tmp_path / str(i), [1.0], **fields)) for i, fields in enumerate(changed)]
        [(label, strata)] = grouped(runs).items()
        assert label == "n_step_double_dqn"
        assert {environment: [run.seed for run in one] for environment, one in strata.items()} == {
            "CartPole-v1": [0, 1, 2, 3],
            "Acrobot-v1": [0],
        }

    def test_a_label_says_what_differs_and_no_more(self, tmp_path):
        agents = [{"target": "none"}, {"n_steps": 3}, {"target": "none", "hidden_sizes": (8, 9)}]
        runs = [read_run(write_run(tmp_path / str(i), [1.0], **agent)) for i, agent in enumerate(agents)]
        assert list(grouped(runs)) == [
            "hidden_sizes=8, target=none, n_steps=10",
            "hidden_sizes=8, target=periodic:50, n_steps=3",
            "hidden_sizes=8 9, target=none, n_steps=10",
        ]
        assert list(grouped(runs[:2])) == ["target=none, n_steps=10", "target=periodic:50, n_steps=3"]

    def test_the_name_of_an_agent_stands_for_its_config(self, tmp_path):
        agents = [
            ("dqn", {"target": "none"}),
            ("dqn", {"n_steps": 3}),
            ("c51", {"target": "none"}),
            ("c51", {}),
        ]
        first, second, other, plain = (
            read_run(write_run(tmp_path / str(i), [1.0], agent=agent, **fields))
            for i, (agent, fields) in enumerate(agents)
        )
        assert list(grouped([first, other])) == ["dqn", "c51"]
        assert list(grouped([first, second, other])) == [
            "dqn, target=none, n_steps=1",
            "dqn, target=periodic:200, n_steps=3",
            "c51, target=none",
        ]
        assert list(grouped([first, plain])) == ["dqn, target=none", "c51"]

    def test_the_numbers_of_a_preset_are_part_of_its_name(self, tmp_path):
        first, other = (
            read_run(write_run(tmp_path / agent, [1.0], agent=agent, preset="atari")) for agent in ("dqn", "c51")
        )
        assert list(grouped([first, other])) == ["dqn", "c51"]

    def test_a_folder_of_runs_stands_for_its_runs_and_no_run_counts_twice(self, tmp_path):
        for name in ("b", "a"):
            write_run(tmp_path / "runs" / name, [1.0])
        (tmp_path / "runs" / "notes").mkdir()
        write_run(tmp_path / "runs" / "sweep" / "first", [1.0])
        found = run_folders([tmp_path / "runs", tmp_path / "runs" / "a", tmp_path / "runs" / ".." / "runs" / "b"])
        assert found == [tmp_path / "runs" / name for name in ("a", "b", "sweep/first")]

    def test_a_seed_counts_once_and_is_said_so(self, tmp_path):
        """Row 117 of the faults: duplicate seeds."""
        write_run(tmp_path / "a", [1.0, 1.0])
        write_run(tmp_path / "b", [1.0, 1.0], greedy=5.0)
        write_run(tmp_path / "c", [1.0, 1.0], greedy=7.0)
        write_run(tmp_path / "d", [3.0, 3.0], greedy=8.0, seed=1)
        comparison = compare(tmp_path)
        assert [row.seeds for row in comparison.rows] == [2]
        assert float(comparison.rows[0].greedy.iqm.value) == 6.5
        assert comparison.notes == [
            f"{tmp_path / 'a'} repeats {tmp_path / 'b'}, config and seed 0; it is left out.",
            f"{tmp_path / 'c'} repeats {tmp_path / 'b'}, config and seed 0; it is left out.",
        ]

    def test_groups_follow_the_order_of_the_folders(self, tmp_path):
        for name, fields in {"a": {"target": "none"}, "b": {}, "c": {"target": "frozen"}}.items():
            write_run(tmp_path / name, [1.0], greedy=1.0, **fields)
        comparison = compare(tmp_path / "c", tmp_path / "a", tmp_path)
        assert [row.group for row in comparison.rows] == ["target=frozen", "target=none", "target=periodic:50"]
        assert list(comparison.scores) == [curve.group for curve in comparison.curves]


@pytest.fixture
def runs(tmp_path):
    """Two targets with two numbers of steps each, one of them in another agent."""
    changed = [
        {"target": "none", "n_steps": 3},
        {"target": "none", "n_steps": 5, "hidden_sizes": (8, 9)},
        {"target": "frozen", "n_steps": 3, "seed": 1},
        {"target": "frozen", "n_steps": 3, "agent": "c51", "log_every": 50},
    ]
    return [read_run(write_run(tmp_path / str(i), [1.0], **fields)) for i, fields in enumerate(changed)]


class TestGroupBy:
    def test_the_fields_named_alone_part_groups(self, runs):
        found = grouped(runs, ["target"])
        folders = {group: [run.folder.name for run in strata["CartPole-v1"]] for group, strata in found.items()}
        assert folders == {"target=none": ["0", "1"], "target=frozen": ["2", "3"]}
        assert list(grouped(runs, ["n-steps", "agent"])) == [
            "n_steps=3, n_step_double_dqn",
            "n_steps=5, n_step_double_dqn",
            "n_steps=3, c51",
        ]

    def test_a_field_that_some_runs_do_not_have_is_a_dash(self, runs):
        assert list(grouped(runs, ["num_atoms"])) == ["num_atoms=-", "num_atoms=51"]

    def test_notes_name_the_other_fields_and_their_values(self, runs):
        none, frozen = pooling_notes(grouped(runs, ["target"]))
        assert none == (
            "group target=none pools runs that differ in hidden_sizes (8; 8 9), n_steps (3; 5); "
            "each of its runs counts as one seed."
        )
        assert frozen.startswith("group target=frozen pools runs that differ in agent (n_step_double_dqn; c51), ")
        assert pooling_notes(grouped(runs)) == []

    def test_pooled_runs_are_compared_with_a_note(self, tmp_path):
        for number, greedy in enumerate((4.0, 8.0)):
            write_run(tmp_path / str(number), [1.0], greedy=greedy, n_steps=1 + number)
        comparison = compare(tmp_path, group_by=["target"])
        assert [(row.group, row.seeds, float(row.greedy.iqm.value)) for row in comparison.rows] == [
            ("target=periodic:50", 2, 6.0)
        ]
        assert "pools runs that differ in n_steps (1; 2)" in comparison.notes[0]

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            (["tagret"], "group_by: got 'tagret', a field that no run has; .* Did you mean 'target'?"),
            (["target", "target"], "group_by: got target target; expected each field once."),
            (["seed"], "group_by: got 'seed', a field that no run has"),
        ],
    )
    def test_errors(self, runs, fields, message):
        with pytest.raises(ValueError, match=message):
            grouped(runs, fields)

    def test_a_text_is_no_sequence_of_names(self, tmp_path):
        with pytest.raises(TypeError, match=re.escape("expected a sequence of names, such as ['target']")):
            compare(write_run(tmp_path / "run", [1.0]), group_by="target")


class TestLabels:
    @pytest.mark.parametrize("text", ["target=none, n_steps=3", "target=none", "none"])
    def test_a_group_is_renamed_by_its_label_a_field_or_a_value(self, runs, text):
        groups = grouped([runs[0], runs[2]], ["target", "n_steps"])
        assert list(groups) == ["target=none, n_steps=3", "target=frozen, n_steps=3"]
        found = renamed(groups, {text: "mine", "frozen": "other"})
        assert {name: strata["CartPole-v1"] for name, strata in found.items()} == {
            "mine": [runs[0]],
            "other": [runs[2]],
        }
        assert list(found) == ["mine", "other"]

    def test_a_whole_label_comes_before_a_field_in_another(self):
        groups = {"dqn": {}, "dqn, target=none": {}}
        assert list(renamed(groups, {"dqn": "plain"})) == ["plain", "dqn, target=none"]

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (
                {"nne": "x"},
                "label: 'nne' fits no group; expected the label, or a field, of one of: target=none, n_steps=3",
            ),
            ({"n_steps=3": "x"}, "label: 'n_steps=3' fits 2 groups; expected"),
            ({"target": "x"}, "label: 'target' fits no group"),
            ({"none": "x", "target=none": "y"}, "label: group 'target=none, n_steps=3' is named 'x' and 'y'"),
            ({"none": "x", "frozen": "x"}, "label: got 'x' for 2 groups"),
            ({"none": "target=frozen, n_steps=3"}, "label: got 'target=frozen, n_steps=3' for 2 groups"),
            ({"none": " "}, "label: got ' ' for 1 groups"),
        ],
    )
    def test_a_name_that_could_be_mixed_up_is_an_error(self, runs, labels, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            renamed(grouped([runs[0], runs[2]], ["target", "n_steps"]), labels)

    def test_texts_of_the_command_line(self):
        assert parse_labels(["target=none=x y", "50=hard"]) == {"target=none": "x y", "50": "hard"}
        with pytest.raises(ValueError, match="label: got 'hard'; expected GROUP=NAME"):
            parse_labels(["hard"])
        with pytest.raises(ValueError, match="label: got 'a=c'; a group that is named twice"):
            parse_labels(["a=b", "a=c"])


@pytest.mark.parametrize(
    ("folders", "options", "message"),
    [
        ([["a", "b"]], {}, "runs: got ['a', 'b'] (list); expected paths of folders."),
        ([], {"labels": ["none=x"]}, "labels: got ['none=x']; expected names of groups to texts"),
        ([], {"labels": {"none": 3}}, "labels: got {'none': 3}; expected names of groups to texts"),
        ([], {"window": 2.5}, "window: got 2.5 (float); expected an integer >= 1."),
    ],
)
def test_arguments_of_another_type_are_named(folders, options, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        compare(*folders, **options)
