"""StoreSuite, part five: tokens, visibility, exactly once, figures (C4, C5, C6)."""

from __future__ import annotations

from typing import Any

import pytest

from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.errors import (
    InvalidDocumentError,
    InvalidTokenError,
    LogDivergedError,
    MountMismatchError,
    WaitTimeoutError,
)
from ikvcore.factory import create_new_reader
from ikvcore.testing._live import PASSKEY, LiveStore, document, documents
from ikvcore.testing._parallel import PATIENCE, spawned, started
from ikvcore.testing._raw_events import without_content
from ikvcore.testing._store_base import MakeStore, StoreBase
from ikvcore.tokens import Token

__all__ = ["StoreVisibility"]


class StoreVisibility(StoreBase):
    """What was written is seen: when, how often, and by whom."""

    # -- C4 ------------------------------------------------------------------------------------

    def test_c4_tokens(self, make: MakeStore) -> None:
        """A write's token holds the log's identity and the end of each partition touched; tokens join, and are carried
        as text."""
        store = make(partitions=3)
        first = store.writer.upsert_fields(document(id="a", x=1))
        dropped = store.writer.drop_fields_by_name(["nope"])
        assert first.identity == dropped.identity == store.log.describe().identity
        assert dropped.positions == {p: bounds.end for p, bounds in store.log.bounds().items()}
        ((partition, position),) = first.positions.items()
        assert position < dropped.positions[partition]
        assert (first | dropped) == (dropped | first) == dropped
        assert (first | Token()) == first
        carried = Token.parse(str(first | dropped))
        assert carried == dropped
        store.reader.wait_for(carried, timeout=PATIENCE)
        assert store.reader.get_value("a", "x") == 1

    def test_c4_acknowledged_is_in_the_log(self, store: LiveStore) -> None:
        """When a write returns, its event is in the log, whether or not the writer lives on."""
        writer = store.new_writer()
        writer.upsert_fields(document(id="a", x=1))
        writer.shutdown()
        assert store.new_reader(store.builder("later")).get_value("a", "x") == 1

    def test_c4_batches_are_checked_whole(self, make: MakeStore) -> None:
        """A batch with one bad document is refused before anything is published."""
        store = make(partitions=4)
        before = store.log.bounds()
        good = documents({"id": str(n)} for n in range(10))
        with pytest.raises(InvalidDocumentError):
            store.writer.upsert_fields_batch([*good, document(x=1)])
        with pytest.raises(InvalidDocumentError):
            store.writer.upsert_fields_batch(each for each in (document(x=1), *good))
        assert store.log.bounds() == before

    def test_tokens_of_two_logs(self, make: MakeStore) -> None:
        """Tokens of two logs neither join nor serve the other's reader, which says so at once."""
        one, two = make(), make()
        mine, theirs = one.put(id="a"), two.put(id="a")
        with pytest.raises(InvalidTokenError):
            _ = mine | theirs
        with pytest.raises(InvalidTokenError):
            one.reader.wait_for(theirs, timeout=PATIENCE)
        one.reader.wait_for(Token(), timeout=0)

    # -- C5 ------------------------------------------------------------------------------------

    def test_c5_events_applied(self, make: MakeStore) -> None:
        """events_applied counts every message passed, no-ops too, and goes on over restarts."""
        store = make(partitions=3)
        _expect_applied(store, 0)
        total = 0
        for turn in range(3):
            store.shown(store.writer.upsert_fields_batch(documents({"id": str(n), "x": turn} for n in range(20))))
            store.shown(store.writer.drop_fields_by_name(["never", "x"]))
            store.shown(store.writer.delete_document(document(id="no such document")))
            idle = without_content().values()
            store.shown(store.publish(*idle, partition=turn))
            total += 20 + 3 + 1 + len(idle)
            _expect_applied(store, total)
            store.restart_reader()
            _expect_applied(store, total)
        fresh = store.new_reader(store.builder("fresh"))
        assert fresh.stats().events_applied == total
        assert dict(fresh.scan()) == dict(store.reader.scan())

    def test_restart_goes_on(self, store: LiveStore) -> None:
        """A reader that starts again on its mount has what it had and what was written meanwhile."""
        for turn in range(4):
            store.put(id=str(turn), **{f"x{turn}": turn})
            store.put(id="all", **{f"x{turn}": str(turn)})
            store.restart_reader()
            store.writer.upsert_fields(document(id="meanwhile", turn=turn))
            assert store.reader.get_value("meanwhile", "turn") == turn
        assert store.reader.get_document("all") == {"id": "all"} | {f"x{n}": str(n) for n in range(4)}
        assert store.reader.count() == 6

    # -- C6 ------------------------------------------------------------------------------------

    def test_c6_startup_shows_what_was_published(self, make: MakeStore) -> None:
        """Startup returns when everything that was published before it is visible, also on a mount that lags behind."""
        store = make(partitions=3)
        for turn in range(1, 4):
            store.writer.upsert_fields_batch(documents({"id": f"{turn}-{n}", "x": n} for n in range(500)))
            reader = store.new_reader()
            assert reader.count() == 500 * turn
            assert reader.get_value(f"{turn}-499", "x") == 499
            reader.shutdown()

    def test_c6_read_your_writes(self, store: LiveStore) -> None:
        """After wait_for of a write's token, that write is read."""
        for n in range(50):
            store.put(id="a", x=n)
            assert store.reader.get_int64_value("a", "x") == n

    def test_c6_wait_is_for_the_token(self, store: LiveStore) -> None:
        """wait_for of a place that the log has not reached ends with WaitTimeoutError, and comes back when it has."""
        token = store.put(id="a", x=1)
        ((partition, position),) = token.positions.items()
        next_one = Token(token.identity, {partition: position + 1})
        for timeout in (0, 0.05):
            with pytest.raises(WaitTimeoutError):
                store.reader.wait_for(next_one, timeout=timeout)
        waiting = started(lambda: store.reader.wait_for(next_one, timeout=10 * PATIENCE))
        store.writer.upsert_fields(document(id="a", x=2))
        waiting.finish()
        assert store.reader.get_value("a", "x") == 2

    def test_c6_allow_stale(self, store: LiveStore) -> None:
        """With allow_stale a reader serves at once, and catches up."""
        token = store.writer.upsert_fields_batch(documents({"id": str(n), "x": n} for n in range(200)))
        reader = store.new_reader(allow_stale=True)
        assert reader.health().state in ("ready", "catching-up")
        assert 0 <= reader.count() <= 200
        reader.wait_for(token, timeout=PATIENCE)
        assert reader.count() == 200

    def test_c6_readers_before_during_and_after(self, store: LiveStore) -> None:
        """Readers that start before, between and after writes all end with the same documents."""
        readers = [store.new_reader(store.builder("before"))]
        token = Token()
        for turn in range(5):
            token |= store.writer.upsert_fields(document(id=str(turn), x=turn))
            token |= store.writer.upsert_fields(document(id="shared", **{f"x{turn}": turn}))
            readers.append(store.new_reader(store.builder(f"during-{turn}")))
        readers.append(store.new_reader(store.builder("after")))
        for reader in readers:
            reader.wait_for(token, timeout=PATIENCE)
            assert dict(reader.scan()) == dict(readers[-1].scan())
        assert readers[0].count() == 6

    def test_a_recreated_store_is_another_log(self, store: LiveStore) -> None:
        """A replica never follows a store that was deleted and made again under its name; a new mount does."""
        store.put(id="a", x=1)
        store.recreate()
        token = store.writer.upsert_fields(document(id="b", x=2))
        assert dict(store.new_reader(store.builder("new")).scan()) == {"b": {"id": "b", "x": 2}}
        if self.backend_info.volatile:
            return  # nothing was kept that could be mixed up
        with pytest.raises((LogDivergedError, MountMismatchError)):
            store.unstarted_reader().startup(timeout=PATIENCE)
        assert token.identity == store.description.identity

    def test_another_process_reads(self, store: LiveStore) -> None:
        """Where backend and transport are process-shared, a reader in another process on the same mount sees a write
        whose token was carried to it."""
        if not (self.backend_info.process_shared and self.transport_info.process_shared):
            pytest.skip("backend or transport is not process-shared")
        store.put(id="a", x=1)
        token = store.writer.upsert_fields(document(id="b", x="carried"))
        settings = (store.backend, store.backend_options, store.transport, store.transport_options)
        names = (store.description.store_name, store.description.account_id, PASSKEY, str(store.directory))
        with spawned(read_in_child, settings, names, str(token), "b") as result:
            assert result() == ({"id": "b", "x": "carried"}, 2)

    # -- figures -------------------------------------------------------------------------------

    def test_stats_and_health(self, make: MakeStore) -> None:
        """stats gives documents, places and ends, lag, counts and the log's size; health says ready."""
        store = make(partitions=2)
        store.shown(store.writer.upsert_fields_batch(documents({"id": str(n)} for n in range(30))))
        stats, bounds = store.reader.stats(), store.log.bounds()
        assert (stats.documents, stats.events_applied, stats.bad_events, stats.last_error) == (30, 30, 0, None)
        assert {p: (each.position, each.end) for p, each in stats.partitions.items()} == {
            p: (each.end, each.end) for p, each in bounds.items()
        }
        assert all((each.lag_events, each.lag_seconds) == (0, 0.0) for each in stats.partitions.values())
        assert dict(stats.first) == {p: each.first for p, each in bounds.items()}
        assert (stats.log_bytes is None) == (store.log.size() is None)
        health = store.reader.health()
        assert (health.state, health.reason) == ("ready", "")
        with pytest.raises(AttributeError):
            stats.documents = 5  # type: ignore[misc]  # frozen, on purpose
        with pytest.raises(AttributeError):
            health.state = "ready"  # type: ignore[misc]  # frozen, on purpose


def _expect_applied(store: LiveStore, total: int) -> None:
    stats = store.reader.stats()
    assert stats.events_applied == total
    assert stats.bad_events == 0


def read_in_child(settings: tuple[Any, ...], names: tuple[str, ...], token: str, key: str) -> tuple[Any, int]:
    """In a child process: open the same mount, wait for the token, read."""
    backend, backend_options, transport, transport_options = settings
    store_name, account_id, passkey, directory = names
    builder = (
        ClientOptionsBuilder()
        .with_store_name(store_name)
        .with_account_id(account_id)
        .with_account_passkey(passkey)
        .with_mount_directory(f"{directory}/mount")
        .with_backend(backend, **backend_options)
        .with_transport(transport, **transport_options)
        .with_console_logging("ERROR")
    )
    with create_new_reader(builder.build()) as reader:
        reader.wait_for(Token.parse(token), timeout=PATIENCE)
        return reader.get_document(key), reader.count()
