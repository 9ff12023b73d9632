"""What is installed: the backends, transports and observers that distributions announce, from metadata alone (C10).

Plugins are entry points of the groups below, whoever ships them; none is known here by name. importlib.metadata is
imported where it is used: it costs as much as a public module (C1).
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ikvcore.errors import PluginClashError, PluginNotFoundError

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

__all__ = [
    "Candidate",
    "Kind",
    "choose",
    "forget",
    "install_command",
    "installed",
    "missing_requirements",
    "usable_names",
]

Kind: TypeAlias = Literal["backend", "transport", "observer"]

_GROUPS: Final[Mapping[Kind, str]] = {
    "backend": "ikv_backends",
    "transport": "ikv_transports",
    "observer": "ikv_hooks",
}
_OWN_DISTRIBUTION: Final = "ikvcore"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A plugin as its distribution announces it; nothing of it was imported."""

    kind: Kind
    name: str
    """What users write in with_backend or with_transport; all observers are called, whatever their names."""
    distribution: str
    version: str
    entry_point: EntryPoint

    @property
    def qualified_name(self) -> str:
        """The name that no other distribution can claim: dist:name."""
        return f"{self.distribution}:{self.name}"


def installed(kind: Kind) -> list[Candidate]:
    """Every plugin of this kind that an installed distribution announces, by name; clashing ones stand side by side."""
    return sorted(_candidates()[kind], key=lambda candidate: (candidate.name, _normalized(candidate.distribution)))


def missing_requirements(candidate: Candidate) -> list[str]:
    """What is not installed of the extra that the plugin's distribution has under the plugin's name.

    That is how one distribution ships many plugins without bringing the drivers of all: what is missing here makes a
    plugin "not installed" rather than "broken".
    """
    return [name for name in _extra_requirements(candidate) if _distribution(name) is None]


def forget() -> None:
    """Read the installed distributions again at the next call."""
    _candidates.cache_clear()


@functools.cache
def _candidates() -> Mapping[Kind, Sequence[Candidate]]:
    from importlib import metadata

    found: dict[tuple[Kind, str, str], Candidate] = {}
    for distribution in metadata.distributions():
        for candidate in _announced_by(distribution):
            # One distribution may be seen twice (an editable install beside its egg-info, the same directory twice
            # on sys.path). The first is the one that an import finds.
            key = (candidate.kind, _normalized(candidate.distribution), candidate.name)
            found.setdefault(key, candidate)
    return {kind: [candidate for candidate in found.values() if candidate.kind == kind] for kind in _GROUPS}


def _announced_by(distribution: Distribution) -> list[Candidate]:
    """What a distribution brings; one whose metadata cannot be read hides only itself."""
    try:
        # Parsing every distribution's entry points would cost several times as much as reading them.
        if "ikv_" not in (distribution.read_text("entry_points.txt") or ""):
            return []
        return list(_parsed(distribution))
    except Exception as exc:
        _log.warning("passed over a distribution in %s that cannot be read: %r", distribution.locate_file(""), exc)
        return []


def _parsed(distribution: Distribution) -> Iterator[Candidate]:
    name = _header(distribution, "Name")
    if not name:
        raise ValueError("its metadata has no name")
    version = _header(distribution, "Version") or "(unknown version)"
    for kind, group in _GROUPS.items():
        for entry_point in distribution.entry_points.select(group=group):
            yield Candidate(
                kind=kind, name=entry_point.name, distribution=name, version=version, entry_point=entry_point
            )


def _header(distribution: Distribution, name: str) -> str | None:
    """A line of METADATA; asking for one that is not there is deprecated."""
    headers = distribution.metadata
    return headers[name] if name in headers else None  # noqa: SIM401  the protocol has no `get` before Python 3.12


def _normalized(distribution: str) -> str:
    """PEP 503: My.Plugin, my-plugin and my_plugin are one distribution."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _distribution(name: str) -> Distribution | None:
    from importlib import metadata

    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _extra_requirements(candidate: Candidate) -> list[str]:
    distribution = candidate.entry_point.dist
    marker = re.compile(r"""\bextra\s*==\s*["']([^"']+)["']""")
    names = []
    for requirement in (distribution.requires if distribution is not None else None) or ():
        head, _, markers = requirement.partition(";")
        if any(_normalized(extra) == _normalized(candidate.name) for extra in marker.findall(markers)):
            names.append(re.split(r"[^A-Za-z0-9._-]", head.strip(), maxsplit=1)[0])
    return names


def install_command(distribution: str, name: str) -> str | None:
    """The pip command that brings `name`, where `distribution` is installed and has an extra of that name."""
    found = _distribution(distribution)
    extras: list[str] = (found.metadata.get_all("Provides-Extra") if found is not None else None) or []
    matching = [extra for extra in extras if _normalized(extra) == _normalized(name)]
    return f"pip install '{distribution}[{matching[0]}]'" if matching else None


def choose(kind: Kind, name: str) -> Candidate:
    """The one plugin of this name, or of `dist:name`. Raises PluginNotFoundError, PluginClashError."""
    found = [candidate for candidate in installed(kind) if _answers_to(candidate, name)]
    if not found:
        distribution, _, own_name = name.rpartition(":")
        command = install_command(distribution or _OWN_DISTRIBUTION, own_name)
        raise PluginNotFoundError(kind, name, usable_names(kind, qualified=bool(distribution)), command)
    if len(found) > 1:
        raise PluginClashError(kind, name, [candidate.distribution for candidate in found])
    return found[0]


def _answers_to(candidate: Candidate, name: str) -> bool:
    distribution, colon, own_name = name.rpartition(":")
    if not colon:
        return candidate.name == name
    return candidate.name == own_name and _normalized(candidate.distribution) == _normalized(distribution)


def usable_names(kind: Kind, *, qualified: bool = False) -> list[str]:
    """Names for an error message: without the plugins that wait for an extra."""
    usable = [candidate for candidate in installed(kind) if not missing_requirements(candidate)]
    return sorted({candidate.qualified_name if qualified else candidate.name for candidate in usable})
