"""The only place where names in options become instances: readers and writers are made here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ikvcore.client import IKVReader, IKVWriter
from ikvcore.clientoptions import ClientOptions, require_reader, require_writer
from ikvcore.errors import InvalidOptionError

if TYPE_CHECKING:
    from ikvcore._observers import Audience
    from ikvcore._registry import LoadedPlugin
    from ikvcore._replica import ReplicaPlan
    from ikvcore.models import StoreDescription, TransportInfo
    from ikvcore.protocols import Transport

__all__ = ["create_new_reader", "create_new_writer"]


def create_new_reader(client_options: ClientOptions) -> IKVReader:
    """A reader with these options, not started yet; it opens nothing before startup.

    Raises MissingOptionError, naming everything that is missing, and OptionsError and PluginError for a backend, a
    transport or options of theirs that cannot be used.
    """
    _check(client_options)
    from ikvcore import _logging
    from ikvcore._reader import Reader
    from ikvcore._registry import build_options, check_requirements, load_backend, load_transport
    from ikvcore._replica import ReplicaPlan

    backend = load_backend(client_options.backend)
    require_reader(client_options, mount_needed=not backend.info.volatile)
    transport = load_transport(client_options.transport)
    backend_options = build_options(
        f"backend {client_options.backend!r}", backend.info.options, client_options.backend_options
    )
    transport_options = build_options(
        f"transport {client_options.transport!r}", transport.info.options, client_options.transport_options
    )
    check_requirements([(backend, backend_options), (transport, transport_options)], client_options.requires)
    audience = _audience(client_options)
    _logging.configure(client_options)

    def plan_for(store: StoreDescription) -> ReplicaPlan:
        return ReplicaPlan(
            backend=backend.info,
            backend_name=client_options.backend,
            backend_options=backend_options,
            open_storage=lambda context: backend.hook.ikv_open_backend(context=context),
            mount=None if backend.info.volatile else client_options.mount_directory,
            partitions=_held_partitions(client_options.partitions, store),
            on_bad_event=client_options.on_bad_event,
            history=client_options.history,
            backend_given=client_options.backend_options,
            audience=audience,
        )

    return Reader(_opener(transport, transport_options, client_options), plan_for, audience)


def create_new_writer(client_options: ClientOptions) -> IKVWriter:
    """A writer with these options, not started yet. Raises as create_new_reader does."""
    _check(client_options)
    from ikvcore import _logging
    from ikvcore._registry import build_options, check_requirements, load_backend, load_transport
    from ikvcore._writer import Writer

    require_writer(client_options)
    transport = load_transport(client_options.transport)
    options = build_options(
        f"transport {client_options.transport!r}", transport.info.options, client_options.transport_options
    )
    # One set of options may serve readers too: what its backend can do is then not the writer's to miss.
    check_requirements(
        [(transport, options)], client_options.requires, lent=lambda: [load_backend(client_options.backend)]
    )
    audience = _audience(client_options)
    _logging.configure(client_options)
    return Writer(_opener(transport, options, client_options), audience)


def _opener(
    transport: LoadedPlugin[TransportInfo], transport_options: object, client_options: ClientOptions
) -> Callable[[], Transport]:
    from ikvcore.models import TransportContext

    assert client_options.account_id is not None
    assert client_options.account_passkey is not None
    context = TransportContext(
        store_name=client_options.store_name,
        account_id=client_options.account_id,
        passkey=client_options.account_passkey,
        options=transport_options,
    )

    def open_transport() -> Transport:
        opened: Transport = transport.hook.ikv_open_transport(context=context)
        return opened

    return open_transport


def _audience(client_options: ClientOptions) -> Audience:
    from ikvcore._observers import Audience, given_observers, installed_observers

    given = given_observers(client_options.observers)
    return Audience([*(installed_observers() if client_options.installed_observers else ()), *given])


def _check(client_options: object) -> None:
    if not isinstance(client_options, ClientOptions):
        raise InvalidOptionError(
            "client_options", type(client_options).__name__, "pass what ClientOptionsBuilder.build() returns"
        )


def _held_partitions(wanted: Sequence[int] | None, store: StoreDescription) -> tuple[int, ...]:
    """The partitions that a reader holds, ascending: those wanted, all of them by default."""
    if wanted is None:
        return tuple(range(store.partitions))
    beyond = [partition for partition in wanted if partition >= store.partitions]
    if beyond:
        raise InvalidOptionError(
            "partitions", list(wanted), f"store {store.store_name!r} has partitions 0 to {store.partitions - 1}"
        )
    return tuple(sorted(set(wanted)))
