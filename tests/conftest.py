"""Settings of every test: no silent rank promotion (warnings are errors, see pyproject.toml)."""

import os

import jax
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker for each core: threads beside it would only wait for one another
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Asserts of helpers explain themselves as those of tests do.
pytest.register_assert_rewrite(
    "agent_samples",
    "device_runs",
    "functional_environments",
    "network_tools",
    "replay_pair",
    "replay_record",
    "scripted_environments",
    "small_runs",
)


def pytest_configure(config):
    """Most programs of tests run a few times: without most of XLA's optimizations they compile in half the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # of the processes that tests start


@pytest.fixture(scope="session", autouse=True)
def _programs_are_compiled_once(tmp_path_factory, worker_id):
    """Many tests train the same small agents: what one of them has compiled, the others read from a folder.

    It is a new folder for each session, unless JAX_COMPILATION_CACHE_DIR names one. An empty variable keeps the
    commands that tests start from writing to the user's folder.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = tmp_path_factory.getbasetemp()
        folder = base if worker_id == "master" else base.parent  # that of all workers
        os.environ["JAX_COMPILATION_CACHE_DIR"] = ""
        jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture
def compiled_as_released():
    """For numbers that depend on the rounding of XLA's optimized programs, and for programs that run for long."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
