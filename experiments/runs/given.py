"""Fields passed from Python: texts in place of objects, and the objects that no module has."""

import pathlib
from collections.abc import Mapping
from typing import Any

from ...agents.fields import check_name
from ..environments.make import given_environment
from ..environments.objects import kwargs_text, text_of
from .finished import Pretrained, Run
from .own_parts import part_texts


def as_texts(fields: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Fields with texts in the place of objects, and the objects that no module has, by their text."""
    texts, given = {**fields, **path_as_text("initial", fields)}, dict[str, Any]()
    if "env" in fields:
        texts["env"], environment = given_environment(fields["env"])
        given |= environment
    if isinstance(fields.get("env_kwargs"), Mapping):
        texts["env_kwargs"] = kwargs_text(fields["env_kwargs"])
    if isinstance(fields.get("wrappers"), list | tuple):
        named = [(one if isinstance(one, str) else text_of(one), one) for one in fields["wrappers"]]
        texts["wrappers"] = tuple(text for text, _ in named)
        given |= {text: one for text, one in named if text.startswith("<")}
    own, objects = part_texts(*(texts.pop(name, None) for name in ("network", "terms", "agent")))
    return {**texts, **own}, {**given, **objects}


def given_again(objects: Mapping[str, Any]) -> Mapping[str, Any]:
    """Objects that no module has, by their text, which are given once more for a run that was begun with them."""
    check_objects(objects)
    return as_texts(objects)[1]


def check_objects(objects: Mapping[str, Any]) -> None:
    """Check the names of objects that are given once more.

    Raises:
        ValueError: if a name is unknown.
    """
    for name in objects:
        check_name(name, ("env", "wrappers", "network", "terms", "agent"), "object")


def path_as_text(name: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """A field that is a path, or a run, as a text; nothing where it is neither."""
    value = fields.get(name)
    path = value.folder if isinstance(value, Run | Pretrained) else value
    return {name: str(path)} if isinstance(path, pathlib.Path) else {}
