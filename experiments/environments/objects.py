"""User-defined objects in a config: the text of an import path, or a placeholder for an object without one.

A config contains texts. ``my_module:MyEnv`` is imported when it is needed. ``<MyEnv>`` is a placeholder for an object
that was passed from Python and has no import path: an instance, a local function, or a class of the script itself. Such
an object must be passed again when the config is read.
"""

import importlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ...agents.fields import did_you_mean

_VERSIONED = re.compile(r"-v\d+$")


def text_of(value: Any) -> str:
    """Text of an object: its import path if it can be imported, otherwise its name in angle brackets.

    >>> import collections
    >>> text_of(collections.OrderedDict), text_of(lambda: 3), text_of(3)
    ('collections:OrderedDict', '<lambda>', '<int>')
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module not in (None, "__main__") and name is not None and "<" not in name:
        path = f"{module}:{name}"
        try:
            if imported(path, "object") is value:
                return path
        except ValueError:
            pass
    last = (name or type(value).__qualname__).rpartition(".")[2]
    return last if last.startswith("<") else f"<{last}>"


def names_object(text: str) -> bool:
    """Whether a text names an object of a module or one passed from Python, and not a registered id.

    >>> names_object("my_module:MyEnv"), names_object("<MyEnv>"), names_object("minigrid:MiniGrid-Empty-5x5-v0")
    (True, True, False)
    """
    _, colon, name = text.partition(":")
    return text.startswith("<") or bool(colon and not _VERSIONED.search(name))


def resolve(text: str, given: Mapping[str, Any], field: str) -> Any:
    """Object of a text: the one passed from Python, or the imported one.

    Args:
        text: Text of the object.
        given: Objects passed from Python, by their text.
        field: Name of the config field, for the error.

    Raises:
        ValueError: if the object cannot be imported, or is missing from ``given``.
    """
    if text in given:
        return given[text]
    if text.startswith("<"):
        others = f", and got {', '.join(given)}" if given else ""
        raise ValueError(
            f"{field}: the run was begun with {text[1:-1]}, an object that no module has{others}. Give it again from "
            f"Python, as in polyak.resume(folder, {field}={text[1:-1]}); an object of a module is found automatically."
        )
    return imported(text, field)


def imported(path: str, field: str) -> Any:
    """Object of the import path ``module:name``.

    Raises:
        ValueError: if the module or the name does not exist, or if the module needs a package that is not installed.

    >>> imported("collections:OrderedDict", "env").__name__
    'OrderedDict'
    """
    module_name, _, name = path.partition(":")
    found: Any = imported_module(module_name, path, field)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(
                f"{field}: got {path!r}, but {module_name} has no {name!r}."
                f"{did_you_mean(name, [one for one in vars(found) if not one.startswith('_')])}"
            )
        found = getattr(found, part)
    return found


def imported_module(module_name: str, path: str, field: str) -> Any:
    """Module of an import path.

    Raises:
        ValueError: if the module does not exist, or needs a package that is not installed.
    """
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise ValueError(
                f"{field}: got {path!r}, but there is no module {missing!r} in the working directory or on Python's "
                f"path. Run polyak where {missing.partition('.')[0]}.py is, or add its folder to PYTHONPATH."
            ) from None
        raise ValueError(
            f"{field}: {path!r} needs the package {missing!r}, which {module_name} imports and which is not installed."
        ) from error


def read_kwargs(text: str) -> dict[str, Any]:
    """Keyword arguments from the text of a JSON object.

    Raises:
        ValueError: if the text is not a JSON object.

    >>> read_kwargs('{"size": 3}')
    {'size': 3}
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        found, reason = None, f" ({error})"
    else:
        reason = ""
    if not isinstance(found, dict):
        raise ValueError(f"""env_kwargs: got {text!r}; expected a JSON object{reason}. Example: '{{"size": 3}}'.""")
    return found


def kwargs_text(kwargs: Mapping[str, Any]) -> str:
    """Text of keyword arguments as a JSON object.

    Raises:
        TypeError: if a value cannot be represented in JSON.

    >>> kwargs_text({"size": 3})
    '{"size": 3}'
    """
    try:
        return json.dumps(dict(kwargs), sort_keys=True)
    except TypeError as error:
        raise TypeError(
            f"env_kwargs: got {dict(kwargs)!r}, which config.json cannot hold ({error}). Give env as a function that "
            "makes the environment with them."
        ) from None
