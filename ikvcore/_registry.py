"""From the name of a backend or transport to a plugin that can be called, and what a client may ask of one (C9, C10).

Only the chosen plugin is imported; its group's pluggy manager checks its hooks, and lets hooks gain arguments later
without breaking it. pluggy is imported where it is used: it costs as much as all of the public modules (C1).
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, TypeAlias, TypeVar

from ikvcore._discovery import (
    Candidate,
    Kind,
    choose,
    forget,
    install_command,
    installed,
    missing_requirements,
    usable_names,
)
from ikvcore._plugin_options import build_options
from ikvcore.errors import (
    PluginBrokenError,
    PluginError,
    PluginNotFoundError,
    PluginVersionError,
    RequirementError,
    near_miss,
)
from ikvcore.models import API_VERSION, BackendInfo, Durability, Sharing, TransportInfo

if TYPE_CHECKING:
    import pluggy

__all__ = [
    "Candidate",
    "Kind",
    "LoadedPlugin",
    "PluginHooks",
    "Requirements",
    "broken",
    "build_options",
    "check_requirements",
    "import_plugin",
    "installed",
    "lacks_capability",
    "load",
    "load_backend",
    "load_transport",
    "missing_requirements",
    "refresh",
    "unknown_hooks",
]

Info: TypeAlias = BackendInfo | TransportInfo
InfoT = TypeVar("InfoT", bound=Info)

_lock = threading.RLock()  # reentrant: a plugin's import may load another plugin


class PluginHooks:
    """The hooks of one plugin: `hooks.ikv_open_backend(context=...)` calls this plugin only.

    Hooks give the first result, so a call to a group that has two plugins loaded would be answered by either. Which
    others to leave out is found at each call, since more plugins may be loaded meanwhile.
    """

    def __init__(self, candidate: Candidate, manager: pluggy.PluginManager, plugin: object) -> None:
        self._candidate = candidate
        self._manager = manager
        self._plugin = plugin

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("ikv_"):  # copy and pickle ask for theirs before there are attributes
            raise AttributeError(name)
        if not self.implements(name):
            raise AttributeError(f"{self._candidate.kind} {self._candidate.name!r} does not implement {name}")
        return functools.partial(self._call, name)

    def implements(self, name: str) -> bool:
        """Whether the plugin has this hook."""
        return any(caller.name == name for caller in self._manager.get_hookcallers(self._plugin) or ())

    def _call(self, name: str, **arguments: Any) -> Any:
        with _lock:
            others = [plugin for plugin in self._manager.get_plugins() if plugin is not self._plugin]
            call = self._manager.subset_hook_caller(name, others)
        try:
            result = call(**arguments)
        except ImportError as exc:  # drivers may be imported as late as this
            _raise_import_error(self._candidate, exc)
        except SystemExit as exc:
            raise broken(self._candidate, f"its hook {name} {_ends_the_program(exc)}") from exc
        if result is None:
            raise broken(self._candidate, f"its hook {name} returned None")
        return result


@dataclass(frozen=True)
class LoadedPlugin(Generic[InfoT]):
    """A plugin that was imported and whose hooks were checked."""

    kind: Kind
    name: str
    """The entry point's name, also where it was asked for as dist:name."""
    info: InfoT
    distribution: str
    version: str
    hook: PluginHooks


def load_backend(name: str) -> LoadedPlugin[BackendInfo]:
    """The backend of this name, or of `dist:name`. Raises PluginError."""
    return _BACKENDS.load(name)


def load_transport(name: str) -> LoadedPlugin[TransportInfo]:
    """The transport of this name, or of `dist:name`. Raises PluginError."""
    return _TRANSPORTS.load(name)


def load(kind: Kind, name: str) -> LoadedPlugin[BackendInfo] | LoadedPlugin[TransportInfo]:
    """As load_backend or load_transport; observers are loaded in ikvcore._observers."""
    assert kind != "observer"
    return load_backend(name) if kind == "backend" else load_transport(name)


def refresh() -> None:
    """Forget all that was read and loaded, so that the next call reads the installed distributions again. For tests."""
    with _lock:
        forget()
        _BACKENDS.clear()
        _TRANSPORTS.clear()


class _Group(Generic[InfoT]):
    """The plugins of one kind, and the pluggy manager that checks them: one a kind, since names repeat across kinds."""

    def __init__(self, kind: Kind, spec: str, info_type: type[InfoT]) -> None:
        self._kind: Final = kind
        self._spec = spec
        self._info_type: type[InfoT] = info_type
        self._info_hook = f"ikv_{kind}_info"
        self._open_hook = f"ikv_open_{kind}"
        self._loaded: dict[str, LoadedPlugin[InfoT]] = {}

    def clear(self) -> None:
        self._loaded.clear()
        self.__dict__.pop("_manager", None)

    @functools.cached_property
    def _manager(self) -> pluggy.PluginManager:
        import pluggy

        from ikvcore import hookspecs

        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(getattr(hookspecs, self._spec))
        return manager

    def load(self, name: str) -> LoadedPlugin[InfoT]:
        with _lock:
            candidate = choose(self._kind, name)
            if candidate.qualified_name not in self._loaded:
                self._loaded[candidate.qualified_name] = self._load(candidate)
            return self._loaded[candidate.qualified_name]

    def _load(self, candidate: Candidate) -> LoadedPlugin[InfoT]:
        plugin = import_plugin(candidate)
        already = self._manager.is_registered(plugin)  # two names, or two distributions, may lead to one object
        try:
            if not already:
                self._register(candidate, plugin)
            hook = PluginHooks(candidate, self._manager, plugin)
            info = self._info(candidate, hook)
        except PluginError:
            # a plugin that failed pluggy's own check may or may not have been left registered, by pluggy's version
            if not already and self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            raise
        return LoadedPlugin(self._kind, candidate.name, info, candidate.distribution, candidate.version, hook)

    def _register(self, candidate: Candidate, plugin: object) -> None:
        try:
            self._manager.register(plugin, name=candidate.qualified_name)
        except Exception as exc:  # pluggy names the hook and the argument that its specification lacks
            self._check_declared_version(candidate, plugin)
            raise broken(candidate, exc) from exc
        if not self._manager.get_hookcallers(plugin):
            raise broken(candidate, f"{candidate.entry_point.value} has no function marked with hookimpl")
        unknown = unknown_hooks(self._manager, plugin)
        if unknown:
            self._check_declared_version(candidate, plugin)
            raise broken(candidate, f"it implements unknown hook {unknown[0]!r}{near_miss(unknown[0], _all_hooks())}")

    def _check_declared_version(self, candidate: Candidate, plugin: object) -> None:
        """Hooks of another API version fail in many ways; that it is another version explains them all."""
        declared: object = API_VERSION
        with suppress(Exception, SystemExit):
            declared = getattr(plugin, self._info_hook)().api_version
        self._check_version(candidate, declared)

    def _check_version(self, candidate: Candidate, declared: object) -> None:
        if declared != API_VERSION:
            raise PluginVersionError(self._kind, candidate.name, candidate.distribution, declared, API_VERSION)

    def _info(self, candidate: Candidate, hook: PluginHooks) -> InfoT:
        info = self._call_info(candidate, hook)
        self._check_version(candidate, getattr(info, "api_version", API_VERSION))
        if not isinstance(info, self._info_type):
            raise broken(candidate, f"{self._info_hook} returned {info!r}, not a {self._info_type.__name__}")
        if not (isinstance(info.options, type) and dataclasses.is_dataclass(info.options)):
            raise broken(candidate, f"the options in its info, {info.options!r}, are not a dataclass")
        self._require_hook(candidate, hook, self._open_hook)
        for capability, name in _CAPABILITY_HOOKS.items():
            if capability in info.capabilities:
                self._require_hook(candidate, hook, name)
        return info

    def _call_info(self, candidate: Candidate, hook: PluginHooks) -> Any:
        self._require_hook(candidate, hook, self._info_hook)
        try:
            return getattr(hook, self._info_hook)()
        except PluginError:
            raise
        except Exception as exc:
            raise broken(candidate, exc) from exc

    @staticmethod
    def _require_hook(candidate: Candidate, hook: PluginHooks, name: str) -> None:
        if not hook.implements(name):
            raise broken(candidate, f"{candidate.entry_point.value} does not implement {name}")


_CAPABILITY_HOOKS: Final = {"Provisioning": "ikv_provisioning", "VerifyLog": "ikv_verify_log"}
"""Capabilities of transports that are hooks."""

_BACKENDS: Final = _Group("backend", "BackendSpec", BackendInfo)
_TRANSPORTS: Final = _Group("transport", "TransportSpec", TransportInfo)


def unknown_hooks(manager: pluggy.PluginManager, plugin: object) -> list[str]:
    """As pluggy's check_pending, for one plugin and with the hooks of all kinds known."""
    implemented = [
        implementation
        for caller in manager.get_hookcallers(plugin) or ()
        for implementation in caller.get_hookimpls()
        if caller.name not in _all_hooks() and implementation.plugin is plugin
    ]
    return [each.opts["specname"] or each.function.__name__ for each in implemented if not each.optionalhook]


def _all_hooks() -> list[str]:
    """Hooks of all groups: one module may serve as a backend and as a transport."""
    from ikvcore import hookspecs

    specs = (hookspecs.BackendSpec, hookspecs.TransportSpec, hookspecs.ObserverSpec)
    return [name for spec in specs for name in vars(spec) if not name.startswith("_")]


def import_plugin(candidate: Candidate) -> object:
    """What the entry point names. Raises PluginNotFoundError, PluginBrokenError."""
    try:
        return candidate.entry_point.load()
    except ImportError as exc:
        _raise_import_error(candidate, exc)
    except SystemExit as exc:  # whose program it is, a plugin does not decide
        raise broken(candidate, f"importing it {_ends_the_program(exc)}") from exc
    except Exception as exc:
        raise broken(candidate, exc) from exc


def _ends_the_program(exc: SystemExit) -> str:
    return f"ends the program, with exit code {exc.code!r}"


def _raise_import_error(candidate: Candidate, exc: ImportError) -> NoReturn:
    command = install_command(candidate.distribution, candidate.name)
    if command is not None and missing_requirements(candidate):
        raise PluginNotFoundError(candidate.kind, candidate.name, usable_names(candidate.kind), command) from exc
    raise broken(candidate, exc) from exc


def broken(candidate: Candidate, cause: object) -> PluginBrokenError:
    """The error for a plugin that is installed, but broken."""
    shown = f"{type(cause).__name__}: {cause}" if isinstance(cause, Exception) else cause
    return PluginBrokenError(candidate.kind, candidate.name, candidate.distribution, candidate.version, shown)


# -- requirements ------------------------------------------------------------------------------


class Requirements(Protocol):
    """What ClientOptions.requires holds; checked there for what no plugin could have."""

    @property
    def capabilities(self) -> frozenset[str]:
        """Capability protocols, which any of the client's plugins may bring, and process_shared, which all must be."""

    @property
    def levels(self) -> Mapping[str, Any]:
        """Lower bounds, which all of the client's plugins must reach: durability="power-loss"."""


def check_requirements(
    chosen: Sequence[tuple[LoadedPlugin[Any], Any]],
    requirements: Requirements,
    *,
    lent: Callable[[], Sequence[LoadedPlugin[Any]]] = tuple,
) -> None:
    """Hold the plugins that a client is about to open, each with its options, against what the application requires.

    `lent` gives plugins that the client does not open, but whose capabilities count too; called where it matters.
    Raises RequirementError, naming the installed plugins that would do.
    """
    flags = requirements.capabilities & _FLAGS
    bounds = {**dict.fromkeys(sorted(flags), True), **requirements.levels}
    for plugin, options in chosen:
        lacking = _lacking(_with_options(plugin.info, options), bounds)
        if lacking:
            ours = f"{plugin.kind} {plugin.name!r}"
            would_do = _would_do(plugin.kind, lambda info: not _lacking(info, bounds))
            # An option took from it what it could have.
            would_do = [f"{each} with its default options" if each == ours else each for each in would_do]
            raise RequirementError(ours, lacking, would_do)
    plugins = [plugin for plugin, _ in chosen]
    wanted = requirements.capabilities - flags
    if _not_among(plugins, wanted):
        _check_capabilities([*lent(), *plugins], wanted)


def _not_among(plugins: Sequence[LoadedPlugin[Any]], wanted: frozenset[str]) -> list[str]:
    return sorted(wanted.difference(*(plugin.info.capabilities for plugin in plugins)))


def lacks_capability(plugin: LoadedPlugin[Any], capability: str) -> RequirementError:
    """What to raise where a plugin was asked for something that it does not offer."""
    would_do = _would_do(plugin.kind, lambda info: capability in info.capabilities)
    return RequirementError(f"{plugin.kind} {plugin.name!r}", [capability], would_do)


def _check_capabilities(plugins: Sequence[LoadedPlugin[Any]], wanted: frozenset[str]) -> None:
    lacking = _not_among(plugins, wanted)
    if lacking:
        subject = " with ".join(f"{plugin.kind} {plugin.name!r}" for plugin in plugins)
        kinds = dict.fromkeys(plugin.kind for plugin in plugins)
        known: set[str] = set()

        def suits(info: Info) -> bool:
            known.update(info.capabilities)
            return info.capabilities.issuperset(lacking)

        would_do = [each for kind in kinds for each in _would_do(kind, suits)]
        raise RequirementError(subject, lacking, would_do, sorted(known))


def _lacking(info: Info, bounds: Mapping[str, Any]) -> list[str]:
    lacking = []
    for name, bound in bounds.items():
        wanted = _LEVELS[name].parse(bound) if name in _LEVELS else bound
        actual = getattr(info, name, None)  # None: without limit, or no concern of this kind of plugin
        if actual is not None and actual < wanted:
            lacking.append(name if bound is True else f"{name}={bound}")
    return lacking


def _would_do(kind: Kind, suits: Callable[[Info], bool]) -> list[str]:
    """Installed plugins that suit; only an error is worth importing them all."""
    names = []
    for candidate in installed(kind):
        with suppress(PluginError):  # a broken neighbour is no way out
            if suits(load(kind, candidate.qualified_name).info):
                names.append(f"{kind} {candidate.name!r}")
    return names


def _with_options(info: Info, options: object) -> Info:
    """An info declares what the default options give; an option `durability` moves it."""
    chosen = getattr(options, "durability", None)
    if isinstance(chosen, str):
        chosen = Durability.parse(chosen)
    return dataclasses.replace(info, durability=chosen) if isinstance(chosen, Durability) else info


_LEVELS: Final[Mapping[str, type[Durability | Sharing]]] = {"durability": Durability, "sharing": Sharing}
_FLAGS: Final = frozenset(
    field.name for info in (BackendInfo, TransportInfo) for field in dataclasses.fields(info) if field.type == "bool"
)
