"""What every test runs under: no silent rank promotion (warnings are errors, see pyproject.toml)."""

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

# Asserts of helpers explain themselves as those of tests do.
pytest.register_assert_rewrite("network_tools", "replay_record", "small_runs", "told_environments")
