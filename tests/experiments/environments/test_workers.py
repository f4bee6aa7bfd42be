"""Environments in worker processes: the same steps as without, and what becomes of a process that fails."""

import contextlib
import os
import signal
import subprocess
import sys

import gymnasium as gym
import jax
import numpy as np
import pytest

import faulty_environments
from faulty_environments import DIE, EXIT, HANG, RAISE, WALK
from polyak.experiments.environments import local, workers
from polyak.experiments.environments.history import episode_seed
from polyak.experiments.environments.make import make
from polyak.experiments.environments.types import EnvironmentFailure

FAULTY = "faulty_environments:Faulty-v0"
WHAT = {
    RAISE: r"worker 1 raised ValueError: out of fuel",
    DIE: r"worker 1 was killed by SIGKILL \(out of memory\?\)",
    EXIT: r"worker 1 ended with exit status 3",
    HANG: r"worker 1 gave no answer in 2 s \(worker_timeout\)",
}
equal = jax.tree_util.Partial(jax.tree.map, np.testing.assert_array_equal)


def actions(steps, num_envs=3):
    return np.zeros((steps, num_envs), np.int64)


def told(lane, action):
    chosen = np.zeros(3, np.int64)
    chosen[lane] = action
    return chosen


@pytest.fixture(scope="module")
def environments():
    """Three lanes, the first two in worker 0; a module's tests share the processes."""
    made = make(FAULTY, 3, seed=4, workers=2, timeout=2.0, on_failure="restart")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(workers, "BACK_OFF", 0.01)


# Steps


def test_action_masks_equal_those_of_one_process():
    options = {"seed": 4, "action_mask": True}
    with contextlib.closing(make("faulty_environments:Masked-v0", 3, workers=2, **options)) as spread:
        plain = make("faulty_environments:Masked-v0", 3, **options)
        equal(spread.reset(), plain.reset())
        ended_without = 0
        for chosen in actions(40):
            ours, theirs = spread.step(chosen), plain.step(chosen)
            equal(ours, theirs)
            assert ours.timestep.action_mask.sum(axis=1).tolist() == [2, 2, 2]
            ended_without += int((~ours.action_mask_t.any(axis=1)).sum())
        assert ended_without > 0
        equal(spread.restore(plain.snapshot()), plain.restore(plain.snapshot()))
        # A snapshot may lead to a termination, where no action is legal: then the environment forgot its seed.
        snapshot = plain.snapshot() | {"length": np.array([60, 0, 0]), "actions": np.zeros(60, np.int32)}
        for environments in (spread, plain):
            with pytest.warns(UserWarning, match=r"environments \[0.*\] did not come back"):
                assert environments.restore(snapshot)[1][0]


def test_masks_that_are_not_used_are_warned_of_once():
    with contextlib.closing(make("faulty_environments:Masked-v0", 3, workers=2)) as environments:
        with pytest.warns(UserWarning, match="returns action masks, but they are not used") as warned:
            environments.reset()
        environments.reset()
    assert len(warned) == 1


def test_steps_and_snapshots_equal_those_of_one_process_to_the_bit(environments):
    plain = make(FAULTY, 3, seed=4)
    equal(environments.reset(), plain.reset())
    ends = 0
    for chosen in actions(60):
        ours, theirs = environments.step(chosen), plain.step(chosen)
        equal(ours, theirs)
        ends += ours.last.sum()
        equal(environments.snapshot(), plain.snapshot())
        assert ours.restarted is None
        assert [str(x.dtype) for x in jax.tree.leaves(ours)] == [str(x.dtype) for x in jax.tree.leaves(theirs)]
    assert ends > 5
    assert environments.spec == plain.spec


def test_either_kind_is_restored_from_the_others_snapshot(environments):
    plain = make(FAULTY, 3, seed=99)
    plain.reset()
    for chosen in actions(7):
        step = plain.step(chosen)
    timestep, restarted = environments.restore(plain.snapshot())
    assert not restarted.any()
    equal(timestep, step.timestep)
    for chosen in actions(30):
        equal(environments.step(chosen), plain.step(chosen))
    again = make(FAULTY, 3)
    timestep, restarted = again.restore(environments.snapshot())
    assert not restarted.any()
    for chosen in actions(30):
        equal(environments.step(chosen), again.step(chosen))


def test_a_lane_that_cannot_come_back_starts_a_new_episode(environments):
    environments.reset()
    step = environments.step(told(0, WALK))
    snapshot = environments.snapshot()
    snapshot["observation"] = snapshot["observation"].copy()
    snapshot["observation"][1] += 1
    with pytest.warns(UserWarning, match=r"environments \[1\] did not come back to the saved observation"):
        timestep, restarted = environments.restore(snapshot)
    assert restarted.tolist() == [False, True, False]
    np.testing.assert_array_equal(timestep.observation[[0, 2]], step.timestep.observation[[0, 2]])
    np.testing.assert_array_equal(
        timestep.observation[1], first_of(int(snapshot["seed"]), 1, snapshot["episode"][1] + 1)
    )
    assert timestep.first.tolist()[1]
    assert timestep.reward[1] == 0


def test_returned_arrays_are_kept_safe(environments):
    kept = [environments.reset(), *(environments.step(chosen) for chosen in actions(20))]
    before = [[np.array(x) for x in jax.tree.leaves(step)] for step in kept]
    environments.step(told(0, WALK))
    equal([jax.tree.leaves(step) for step in kept], before)


def test_the_processes_import_no_jax(environments):
    if not os.path.exists("/proc"):
        return
    for worker in environments._backend._workers:
        with open(f"/proc/{worker.process.pid}/maps") as maps:
            assert "jaxlib" not in maps.read()


# Faults


def first_of(seed, lane, episode):
    env = faulty_environments.Faulty()
    return env.reset(seed=episode_seed(seed, lane, int(episode)))[0]


@pytest.mark.parametrize("fault", WHAT)
def test_a_process_that_fails_is_replaced_and_its_lanes_begin_their_next_episodes(fault, environments):
    environments.reset()
    environments.step(told(2, WALK))
    before = environments.snapshot()
    other = environments._backend._workers[0].process.pid
    with pytest.warns(UserWarning, match=rf"environment 2, episode \d+, step \d, action {fault}: {WHAT[fault]}"):
        step = environments.step(told(2, fault))
    assert step.restarted.tolist() == [False, False, True]
    assert step.valid.tolist() == [True, True, False]
    assert (step.r_t[2], step.discount_t[2], step.last[2]) == (0, 1, False)
    assert step.timestep.first[2]
    assert step.timestep.reward[2] == 0
    seed, episode = int(before["seed"]), before["episode"][2] + 1
    np.testing.assert_array_equal(step.timestep.observation[2], first_of(seed, 2, episode))
    assert environments.snapshot()["episode"][2] == episode
    assert environments._backend._workers[0].process.pid == other
    after = environments.step(told(2, WALK))
    assert after.restarted is None
    assert after.valid.all()


def test_all_lanes_of_a_process_begin_anew_and_the_others_go_on(environments):
    environments.reset()
    plain = make(FAULTY, 3, seed=environments._history.seed)
    plain.restore(environments.snapshot())
    with pytest.warns(UserWarning, match=r"environments \[0, 1\] start new episodes in a new process after 0.01 s"):
        step = environments.step(told(0, DIE))
    assert step.restarted.tolist() == [True, True, False]
    expected = plain.step(told(0, WALK))
    equal([x[2] for x in jax.tree.leaves(step._replace(restarted=None))], [x[2] for x in jax.tree.leaves(expected)])


def test_a_traceback_is_shown_once(environments):
    environments.reset()
    environments._backend._traces_shown.clear()
    texts = []
    for _ in range(2):
        with pytest.warns(UserWarning, match="raised ValueError: out of fuel") as warned:
            environments.step(told(2, RAISE))
        texts.append(str(warned[0].message))
    first, second = texts
    assert first.count("Traceback") == 1
    assert "in fail\n    raise ValueError" in first
    assert "worker.py" not in first  # the environment's own frames alone
    assert "Traceback" not in second


def test_with_stop_a_fault_is_an_error_and_everything_stands_as_before_the_step(environments, monkeypatch):
    monkeypatch.setattr(environments._backend, "_on_failure", "stop")
    environments.reset()
    environments.step(told(0, WALK))
    before = environments.snapshot()
    place = rf"environment 2, episode {before['episode'][2]}, step {before['length'][2] + 1}, action 1"
    message = rf"^{place}: worker 1 raised ValueError: out of fuel\nTraceback"
    with pytest.raises(EnvironmentFailure, match=message) as failure:
        environments.step(told(2, RAISE))
    assert failure.value.intact
    equal(environments.snapshot(), before)
    _, restarted = environments.restore(before)
    assert not restarted.any()
    assert environments.step(told(2, WALK)).valid.all()
    environments._backend._workers[1].failures.clear()


def test_a_process_that_is_killed_between_two_steps_is_found_at_once(environments):
    environments.reset()
    os.kill(environments._backend._workers[0].process.pid, signal.SIGKILL)
    with pytest.warns(UserWarning, match=r"environments \[0, 1\]: worker 0 was killed by SIGKILL"):
        assert environments.step(told(0, WALK)).restarted.tolist() == [True, True, False]


def test_a_process_that_fails_at_a_reset_or_a_restore_is_replaced_too(environments):
    environments.reset()
    os.kill(environments._backend._workers[1].process.pid, signal.SIGKILL)
    with pytest.warns(UserWarning, match=r"environments \[2\]: worker 1 was killed"):
        timestep = environments.reset()
    assert timestep.first.all()
    environments.step(told(0, WALK))
    snapshot = environments.snapshot()
    os.kill(environments._backend._workers[1].process.pid, signal.SIGKILL)
    with pytest.warns(UserWarning, match=r"environments \[2\]: worker 1 was killed"):
        timestep, restarted = environments.restore(snapshot)
    assert restarted.tolist() == [False, False, True]
    np.testing.assert_array_equal(
        timestep.observation[2], first_of(int(snapshot["seed"]), 2, snapshot["episode"][2] + 1)
    )


def test_a_process_that_never_gets_anywhere_ends_the_run_with_its_first_traceback(monkeypatch):
    monkeypatch.setattr(workers, "FAILURES_IN_A_ROW", 1)
    environments = make("faulty_environments:NeverSteps-v0", workers=1, on_failure="restart")
    environments.reset()
    pid = environments._backend._workers[0].process.pid
    with pytest.warns(UserWarning, match="out of fuel"):
        environments.step(np.array([0]))
    with pytest.raises(EnvironmentFailure, match=r"failed 2 times with no step in between; at first, ") as failure:
        environments.step(np.array([0]))
    assert str(failure.value).count("Traceback") == 1
    assert f"out of fuel in {pid}" in str(failure.value)
    environments.close()
    environments.close()
    with pytest.raises(RuntimeError, match="already closed"):
        environments.reset()


# What cannot start


def test_an_environment_that_cannot_be_made_in_a_process():
    message = (
        r"env: 'faulty_environments:OnlyHere-v0': environment 0, while it was made: worker 0 raised OSError: no disp"
    )
    with pytest.raises(EnvironmentFailure, match=message) as failure:
        make("faulty_environments:OnlyHere-v0", workers=1)
    assert str(failure.value).count("Traceback") == 1


def test_an_environment_that_only_the_parent_knows():
    gym.register("PolyakTestLocal-v0", faulty_environments.Faulty)
    try:
        with pytest.raises(
            ValueError, match=r"'PolyakTestLocal-v0' is registered here and not in the worker processes"
        ):
            make("PolyakTestLocal-v0", workers=1)
    finally:
        del gym.registry["PolyakTestLocal-v0"]


@pytest.mark.parametrize("count", [-1, 3, True, 1.0])
def test_bad_numbers_of_workers(count):
    with pytest.raises(ValueError, match=r"workers: got .*; expected an integer, 0 <= workers <= num_envs, 2"):
        make("CartPole-v1", 2, workers=count)


@pytest.mark.parametrize("count", [0, 1])
def test_a_bad_seed_leaves_no_environment_open(count, monkeypatch):
    closed = []
    backend = workers.Workers if count else local.Local
    close = backend.close
    monkeypatch.setattr(backend, "close", lambda self: (closed.append(1), close(self)))
    with pytest.raises(ValueError, match=r"seed: got -1; expected an integer, 0 <= seed"):
        make("CartPole-v1", seed=-1, workers=count)
    assert closed == [1]


def test_what_is_wrong_with_the_environment_is_said_as_without_processes():
    with pytest.raises(ValueError, match="The closest ids: CartPole-v1"):
        make("CartPol-v1", workers=1)
    with pytest.raises(ValueError, match="action_space: got Box"):
        make("Pendulum-v1", workers=1)


SCRIPT = """
import os
import gymnasium
from faulty_environments import Faulty

gymnasium.register("Here-v0", Faulty)

def main():
    from polyak.experiments.environments.make import make

    environments = make("Here-v0", workers=1)
    print(environments.reset().observation.shape, flush=True)
    open_at_exit.append(environments)

open_at_exit = []

if __name__ == "__main__":
    main()
    os.environ["NO_GUARD"] = "1"
if "NO_GUARD" in os.environ:
    main()
"""


@pytest.mark.slow
def test_a_script_may_register_environments_and_needs_its_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([os.path.dirname(faulty_environments.__file__), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120
    )
    assert done.stdout == "(1, 2)\n", done.stderr
    assert done.returncode == 1
    assert 'when it is imported. Put the code that starts the run under `if __name__ == "__main__":`' in done.stderr
    assert done.stderr.count("Traceback") == 1
