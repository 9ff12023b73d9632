"""Provisioning through ikvcore.admin: what it makes, and what it refuses before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ikvcore import admin
from ikvcore.errors import (
    FieldNameError,
    InvalidArgumentError,
    InvalidNameError,
    InvalidOptionError,
    PluginNotFoundError,
    StoreAccessError,
    StoreExistsError,
    UnknownOptionError,
)
from ikvcore.fields import FieldType
from ikvcore.models import Bounds

DEMO = {"account_id": "demo", "account_passkey": "secret", "transport": "memory"}
"""On the memory transport, where nothing takes time; the local one is tried once."""


@pytest.fixture(autouse=True)
def _own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    from ikv_transports import memory
    from ikv_transports._memory_table import MemoryTable

    monkeypatch.setattr(memory, "_table", MemoryTable())


def create(store_name: str = "profiles", **changes: Any) -> Any:
    return admin.create_store(store_name, **{**DEMO, "primary_key": "name", **changes})


def test_a_store_has_what_it_was_made_with() -> None:
    made = create(
        primary_key_type="BYTES",
        partitioning_key="region",
        partitioning_key_type="BYTES",
        partitions=7,
        partitioner="crc32",
    )
    assert (made.store_name, made.account_id, made.primary_key) == ("profiles", "demo", "name")
    assert (made.primary_key_type, made.partitioning_key_type) == (FieldType.BYTES, FieldType.BYTES)
    assert (made.partitioning_key, made.partitions, made.partitioner) == ("region", 7, "crc32")
    assert admin.describe_store("profiles", **DEMO) == made
    assert admin.list_stores(**DEMO) == [made]


def test_the_defaults_are_one_partition_and_string_keys() -> None:
    made = create()
    assert made == replace(made, primary_key_type=FieldType.STRING, partitions=1, partitioner="murmur2")
    assert made.partitioning_key is None


def test_every_store_has_an_identity_of_its_own() -> None:
    first = create()
    admin.delete_store("profiles", **DEMO)
    assert len(first.identity) == 32
    assert create().identity != first.identity


def test_stores_are_listed_by_name() -> None:
    for name in ("b", "C", "a"):
        create(name)
    assert [each.store_name for each in admin.list_stores(**DEMO)] == ["C", "a", "b"]


def test_a_log_is_measured() -> None:
    create(partitions=2)
    assert admin.measure_store("profiles", **DEMO) == admin.StoreSize(
        0, {0: Bounds(0, 0, complete=True), 1: Bounds(0, 0, complete=True)}
    )


def test_all_of_it_works_on_the_default_transport(tmp_path: Any) -> None:
    demo = {"account_id": "demo", "account_passkey": "secret"}
    made = admin.create_store("profiles", primary_key="name", **demo)
    assert admin.list_stores(**demo) == [made]
    assert (admin.measure_store("profiles", **demo).log_bytes or 0) > 0
    admin.rotate_passkey("newer", **demo)
    newer = {**demo, "account_passkey": "newer"}
    assert admin.describe_store("profiles", **newer) == made
    admin.delete_store("profiles", **newer)
    assert admin.list_stores(**newer) == []
    elsewhere = {"transport_options": {"home": str(tmp_path / "elsewhere")}}
    with pytest.raises(StoreAccessError):
        admin.list_stores(**newer, **elsewhere)  # type: ignore[arg-type]


def test_an_account_can_be_made_first() -> None:
    admin.create_account(**DEMO)
    assert admin.list_stores(**DEMO) == []
    with pytest.raises(StoreExistsError, match="'demo'"):
        admin.create_account(**DEMO)
    create()


def test_a_store_of_an_account_with_another_passkey_is_not_made() -> None:
    admin.create_account(**DEMO)
    with pytest.raises(StoreAccessError):
        create(account_passkey="wrong")
    assert admin.list_stores(**DEMO) == []


def test_a_store_is_not_made_twice() -> None:
    made = create()
    with pytest.raises(StoreExistsError, match="'profiles'"):
        create(partitions=9)
    assert admin.describe_store("profiles", **DEMO) == made


@pytest.mark.parametrize(
    "call",
    [
        lambda where: admin.list_stores(**where),
        lambda where: admin.describe_store("profiles", **where),
        lambda where: admin.measure_store("profiles", **where),
        lambda where: admin.delete_store("profiles", **where),
        lambda where: admin.rotate_passkey("newer", **where),
    ],
)
@pytest.mark.parametrize("wrong", [{"account_passkey": "wrong"}, {"account_id": "nobody"}])
def test_nothing_is_told_or_done_without_the_passkey(call: Callable[[Any], object], wrong: dict[str, str]) -> None:
    made = create()
    with pytest.raises(StoreAccessError) as caught:
        call({**DEMO, **wrong})
    assert "secret" not in str(caught.value)
    assert admin.list_stores(**DEMO) == [made]


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"store_name": "a/b"}, InvalidNameError, "a/b"),
        ({"account_id": ".."}, InvalidNameError, r"\.\."),
        ({"primary_key": ""}, FieldNameError, "''"),
        ({"primary_key": b"name"}, FieldNameError, "b'name'"),
        ({"primary_key": "\ud800"}, FieldNameError, "UTF-8"),
        ({"partitioning_key": ""}, FieldNameError, "''"),
        ({"primary_key_type": "INT32"}, InvalidOptionError, "STRING, BYTES"),
        ({"primary_key_type": "string"}, InvalidOptionError, "STRING, BYTES"),
        ({"primary_key_type": FieldType.STRING}, InvalidOptionError, "STRING, BYTES"),
        ({"partitioning_key_type": "INT32"}, InvalidOptionError, "STRING, BYTES"),
        ({"partitioning_key": "name", "partitioning_key_type": "BYTES"}, InvalidOptionError, "one type"),
        ({"partitions": 0}, InvalidOptionError, "1 to 65,535"),
        ({"partitions": 65_536}, InvalidOptionError, "1 to 65,535"),
        ({"partitions": True}, InvalidOptionError, "1 to 65,535"),
        ({"partitions": "3"}, InvalidOptionError, "1 to 65,535"),
        ({"partitioner": "md5"}, InvalidOptionError, "murmur2, crc32"),
        ({"account_passkey": ""}, InvalidArgumentError, "account_passkey"),
        ({"account_passkey": b"secret"}, InvalidArgumentError, "account_passkey is a str"),
        ({"transport": "memroy"}, PluginNotFoundError, "memory"),
        ({"transport_options": {"hoem": "x"}}, UnknownOptionError, "hoem"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(
    changes: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told) as caught:
        create(**changes)
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreAccessError):
        admin.list_stores(**DEMO)


def test_the_largest_number_of_partitions_is_possible() -> None:
    assert create(partitions=admin.MAX_PARTITIONS).partitions == 65_535


def test_a_transport_that_cannot_provision_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from ikvcore import _registry

    loaded = _registry.load_transport("memory")
    bare = replace(loaded, info=replace(loaded.info, capabilities=frozenset()))
    monkeypatch.setattr(_registry, "load_transport", lambda name: bare)
    with pytest.raises(InvalidOptionError, match="cannot make or list stores"):
        create()


def test_an_empty_new_passkey_is_refused() -> None:
    create()
    with pytest.raises(InvalidArgumentError, match="new_passkey"):
        admin.rotate_passkey("", **DEMO)
