"""Provisioning: make, list, describe and delete stores; make accounts and rotate their passkeys.

    import ikvcore.admin

    ikvcore.admin.create_store("profiles", account_id="demo", account_passkey="secret", primary_key="firstname")

Everything is validated before anything is made. The `ikv store` and `ikv account` commands are thin over this module.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ikvcore import fields
from ikvcore._names import check_name
from ikvcore.clientoptions import DEFAULT_TRANSPORT
from ikvcore.errors import InvalidArgumentError, InvalidOptionError
from ikvcore.fields import FieldType
from ikvcore.models import Bounds, Secret, StoreDescription, TransportContext

if TYPE_CHECKING:
    from ikvcore._registry import LoadedPlugin
    from ikvcore.models import TransportInfo
    from ikvcore.protocols import Provisioning

__all__ = [
    "MAX_PARTITIONS",
    "PARTITIONERS",
    "PARTITIONING_KEY_TYPES",
    "PRIMARY_KEY_TYPES",
    "StoreSize",
    "create_account",
    "create_store",
    "delete_store",
    "describe_store",
    "list_stores",
    "measure_store",
    "rotate_passkey",
    "verify_log",
]

MAX_PARTITIONS: Final = 65_535
"""A partition is two bytes in a storage key."""
PARTITIONERS: Final = ("murmur2", "crc32")
PRIMARY_KEY_TYPES: Final = ("STRING", "BYTES")
PARTITIONING_KEY_TYPES: Final = PRIMARY_KEY_TYPES


class StoreSize(NamedTuple):
    """How much a store's log holds."""

    log_bytes: int | None
    """None where the transport cannot tell."""
    bounds: Mapping[int, Bounds]
    """Of every partition."""


def create_store(
    store_name: str,
    *,
    account_id: str,
    account_passkey: str,
    primary_key: str,
    primary_key_type: str = "STRING",
    partitioning_key: str | None = None,
    partitioning_key_type: str = "STRING",
    partitions: int = 1,
    partitioner: str = "murmur2",
    transport: str = DEFAULT_TRANSPORT,
    transport_options: Mapping[str, Any] | None = None,
) -> StoreDescription:
    """Make a store, and its account if there is none yet. All or nothing.

    `primary_key` and `partitioning_key` are names of fields, their types STRING or BYTES. The partitioning key routes a
    document to one of the `partitions`; without one, the primary key does. All of this, and the partitioner, is fixed
    for the store's life. Returns the store as it was made. Raises StoreExistsError, StoreAccessError where the account
    has another passkey, and InvalidArgumentError or InvalidOptionError.
    """
    description = StoreDescription(
        store_name=check_name("store name", store_name),
        account_id=check_name("account id", account_id),
        identity=uuid.uuid4().hex,
        primary_key=fields.check_name(primary_key),
        primary_key_type=_checked_type("primary_key_type", primary_key_type, PRIMARY_KEY_TYPES),
        partitioning_key=None if partitioning_key is None else fields.check_name(partitioning_key),
        partitioning_key_type=_checked_type("partitioning_key_type", partitioning_key_type, PARTITIONING_KEY_TYPES),
        partitions=_checked_partitions(partitions),
        partitioner=_checked_word("partitioner", partitioner, PARTITIONERS),
    )
    if description.partitioning_key == description.primary_key:
        types = (description.primary_key_type, description.partitioning_key_type)
        if types[0] is not types[1]:
            raise InvalidOptionError(
                "partitioning_key_type",
                types[1].name,
                f"{primary_key!r} is the primary key too, whose type is {types[0].name}; a field has one type",
            )
    return _provisioning(account_id, account_passkey, transport, transport_options).create_store(description)


def list_stores(
    *,
    account_id: str,
    account_passkey: str,
    transport: str = DEFAULT_TRANSPORT,
    transport_options: Mapping[str, Any] | None = None,
) -> list[StoreDescription]:
    """The account's stores, by name. Raises StoreAccessError."""
    return _provisioning(account_id, account_passkey, transport, transport_options).list_stores()


def describe_store(
    store_name: str,
    *,
    account_id: str,
    account_passkey: str,
    transport: str = DEFAULT_TRANSPORT,
    transport_options: Mapping[str, Any] | None = None,
) -> StoreDescription:
    """What was fixed when the store was made. Raises StoreAccessError."""
    plugin, context = _plugin(store_name, account_id, account_passkey, transport, transport_options)
    log = plugin.hook.ikv_open_transport(context=context)
    try:
        description: StoreDescription = log.describe()
    finally:
        log.close()
    return description


def measure_store(
    store_name: str,
    *,
    account_id: str,
    account_passkey: str,
    transport: str = DEFAULT_TRANSPORT,
    transport_options: Mapping[str, Any] | None = None,
) -> StoreSize:
    """How much the store's log holds now. Raises StoreAccessError."""
    plugin, context = _plugin(store_name, account_id, account_passkey, transport, transport_options)
    log = plugin.hook.ikv_open_transport(context=context)
    try:
        return StoreSize(log.size(), dict(log.bounds()))
    finally:
        log.close()


def verify_log(
    store_name: str,
    *,
    account_id: str,
    account_passkey: str,
    transport: str = DEFAULT_TRANSPORT,
    transport_options: Mapping[str, Any] | None = None,
) -> list[str]:
    """Read all of the store's log; one sentence for each thing that is wrong, none where all is well.

    The log may be in use. Raises StoreAccessError, TransportError where nothing could be found out, and
    InvalidOptionError where the transport has no VerifyLog.
    """
    plugin, context = _plugin(store_name, account_id, account_passkey, transport, transport_options)
    if "VerifyLog" not in plugin.info.capabilities:
        raise InvalidOptionError("transport", transport, "it cannot verify logs; use the tools of its own technology")
    findings: list[str] = plugin.hook.ikv_verify_log(context=context)
    return findings


def delete_store(
    store_name: str,
    *,
    account_id: str,
    account_passkey: str,
    transport: str = DEFAULT_TRANSPORT,
    transport_options: Mapping[str, Any] | None = None,
) -> None:
    """Remove the store and its log for ever; its open clients fail from then on. Raises StoreAccessError.

    Mount directories of its readers stay; they belong to a log that no longer exists and can be removed.
    """
    check_name("store name", store_name)
    _provisioning(account_id, account_passkey, transport, transport_options).delete_store(store_name)


def create_account(
    *,
    account_id: str,
    account_passkey: str,
    transport: str = DEFAULT_TRANSPORT,
    transport_options: Mapping[str, Any] | None = None,
) -> None:
    """Make an account without stores. Raises StoreExistsError."""
    _provisioning(account_id, account_passkey, transport, transport_options).create_account()


def rotate_passkey(
    new_passkey: str,
    *,
    account_id: str,
    account_passkey: str,
    transport: str = DEFAULT_TRANSPORT,
    transport_options: Mapping[str, Any] | None = None,
) -> None:
    """Replace the account's passkey. Raises StoreAccessError, and InvalidOptionError where the transport keeps none.

    Open clients go on; those that are opened later need the new one.
    """
    _check_passkey("new_passkey", new_passkey)
    plugin, context = _plugin(None, account_id, account_passkey, transport, transport_options)
    if not plugin.info.keeps_passkeys:
        raise InvalidOptionError(
            "transport", transport, "it keeps no passkeys; change them where it connects to, by that one's own tools"
        )
    _provisioning_of(plugin, context).rotate_passkey(new_passkey)


def _provisioning(
    account_id: str, account_passkey: str, transport: str, transport_options: Mapping[str, Any] | None
) -> Provisioning:
    return _provisioning_of(*_plugin(None, account_id, account_passkey, transport, transport_options))


def _provisioning_of(plugin: LoadedPlugin[TransportInfo], context: TransportContext) -> Provisioning:
    if "Provisioning" not in plugin.info.capabilities:
        raise InvalidOptionError(
            "transport", plugin.name, "it cannot make or list stores; use the tools of its own technology for that"
        )
    provisioning: Provisioning = plugin.hook.ikv_provisioning(context=context)
    return provisioning


def _plugin(
    store_name: str | None,
    account_id: str,
    account_passkey: str,
    transport: str,
    transport_options: Mapping[str, Any] | None,
) -> tuple[LoadedPlugin[TransportInfo], TransportContext]:
    from ikvcore._registry import build_options, load_transport

    if store_name is not None:
        check_name("store name", store_name)
    check_name("account id", account_id)
    _check_passkey("account_passkey", account_passkey)
    plugin = load_transport(transport)
    options = build_options(f"transport {plugin.name!r}", plugin.info.options, transport_options or {})
    context = TransportContext(
        store_name=store_name, account_id=account_id, passkey=Secret(account_passkey), options=options
    )
    return plugin, context


def _check_passkey(name: str, passkey: object) -> None:
    # The value is not shown: it may be the secret in another form.
    if not isinstance(passkey, str) or not passkey:
        raise InvalidArgumentError(f"{name} is a str and not empty; this one is {type(passkey).__name__}, or empty")


def _checked_type(option: str, name: object, valid: tuple[str, ...]) -> FieldType:
    return FieldType[_checked_word(option, name, valid)]


def _checked_word(option: str, word: object, valid: tuple[str, ...]) -> str:
    if not isinstance(word, str) or word not in valid:
        raise InvalidOptionError(option, word, f"use one of {', '.join(valid)}")
    return word


def _checked_partitions(partitions: object) -> int:
    if not isinstance(partitions, int) or isinstance(partitions, bool) or not 1 <= partitions <= MAX_PARTITIONS:
        raise InvalidOptionError("partitions", partitions, f"use a whole number from 1 to {MAX_PARTITIONS:,}")
    return partitions
