"""What every test runs under: no silent rank promotion (warnings are errors, see pyproject.toml)."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
