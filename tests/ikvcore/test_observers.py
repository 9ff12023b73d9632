"""Observers: what they are told, and that none of them can harm a reader or a writer."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ikvcore import _observers
from ikvcore.clientoptions import ClientOptions, ClientOptionsBuilder
from ikvcore.errors import IngestHaltedError, InvalidOptionError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.hookspecs import hookimpl
from ikvcore.models import BadEventFound, BatchApplied, EventsPublished, HealthChanged, ReaderStarted
from ikvcore.observing import events_lost, flush
from ikvcore.testing._live import LiveStore, document
from ikvcore.testing.fixtures import EphemeralStore

BAD = b"\xff\xff"
PATIENCE = 30.0


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.threads: set[str] = set()

    @hookimpl
    def reader_started(self, event: ReaderStarted) -> None:
        self._note(event)

    @hookimpl
    def batch_applied(self, event: BatchApplied) -> None:
        self._note(event)

    @hookimpl
    def bad_event(self, event: BadEventFound) -> None:
        self._note(event)

    @hookimpl
    def health_changed(self, event: HealthChanged) -> None:
        self._note(event)

    @hookimpl
    def events_published(self, event: EventsPublished) -> None:
        self._note(event)

    def _note(self, event: object) -> None:
        self.heard.append(event)
        self.threads.add(threading.current_thread().name)

    def told(self, kind: type[Any]) -> list[Any]:
        assert flush(PATIENCE)
        return [each for each in self.heard if isinstance(each, kind)]


class Failing:
    def __repr__(self) -> str:
        return "Failing()"

    @hookimpl
    def events_published(self, event: EventsPublished) -> None:
        raise SystemExit("this observer has had enough")


@pytest.fixture
def store() -> Iterator[EphemeralStore]:
    with EphemeralStore() as opened:
        yield opened


def observed(store: LiveStore, *observers: object) -> ClientOptionsBuilder:
    return store.builder().with_observers(*observers, installed=False)


# -- what is told ------------------------------------------------------------------------------


def test_a_life_of_a_store_is_told_in_its_order(store: EphemeralStore) -> None:
    listener = Listener()
    with create_new_writer(observed(store, listener).build()) as writer:
        writer.upsert_fields_batch([document(id=key, n=1) for key in ("a", "b", "c")])
        token = writer.drop_fields_by_name(["x"])
        with create_new_reader(observed(store, listener).build()) as reader:
            reader.wait_for(token, timeout=PATIENCE)
            assert flush(PATIENCE)
    description = store.description
    assert {(each.store_name, each.account_id) for each in listener.heard} == {
        (description.store_name, description.account_id)
    }
    assert listener.threads == {"ikvcore-observers"}
    first, drop = listener.told(EventsPublished)
    assert (first.events, drop.events) == (3, 1)
    assert first.bytes > drop.bytes > 0
    assert first.seconds > 0
    batches = listener.told(BatchApplied)
    assert sum(batch.events for batch in batches) == 4
    assert batches[-1].positions == dict(token.positions)
    assert [batch.quarantined for batch in batches] == [0] * len(batches)
    assert 0 <= batches[-1].delay_seconds < PATIENCE
    (started,) = listener.told(ReaderStarted)
    assert (started.reader, started.mount) == (reader, None)
    assert [(each.before.state, each.after.state) for each in listener.told(HealthChanged)] == [
        ("stopped", "ready"),
        ("ready", "stopped"),
    ]


def test_documents_asked_for_by_key_are_counted(store: EphemeralStore) -> None:
    store.put(id="a", n=1)
    listener = Listener()
    reader = store.new_reader(observed(store, listener))
    (started,) = listener.told(ReaderStarted)
    for _ in range(5):
        reader.get_value("a", "n")
    reader.get_int64_value("nobody", "n")
    list(reader.multiget_values(["a", "b", "a"], ["n"]))
    reader.get_document("a")
    list(reader.scan())
    assert (started.reads.single, started.reads.batched, started.reads.total) == (6, 4, 10)


def test_reads_of_several_threads_are_all_counted(store: EphemeralStore) -> None:
    store.put(id="a", n=1)
    listener = Listener()
    reader = store.new_reader(observed(store, listener))

    def read() -> None:
        for _ in range(20_000):
            reader.get_value("a", "n")

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (started,) = listener.told(ReaderStarted)
    assert started.reads.total == 80_000


@pytest.mark.parametrize("quarantine", [False, True])
def test_a_bad_event_is_told_with_its_place_and_what_became_of_it(store: EphemeralStore, quarantine: bool) -> None:
    listener = Listener()
    store.put(id="a")
    builder = observed(store, listener).with_on_bad_event("quarantine" if quarantine else "raise")
    reader = store.new_reader(builder)
    bad = store.publish(BAD)
    if quarantine:
        reader.wait_for(bad, timeout=PATIENCE)
    else:
        with pytest.raises(IngestHaltedError):
            reader.wait_for(bad, timeout=PATIENCE)
    _wait_until(lambda: listener.told(BadEventFound) != [])
    (found,) = listener.told(BadEventFound)
    assert (found.partition, found.position, found.quarantined) == (0, 1, quarantine)
    assert found.reason
    assert sum(batch.quarantined for batch in listener.told(BatchApplied)) == quarantine
    if not quarantine:
        _wait_until(lambda: [each.after.state for each in listener.told(HealthChanged)] == ["ready", "halted"])
        assert list(listener.told(HealthChanged)[-1].after.halts) == [0]


def _wait_until(true: Any) -> None:
    """What is told after a commit may be told a moment after the commit is visible."""
    changed = threading.Event()
    for _ in range(3_000):
        if true():
            return
        changed.wait(0.01)
    raise AssertionError("it did not come")


def test_readers_of_one_mount_are_told_of_one_replica_each_as_long_as_it_lives(tmp_path: Path) -> None:
    one, other = Listener(), Listener()
    with LiveStore(backend="lmdb", transport="memory", directory=tmp_path) as store:
        first, second = store.new_reader(observed(store, one)), store.new_reader(observed(store, one, other))
        token = store.writer.upsert_fields(document(id="a"))
        first.wait_for(token, timeout=PATIENCE)
        _wait_until(lambda: other.told(BatchApplied) != [])
        assert sum(batch.events for batch in one.told(BatchApplied)) == 1  # not once for each client
        assert {batch.mount for batch in one.told(BatchApplied)} == {tmp_path / "mount"}
        second.shutdown()
        known = len(other.told(BatchApplied))
        first.wait_for(store.writer.upsert_fields(document(id="b")), timeout=PATIENCE)
        _wait_until(lambda: sum(batch.events for batch in one.told(BatchApplied)) == 2)
        assert len(other.told(BatchApplied)) == known


# -- what observers cannot do ------------------------------------------------------------------


def test_an_observer_that_fails_keeps_nobody_from_anything_and_is_logged_once(
    store: EphemeralStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="ikvcore._observers")  # a client sets the level of "ikvcore"
    failing, listener = Failing(), Listener()
    with create_new_writer(observed(store, failing, listener).build()) as writer:
        for _ in range(3):
            writer.upsert_fields(document(id="a"))
    with create_new_writer(observed(store, failing).build()) as writer:
        writer.upsert_fields(document(id="a"))
        flush(PATIENCE)
    assert len(listener.told(EventsPublished)) == 3
    (record,) = [each for each in caplog.records if each.name == "ikvcore._observers"]
    assert "Failing() failed in events_published" in record.getMessage()
    assert record.exc_info is not None
    assert "had enough" in str(record.exc_info[1])


def test_a_slow_observer_is_named_once(
    store: EphemeralStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, logger="ikvcore._observers")
    monkeypatch.setattr(_observers, "_SLOW", 0.0)
    with create_new_writer(observed(store, Listener()).build()) as writer:
        for _ in range(3):
            writer.upsert_fields(document(id="a"))
        flush(PATIENCE)
    (record,) = [each for each in caplog.records if "Listener" in each.getMessage()]
    assert record.levelno == logging.WARNING
    assert "keeps all observers waiting" in record.getMessage()


def test_an_observer_that_shuts_its_client_down_does_not_wait_for_itself(store: EphemeralStore) -> None:
    done = threading.Event()

    class Ending:
        @hookimpl
        def events_published(self, event: EventsPublished) -> None:
            writer.shutdown()
            assert flush(10 * PATIENCE)
            done.set()

    writer = create_new_writer(observed(store, Ending()).build())
    writer.startup()
    writer.upsert_fields(document(id="a"))
    assert done.wait(PATIENCE)


class Nothing:
    """Observes nothing."""


class Misspelt:
    @hookimpl
    def batch_aplied(self, event: object) -> None:
        pass


class Demanding:
    @hookimpl
    def batch_applied(self, event: object, more: object) -> None:
        pass


@pytest.mark.parametrize(
    ("observer", "reason"),
    [
        (Nothing(), "no function marked with hookimpl"),
        (Misspelt(), r"unknown hook 'batch_aplied' \(did you mean 'batch_applied'"),
        (Demanding(), "more"),
        (Listener, "give an instance of it"),
    ],
)
def test_what_cannot_observe_is_refused_where_the_client_is_made(
    store: EphemeralStore, observer: object, reason: str
) -> None:
    with pytest.raises(InvalidOptionError, match=reason):
        create_new_reader(observed(store, observer).build())


def test_options_of_observers_are_checked_and_come_from_files_and_the_environment(tmp_path: Path) -> None:
    listener = Listener()
    options = ClientOptionsBuilder().with_observers(listener, installed=False).build()
    assert (options.observers, options.installed_observers) == ((listener,), False)
    assert ClientOptions().installed_observers
    assert not ClientOptions.from_env({"IKV_INSTALLED_OBSERVERS": "False"}).installed_observers
    (tmp_path / "ikv.toml").write_text("installed_observers = false")
    assert not ClientOptions.from_toml(tmp_path / "ikv.toml").installed_observers
    for wrong in ({"observers": "metrics"}, {"observers": 3}, {"installed_observers": "yes"}):
        with pytest.raises(InvalidOptionError, match=next(iter(wrong))):
            ClientOptions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match=r"IKV_INSTALLED_OBSERVERS.*true or false"):
        ClientOptions.from_env({"IKV_INSTALLED_OBSERVERS": "0"})


# -- the thread, in processes of their own -----------------------------------------------------

PRELUDE = """
import logging, os, sys, threading, time
from ikvcore.hookspecs import hookimpl
from ikvcore.observing import events_lost, flush
from ikvcore.testing._live import document
from ikvcore.testing.fixtures import EphemeralStore
from ikvcore.factory import create_new_writer
class Quiet(EphemeralStore):
    def builder(self, mount="mount"):
        return super().builder(mount).with_observers(installed=False)
store = Quiet()
def names():
    return [thread.name for thread in threading.enumerate()]
def writer_with(observer):
    writer = create_new_writer(store.builder().with_observers(observer, installed=False).build())
    writer.startup()
    return writer
"""


def run(code: str) -> list[str]:
    """The lines that a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_where_nobody_observes_there_is_no_thread_and_nothing_is_counted() -> None:
    assert run("""
        store.put(id="a")
        print(store.reader._reads, "ikvcore-observers" in names(), "prometheus_client" in sys.modules)
        """) == ["None False False"]


def test_an_observer_that_never_returns_loses_events_and_delays_nothing_for_long() -> None:
    lines = run("""
        logging.basicConfig(stream=sys.stdout, format="%(name)s %(message)s")
        class Stuck:
            def __repr__(self):
                return "Stuck()"
            @hookimpl
            def events_published(self, event):
                inside.set()
                threading.Event().wait()
        inside = threading.Event()
        writer = writer_with(Stuck())
        logging.getLogger("ikvcore._observation").setLevel("WARNING")
        a = document(id="a")
        writer.upsert_fields(a)
        inside.wait()
        slowest = 0.0
        for _ in range(10_025):
            began = time.perf_counter()
            writer.upsert_fields(a)
            slowest = max(slowest, time.perf_counter() - began)
        print(events_lost(), slowest < 1)
        store.shown(store.writer.upsert_fields(document(id="b")))
        print(store.reader.get_value("b", "id"))
        began = time.monotonic()
        writer.shutdown()
        for _ in range(20):  # only the first shutdown waits in vain
            with writer_with(Stuck()):
                pass
        print(time.monotonic() - began < 10)
        """)
    warned, *rest = lines
    assert warned.startswith("ikvcore._observation 10000 events wait to be told to observers; Stuck() is being told")
    assert rest == ["25 True", "b", "True"]


def test_what_was_not_told_yet_is_told_before_the_process_ends() -> None:
    assert run("""
        class Late:
            @hookimpl
            def events_published(self, event):
                time.sleep(0.05)
                print(event.events, flush=True)
        writer = writer_with(Late())
        writer.upsert_fields(document(id="a"))
        writer.upsert_fields_batch([document(id="a"), document(id="b")])
        """) == ["1", "2"]


def test_a_forked_child_tells_its_own_events_and_none_of_its_parents() -> None:
    assert run("""
        class Here:
            @hookimpl
            def events_published(self, event):
                print("child" if os.getpid() != parent else "parent", event.events, flush=True)
                if gate is not None:
                    gate.wait()
        parent, gate = os.getpid(), threading.Event()
        writer = writer_with(Here())
        for _ in range(2):
            writer.upsert_fields(document(id="a"))
        flush(0.01)  # the first is being told, the second waits
        child = os.fork()
        if child == 0:
            gate = None
            print("ikvcore-observers" in names(), flush=True)
            store = Quiet()
            with writer_with(Here()) as writer:
                writer.upsert_fields_batch([document(id=key) for key in "abc"])
            os._exit(0)
        os.waitpid(child, 0)
        gate.set()
        flush()
        """) == ["parent 1", "False", "child 3", "parent 1"]


def test_events_lost_are_none_where_all_were_told() -> None:
    assert events_lost() == 0
