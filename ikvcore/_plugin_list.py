"""Every installed backend, transport and observer as it presents itself; one that is broken hides no other."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from ikvcore._discovery import Candidate, Kind, install_command, installed, missing_requirements
from ikvcore._observers import load_observer
from ikvcore._registry import load
from ikvcore.errors import PluginError, PluginNotFoundError
from ikvcore.models import BackendInfo, TransportInfo

__all__ = ["OptionReport", "PluginReport", "list_plugins"]

_KINDS: Final[tuple[Kind, ...]] = ("backend", "transport", "observer")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionReport:
    """An option of a plugin."""

    name: str
    type: str
    """As it is annotated."""
    required: bool
    default: Any = None
    """None where it is required or secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginReport:
    """A plugin as its distribution announces it and, where it could be loaded, as it says of itself."""

    kind: str
    """"backend", "transport" or "observer"."""
    name: str
    chosen_as: str
    """What users write: the name, or dist:name where another distribution claims the name too."""
    distribution: str
    version: str
    state: str
    """"ready", "not installed" (what its distribution's extra brings is missing) or "broken"."""
    problem: str | None
    """Why it is not ready, in one line: the pip command that helps, or the cause."""
    info: BackendInfo | TransportInfo | None
    """None where it is not ready, and for observers."""
    options: tuple[OptionReport, ...] = ()
    hooks: tuple[str, ...] = ()
    """What an observer is told of."""


def list_plugins() -> list[PluginReport]:
    """Backends, then transports, then observers, by name. Imports those whose requirements are installed."""
    return [_report(candidate) for kind in _KINDS for candidate in installed(kind)]


def _report(candidate: Candidate) -> PluginReport:
    missing = missing_requirements(candidate)
    if missing:
        return _unready(candidate, "not installed", f"{', '.join(missing)} is missing; {_way_out(candidate)}")
    try:
        if candidate.kind == "observer":
            return _ready(candidate, hooks=tuple(load_observer(candidate)))
        info = load(candidate.kind, candidate.qualified_name).info
    except PluginNotFoundError:
        return _unready(candidate, "not installed", _way_out(candidate))
    except PluginError as exc:
        return _unready(candidate, "broken", str(exc))
    return _ready(candidate, info=info, options=tuple(map(_option, dataclasses.fields(info.options))))


def _ready(
    candidate: Candidate,
    *,
    info: BackendInfo | TransportInfo | None = None,
    options: tuple[OptionReport, ...] = (),
    hooks: tuple[str, ...] = (),
) -> PluginReport:
    return PluginReport(
        kind=candidate.kind,
        name=candidate.name,
        chosen_as=_chosen_as(candidate),
        distribution=candidate.distribution,
        version=candidate.version,
        state="ready",
        problem=None,
        info=info,
        options=options,
        hooks=hooks,
    )


def _unready(candidate: Candidate, state: str, problem: str) -> PluginReport:
    return PluginReport(
        kind=candidate.kind,
        name=candidate.name,
        chosen_as=_chosen_as(candidate),
        distribution=candidate.distribution,
        version=candidate.version,
        state=state,
        problem=" ".join(problem.split()),
        info=None,
    )


def _chosen_as(candidate: Candidate) -> str:
    # All observers are called, so none of them is in another's way.
    alike = [each for each in installed(candidate.kind) if each.name == candidate.name]
    return candidate.qualified_name if len(alike) > 1 and candidate.kind != "observer" else candidate.name


def _way_out(candidate: Candidate) -> str:
    command = install_command(candidate.distribution, candidate.name)
    return f"install it with: {command}" if command else f"see the documentation of {candidate.distribution}"


def _option(field: dataclasses.Field[Any]) -> OptionReport:
    required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    shown = not required and field.repr  # repr=False is how a dataclass says that a field is secret
    text = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
    return OptionReport(name=field.name, type=text, required=required, default=default if shown else None)
