"""TransportSuite, part four: the capability Provisioning, and who may open a store."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ikvcore._registry import load_transport
from ikvcore.errors import InvalidOptionError, StoreAccessError, StoreExistsError, TransportError
from ikvcore.fields import FieldType
from ikvcore.testing._parallel import eventually, run_threads
from ikvcore.testing._transport_base import Stores, TransportBase, contents, publish

__all__ = ["TransportProvisioning"]


class TransportProvisioning(TransportBase):
    """Stores are made, listed and removed; without the right passkey nothing is told, where it keeps them."""

    @pytest.fixture
    def stranger(self, home: Path) -> Iterator[Stores]:
        """Another account, with a passkey and a store of its own."""
        stranger = Stores(self, f"stranger-{type(self).__name__}-{os.getpid()}", "another-pass")
        stranger.create("theirs")
        yield stranger
        stranger.close()

    def test_declaration(self) -> None:
        """C9: the capability is declared where its hook is implemented, and only there."""
        plugin = load_transport(self.info.name)
        assert plugin.info.capabilities == self.info.capabilities
        assert plugin.hook.implements("ikv_provisioning") == ("Provisioning" in self.info.capabilities)
        assert plugin.hook.implements("ikv_verify_log") == ("VerifyLog" in self.info.capabilities)

    def test_describe(self, stores: Stores) -> None:
        """A store describes itself as it was made, in every instance; its identity is its own."""
        fixed: dict[str, Any] = {
            "partitions": 5,
            "primary_key_type": FieldType.BYTES,
            "partitioning_key": "region",
            "partitioning_key_type": FieldType.BYTES,
            "partitioner": "crc32",
            "max_event_bytes": 12_345,
        }
        made = stores.create("Store.one-A_1", **fixed)
        assert fixed.items() <= dataclasses.asdict(made).items()
        described = stores.open("Store.one-A_1").describe()
        assert described.identity
        assert described == made
        assert stores.open("Store.one-A_1").describe() == described
        stores.create("other")
        assert stores.open("other").describe().identity != described.identity

    def test_list_stores(self, stores: Stores, stranger: Stores) -> None:
        """list_stores gives the account's own stores, by name."""
        for name in ("b", "c", "a", "B"):
            stores.create(name, partitions=2)
        listed = stores.provisioning.list_stores()
        assert [each.store_name for each in listed] == ["B", "a", "b", "c"]
        assert listed == [stores.open(name).describe() for name in ("B", "a", "b", "c")]
        assert [each.store_name for each in stranger.provisioning.list_stores()] == ["theirs"]

    def test_stores_are_apart(self, stores: Stores, stranger: Stores) -> None:
        """Stores share nothing, even where names differ in case alone, or accounts have stores of one name."""
        stranger.create("a")
        for name in ("a", "A"):
            stores.create(name)
            publish(stores.open(name), name.encode())
        publish(stranger.open("a"), b"stranger")
        assert contents(stores.open("a")) == [b"a"]
        assert contents(stores.open("A")) == [b"A"]
        assert contents(stranger.open("a")) == [b"stranger"]

    @pytest.mark.parametrize("name", ["x", "n" * 249, "-.-", "_", "con", "...", ".hidden"])
    def test_names(self, stores: Stores, name: str) -> None:
        """Every name that the rules allow can be a store's."""
        stores.create(name)
        publish(stores.open(name), b"v")
        assert contents(stores.open(name)) == [b"v"]
        assert [each.store_name for each in stores.provisioning.list_stores()] == [name]

    def test_store_exists(self, stores: Stores) -> None:
        """Making a store that exists raises StoreExistsError and changes nothing."""
        made = stores.create("store", partitions=2)
        publish(stores.open("store"), b"kept")
        with pytest.raises(StoreExistsError):
            stores.create("store", partitions=4)
        again = stores.open("store")
        assert again.describe() == made
        assert contents(again) == [b"kept"]

    def test_one_of_many_makers_wins(self, stores: Stores) -> None:
        """Of several that make one store at once, one succeeds and the others get StoreExistsError."""
        stores.create("first")

        def make() -> str:
            try:
                stores.create("raced")
            except StoreExistsError:
                return "exists"
            return "made"

        assert sorted(run_threads([make] * 4)) == ["exists", "exists", "exists", "made"]
        publish(stores.open("raced"), b"v")
        assert contents(stores.open("raced")) == [b"v"]

    def test_create_account(self, fresh: Stores) -> None:
        """An account without stores can be made, once; its list is empty, and its passkey counts from then on."""
        fresh.provisioning.create_account()
        assert fresh.provisioning.list_stores() == []
        with pytest.raises(StoreExistsError):
            fresh.provisioning.create_account()
        if self.info.keeps_passkeys:
            with pytest.raises(StoreAccessError):
                self.open_provisioning(fresh.account_id, "wrong").list_stores()
        fresh.create("store")
        with pytest.raises(StoreExistsError):
            self.open_provisioning(fresh.account_id, "wrong").create_account()

    def test_create_store_makes_the_account(self, fresh: Stores) -> None:
        """Making a store makes its account too, with the passkey given; then that passkey is needed."""
        fresh.create("store")
        with pytest.raises(StoreExistsError):
            fresh.provisioning.create_account()
        if self.info.keeps_passkeys:
            intruder = Stores(self, fresh.account_id, "wrong")
            with pytest.raises(StoreAccessError):
                intruder.create("second")
        assert [each.store_name for each in fresh.provisioning.list_stores()] == ["store"]

    def test_delete_store(self, stores: Stores) -> None:
        """A deleted store is gone with its log, and its name is free for another, with another identity. Who has it
        open learns of that when it asks for its bounds, if not at once."""
        stores.create("store", partitions=3)
        stores.create("other")
        log, left_open = stores.open("store"), stores.open("store")
        publish(log, b"old")
        identity = log.describe().identity
        log.close()
        stores.provisioning.delete_store("store")
        eventually(partial(raises, TransportError, left_open.bounds), "an instance that was open says that it is gone")
        with pytest.raises(StoreAccessError):
            stores.open("store")
        with pytest.raises(StoreAccessError):
            stores.provisioning.delete_store("store")
        assert [each.store_name for each in stores.provisioning.list_stores()] == ["other"]
        stores.create("store")
        log = stores.open("store")
        assert (log.describe().partitions, contents(log)) == (1, [])
        assert log.describe().identity != identity

    def test_rotate_passkey(self, fresh: Stores) -> None:
        """After a rotation the new passkey opens everything, and the old one nothing; where the transport keeps none,
        there is nothing to rotate."""
        fresh.create("store")
        if not self.info.keeps_passkeys:
            with pytest.raises(InvalidOptionError):
                fresh.provisioning.rotate_passkey("new-pass")
            return
        publish(fresh.open("store"), b"v")
        old = fresh.passkey
        fresh.provisioning.rotate_passkey("new-pass")
        for call in (
            lambda: fresh.open("store"),
            lambda: fresh.provisioning.list_stores(),
            lambda: fresh.provisioning.rotate_passkey(old),
            lambda: fresh.provisioning.delete_store("store"),
        ):
            with pytest.raises(StoreAccessError):
                call()
        fresh.passkey = "new-pass"
        assert contents(fresh.open("store")) == [b"v"]
        assert len(fresh.provisioning.list_stores()) == 1

    def test_one_error_for_every_refusal(self, stores: Stores, stranger: Stores) -> None:
        """A wrong passkey, an unknown store, an unknown account and another account's store are refused alike, so that
        nothing can be learnt from the error."""
        stores.create("mine")
        account, passkey = stores.account_id, stores.passkey
        attempts: list[tuple[str, str, str]] = [
            ("mine", account, "wrong"),
            ("mine", account, ""),
            ("mine", account, passkey + "x"),
            ("mine", account, passkey.upper()),
            ("mine", account, stranger.passkey),
            ("unknown", account, passkey),
            ("unknown", account, "wrong"),
            ("theirs", account, passkey),
            ("theirs", account, stranger.passkey),
            ("theirs", stranger.account_id, passkey),
            ("mine", stranger.account_id, stranger.passkey),
            ("mine", "no-such-account", passkey),
        ]
        if not self.info.keeps_passkeys:
            known = (("mine", account), ("theirs", stranger.account_id))
            attempts = [each for each in attempts if each[:2] not in known]
        for store_name, account_id, tried in attempts:
            told = str(StoreAccessError(store_name, account_id))
            for call in self._ways_in(store_name, account_id, tried):
                with pytest.raises(StoreAccessError) as refused:
                    call()
                assert str(refused.value) == told
                assert tried == "" or tried not in told
        assert [each.store_name for each in stores.provisioning.list_stores()] == ["mine"]
        assert [each.store_name for each in stranger.provisioning.list_stores()] == ["theirs"]

    def test_accounts_are_refused_alike(self, stores: Stores) -> None:
        """A wrong passkey and an unknown account are refused alike by the calls that name no store."""
        stores.create("mine")
        keeps = self.info.keeps_passkeys
        texts = set()
        for account_id in (stores.account_id, "no-such-account") if keeps else ("no-such-account",):
            provisioning = self.open_provisioning(account_id, "wrong")
            calls: list[Callable[[], object]] = [provisioning.list_stores]
            calls += [partial(provisioning.rotate_passkey, "new")] if keeps else []
            for call in calls:
                with pytest.raises(StoreAccessError) as refused:
                    call()
                texts.add(str(refused.value).replace(account_id, "ACCOUNT"))
        assert len(texts) == 1
        assert len(stores.provisioning.list_stores()) == 1

    def _ways_in(self, store_name: str, account_id: str, passkey: str) -> list[Callable[[], object]]:
        return [
            lambda: self.open_log(store_name, account_id, passkey),
            lambda: self.open_provisioning(account_id, passkey).delete_store(store_name),
        ]

    def test_passkeys_are_not_written(self, fresh: Stores, home: Path) -> None:
        """No file that the transport leaves under IKV_HOME holds a passkey."""
        fresh.passkey = "unmistakable-passkey-41"
        fresh.create("store")
        publish(fresh.open("store"), b"v")
        if self.info.keeps_passkeys:
            fresh.provisioning.rotate_passkey("unmistakable-passkey-42")
            fresh.passkey = "unmistakable-passkey-42"
        fresh.close()
        for path in home.rglob("*"):
            if path.is_file():
                assert b"unmistakable-passkey" not in path.read_bytes(), f"a passkey is in {path}"


def raises(error: type[Exception], function: Callable[[], object]) -> bool:
    """Whether a call raises this error; others are raised."""
    try:
        function()
    except error:
        return True
    return False
