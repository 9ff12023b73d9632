"""From the options that a user gave by name to an instance of their owner's frozen dataclass."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Union

from ikvcore.errors import InvalidOptionError, MissingOptionError, UnknownOptionError
from ikvcore.models import Secret

__all__ = ["build_options"]

_CHECKED: Final[Mapping[Any, tuple[type, ...]]] = {
    str: (str,),
    bytes: (bytes,),
    bool: (bool,),
    int: (int,),
    float: (float, int),
    Path: (Path,),
    types.NoneType: (types.NoneType,),
}


def build_options(owner: str, options_type: type[Any], given: Mapping[str, Any]) -> Any:
    """An instance of the dataclass `options_type` from the options given; `owner` is how errors name it, "backend 'x'".

    Raises UnknownOptionError, MissingOptionError, InvalidOptionError; the last also from the dataclass' own validation.
    """
    fields = {field.name: field for field in dataclasses.fields(options_type) if field.init}
    for name in given:
        if name not in fields:
            raise UnknownOptionError(owner, name, fields)
    missing = [name for name, field in fields.items() if name not in given and _required(field)]
    if missing:
        raise MissingOptionError({name: f"{name}=... beside the name of {owner}" for name in missing})
    annotations = _annotations(options_type)
    for name, value in given.items():
        _check_type(fields[name], annotations.get(name, Any), value)
    return options_type(**given)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _annotations(options_type: type[Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(options_type)
    except (NameError, TypeError):  # a name imported for type checkers only; the dataclass then checks for itself
        return {}


def _check_type(field: dataclasses.Field[Any], annotation: Any, value: object) -> None:
    if not _fits(annotation, value):
        # repr=False is how a dataclass says that a field is secret
        shown = value if field.repr else Secret("")
        raise InvalidOptionError(field.name, shown, f"it takes {_described(annotation)}, not {type(value).__name__}")


def _fits(annotation: Any, value: object) -> bool:
    """Whether a simple annotation allows the value; what is not simple is left to the dataclass."""
    if _is_union(annotation):
        return any(_fits(member, value) for member in typing.get_args(annotation))
    if typing.get_origin(annotation) is Literal:
        return any(value == allowed and type(value) is type(allowed) for allowed in typing.get_args(annotation))
    if annotation not in _CHECKED:
        return True
    # True is an int to Python, but never what a user meant by a number
    return isinstance(value, _CHECKED[annotation]) and (annotation is bool or not isinstance(value, bool))


def _described(annotation: Any) -> str:
    if _is_union(annotation):
        return " or ".join(_described(member) for member in typing.get_args(annotation))
    if typing.get_origin(annotation) is Literal:
        return " or ".join(repr(allowed) for allowed in typing.get_args(annotation))
    return "None" if annotation is types.NoneType else str(getattr(annotation, "__name__", annotation))


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)
