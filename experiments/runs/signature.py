"""Signature of a function whose keywords are the fields of a config, for completion in Jupyter."""

import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def with_keywords(fields: type) -> Callable[[Function], Function]:
    """Decorator that replaces ``**fields`` in the signature of a function by the keywords of a TypedDict.

    Editors read the keywords from the annotation ``Unpack[...]``; Jupyter, ``help`` and ``inspect.signature`` read them
    from this signature. The default ``Ellipsis`` stands for the value of the agent. The function itself is not changed.

    Args:
        fields: TypedDict of the keywords.

    >>> class Fields(typing.TypedDict, total=False):
    ...     steps: int
    >>> @with_keywords(Fields)
    ... def train(agent: str, **fields: Any) -> None: ...
    >>> inspect.signature(train)
    <Signature (agent: str, *, steps: int = Ellipsis) -> None>
    """

    def decorated(function: Function) -> Function:
        signature = inspect.signature(function)
        named = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        keywords = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=..., annotation=annotation)
            for name, annotation in typing.get_type_hints(fields).items()
        ]
        vars(function)["__signature__"] = signature.replace(parameters=[*named, *keywords])
        return function

    return decorated
