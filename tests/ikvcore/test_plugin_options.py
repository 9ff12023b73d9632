"""ikvcore._plugin_options: from options given by name to an instance of their owner's dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from ikvcore._plugin_options import build_options
from ikvcore.errors import InvalidOptionError, MissingOptionError, UnknownOptionError

if TYPE_CHECKING:
    from nowhere import OnlyForTypeCheckers  # type: ignore[import-not-found]


@dataclass(frozen=True, kw_only=True)
class Options:
    path: str | Path
    size: int = 1
    ratio: float = 0.5
    sync: bool = True
    label: str | None = None
    mode: Literal["fast", "safe"] = "safe"
    extra: Mapping[str, Any] = field(default_factory=dict)
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.size < 0:
            raise InvalidOptionError("size", self.size, "it is not negative")


@dataclass(frozen=True, kw_only=True)
class Opaque:
    value: OnlyForTypeCheckers = None


def build(**given: object) -> Options:
    options = build_options("backend 'x'", Options, {"path": "/p", **given})
    assert isinstance(options, Options)
    return options


def test_what_is_given_is_set_and_the_rest_keeps_its_default() -> None:
    assert build(size=5, label="a") == Options(path="/p", size=5, label="a")


@pytest.mark.parametrize(
    ("name", "value"),
    [("path", Path("/p")), ("ratio", 1), ("sync", False), ("label", None), ("mode", "fast"), ("extra", {"a": 1})],
)
def test_values_that_fit_their_annotation_are_taken_as_they_are(name: str, value: object) -> None:
    assert getattr(build(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("path", b"/p", "str or Path, not bytes"),
        ("size", "1", "int, not str"),
        ("size", 1.0, "int, not float"),
        ("size", True, "int, not bool"),
        ("size", None, "int, not NoneType"),
        ("ratio", "0.5", "float, not str"),
        ("ratio", False, "float, not bool"),
        ("sync", 1, "bool, not int"),
        ("label", 1, "str or None, not int"),
        ("mode", "slow", "'fast' or 'safe', not str"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_the_option_takes(name: str, value: object, takes: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        build(**{name: value})
    assert str(caught.value) == f"option {name} cannot be {value!r}: it takes {takes}"


def test_an_unknown_option_is_told_with_the_valid_ones_and_a_near_miss() -> None:
    with pytest.raises(UnknownOptionError) as caught:
        build(sise=5)
    assert str(caught.value) == (
        "backend 'x' has no option 'sise' (did you mean 'size'?); "
        "valid options: extra, label, mode, password, path, ratio, size, sync"
    )


def test_a_required_option_that_is_missing_is_named_with_where_to_set_it() -> None:
    with pytest.raises(MissingOptionError, match=r"^path is required: set it with path=\.\.\. beside the name of back"):
        build_options("backend 'x'", Options, {})


def test_a_secret_of_the_wrong_type_is_not_shown() -> None:
    with pytest.raises(InvalidOptionError) as caught:
        build(password=b"hunter2")
    assert "hunter2" not in str(caught.value)


def test_the_dataclass_own_validation_comes_through() -> None:
    with pytest.raises(InvalidOptionError, match="it is not negative"):
        build(size=-1)


def test_annotations_that_cannot_be_resolved_are_left_to_the_dataclass() -> None:
    assert build_options("backend 'x'", Opaque, {"value": 5}) == Opaque(value=5)
