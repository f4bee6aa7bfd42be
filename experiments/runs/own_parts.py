"""User-defined network, loss terms and agent maker: their texts in a config, and their objects."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from ...agents import Agent, make_agent
from ...replay.types import EnvironmentSpec
from ..environments.objects import resolve, text_of
from .config import RunConfig


def own_network(config: RunConfig, spec: EnvironmentSpec, given: Mapping[str, Any] = {}) -> Any:
    """User-defined network; None for the built-in network.

    Args:
        config: Config of the run.
        spec: Observations as the agent sees them, and the number of actions.
        given: Objects passed from Python, by their text in the config.

    Raises:
        ValueError: if the network cannot be imported, or is missing from ``given``.
    """
    if config.network == "none":
        return None
    found = resolve(config.network, given, "network")
    return found(spec) if callable(found) else found


def own_terms(config: RunConfig, given: Mapping[str, Any] = {}) -> dict[str, tuple[float, Any]]:
    """Weights and terms to add to the loss, by name.

    Raises:
        ValueError: if a text is not NAME=WEIGHT*TERM, or a term cannot be imported or is missing from ``given``.

    >>> own_terms(RunConfig(terms=("small=0.5*math:sqrt",)))["small"][0]
    0.5
    """
    found: dict[str, tuple[float, Any]] = {}
    for text in config.terms:
        name, equals, rest = text.partition("=")
        weight, star, term = rest.partition("*")
        if not (equals and star and name.isidentifier() and _is_number(weight)):
            raise ValueError(
                f"terms: got {text!r}; expected NAME=WEIGHT*MODULE:TERM, as in novelty=0.1*my_module:term."
            )
        found[name] = float(weight), resolve(term, given, "terms")
    return found


def own_maker(config: RunConfig, given: Mapping[str, Any] = {}) -> Callable[..., Agent]:
    """Function that makes the agent: :func:`polyak.agents.make_agent`, or a user-defined one with its signature.

    Raises:
        ValueError: if the function cannot be imported, or is missing from ``given``.
    """
    if config.maker == "none":
        return make_agent
    maker: Callable[..., Agent] = resolve(config.maker, given, "agent")
    return maker


def part_texts(
    network: Any = None, terms: Mapping[str, tuple[float, Any]] | None = None, maker: Any = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of a config, and the objects that must be passed again with them.

    Args:
        network: Network, or a function from the spec to a network; None for none.
        terms: Weights and terms by name; None for none.
        maker: Function with the signature of ``make_agent``; None for none.

    Raises:
        TypeError: if ``terms`` is not a mapping from names to weights and functions.
        ValueError: if two objects have the same name and cannot be distinguished.
    """
    fields: dict[str, Any] = {}
    given: dict[str, Any] = {}

    def text(value: Any) -> str:
        found = value if isinstance(value, str) else text_of(value)
        if found.startswith("<") and given.setdefault(found, value) is not value:
            raise ValueError(f"terms: got two objects of the name {found}; give functions with different names.")
        return found

    if network is not None:
        fields["network"] = text(network)
    if terms:
        try:
            pairs = [(name, float(weight), term) for name, (weight, term) in terms.items()]
        except (AttributeError, TypeError, ValueError):
            raise TypeError(
                f"terms: got {terms!r}; expected a dictionary of weights and terms, such as {{'mine': (0.1, term)}}."
            ) from None
        fields["terms"] = tuple(f"{name}={weight!r}*{text(term)}" for name, weight, term in pairs)
    if maker is not None:
        fields["maker"] = text(maker)
    return fields, given


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
