"""The examples in docstrings run, and everything public has a docstring."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import polyak

PARTS = [name for name in polyak.__all__ if importlib.util.find_spec(f"polyak.{name}")]


def modules_below(name: str, folder: str) -> Iterator[str]:
    """Names the modules of a package from its folder, so that collecting the tests imports none of them."""
    yield name
    for info in pkgutil.iter_modules([folder], prefix=f"{name}."):
        if info.ispkg:
            yield from modules_below(info.name, str(Path(folder) / info.name.rpartition(".")[2]))
        elif not info.name.endswith(".__main__"):
            yield info.name


def all_modules() -> list[str]:
    # An editable install maps each part on its own, so polyak's own folder does not hold them.
    modules = set(modules_below("polyak", polyak.__path__[0]))
    for part in PARTS:
        spec = importlib.util.find_spec(f"polyak.{part}")
        assert spec is not None
        for folder in spec.submodule_search_locations or []:
            modules |= set(modules_below(f"polyak.{part}", folder))
    return sorted(modules)


# Their examples train an agent, or compile networks operation by operation: in .ci/run.
SLOW = {"polyak.experiments.api", "polyak.experiments.reports.comparison"} | {
    f"polyak.networks.{name}"
    for name in ("conv", "heads", "image_torsos", "network", "projection", "torsos", "value_networks")
}


@pytest.mark.parametrize(
    "module", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in all_modules()]
)
def test_examples_run(module: str) -> None:
    result = doctest.testmod(
        importlib.import_module(module), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert result.failed == 0, "see the output above"


@pytest.mark.parametrize("module", all_modules())
def test_every_module_says_what_it_is(module: str) -> None:
    assert importlib.import_module(module).__doc__


@pytest.mark.parametrize("part", PARTS)
def test_everything_public_has_a_docstring(part: str) -> None:
    module = importlib.import_module(f"polyak.{part}")
    public = {name: getattr(module, name) for name in module.__all__}
    documented = {
        name: value
        for name, value in public.items()
        if inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)
    }
    # NamedTuples and dataclasses write their signature where no docstring is given.
    without = [
        name
        for name, value in documented.items()
        if not (value.__doc__ or "").strip() or value.__doc__.startswith(f"{value.__name__}(")
    ]
    assert without == []
    assert documented
