"""Several processes on one mount: one ingests, the others see its commits, and its death costs nothing (C5, C8)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ikvcore._registry import load_backend
from ikvcore._status import Status
from ikvcore._storage import as_storage
from ikvcore.client import IKVWriter
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.document import IKVDocument
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.models import Message, Secret, Sharing, StoreDescription, TransportContext
from ikvcore.testing._plugins import open_backend
from ikvcore.tokens import Token

PATIENCE = 60.0
PARTITIONS = 3

WORKER = """
import json, os, sys
out, sys.stdout = os.fdopen(os.dup(1), "w"), open(os.devnull, "w")  # logging goes to stdout too
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.factory import create_new_reader
from ikvcore.tokens import Token
account, mount, policy, backend = sys.argv[1:5]
options = (ClientOptionsBuilder().with_account_id(account).with_account_passkey("secret").with_store_name("s")
           .with_mount_directory(mount).with_transport("local", durability="process-crash")
           .with_backend(backend, durability="process-crash").with_on_bad_event(policy)
           .with_console_logging("ERROR").build())
reader = create_new_reader(options)
def answer(value): print(json.dumps(value), file=out, flush=True)
def state():
    stats = reader.stats()
    return {"documents": {key: fields for key, fields in reader.scan()}, "applied": stats.events_applied,
            "positions": sum(part.position for part in stats.partitions.values()), "health": reader.health().state,
            "reason": reader.health().reason,
            "count": reader.count(), "bad": stats.bad_events}
try:
    reader.startup(timeout=60)
except Exception as exc:
    answer([type(exc).__name__, str(exc)])
    sys.exit(0)
answer("ready")
for line in sys.stdin:
    command, _, argument = line.strip().partition(" ")
    try:
        if command == "state":
            answer(state())
        elif command == "wait":
            reader.wait_for(Token.parse(argument), timeout=60)
            answer(state())
        elif command == "shutdown":
            reader.shutdown()
            answer("down")
        elif command == "exit":
            break
    except Exception as exc:
        answer([type(exc).__name__, str(exc)])
"""

WRITER = """
import sys
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.document import IKVDocument
from ikvcore.factory import create_new_writer
account = sys.argv[1]
options = (ClientOptionsBuilder().with_account_id(account).with_account_passkey("secret").with_store_name("s")
           .with_transport("local", durability="process-crash").with_console_logging("ERROR").build())
with create_new_writer(options) as writer:
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        document = {"id": f"k{number % 50}", "n": number, f"f{number % 7}": "x"}
        token = writer.upsert_fields(IKVDocument.from_dict(document))
    print(token, flush=True)
"""

HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


class Worker:
    """A process with a reader on the mount."""

    def __init__(self, store: Store, policy: str = "raise") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, store.account, str(store.mount), policy, store.backend],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)

    def answer(self) -> Any:
        return json.loads(self._answers.get(timeout=PATIENCE))

    def ask(self, line: str) -> Any:
        self.tell(line)
        return self.answer()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        """Until it is sent SIGCONT; it has stopped when this returns, which a signal alone does not say."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def end(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Store:
    """A store on the local transport, its writer and the documents that it must come to."""

    def __init__(self, mount: Path, backend: str) -> None:
        from ikv_transports import local

        self.backend = backend
        self.account, self.mount = f"a-{uuid.uuid4().hex[:8]}", mount
        self._context = TransportContext(
            store_name=None,
            account_id=self.account,
            passkey=Secret("secret"),
            options=local.LocalTransportOptions(durability="process-crash"),
        )
        local.ikv_provisioning(context=self._context).create_store(
            StoreDescription(
                store_name="s",
                account_id=self.account,
                identity=uuid.uuid4().hex,
                primary_key="id",
                partitions=PARTITIONS,
            )
        )
        self.model: dict[str, dict[str, Any]] = {}
        self.published = 0
        self.token = Token()
        self.workers: list[Worker] = []
        self.writer: IKVWriter = create_new_writer(self.options().build())
        self.writer.startup()

    def options(self) -> ClientOptionsBuilder:
        return (
            ClientOptionsBuilder()
            .with_account_id(self.account)
            .with_account_passkey("secret")
            .with_store_name("s")
            .with_mount_directory(self.mount)
            .with_transport("local", durability="process-crash")
            .with_backend(self.backend, durability="process-crash")
            .with_console_logging("ERROR")
        )

    def put(self, *documents: dict[str, Any]) -> Token:
        token = self.writer.upsert_fields_batch([IKVDocument.from_dict(document) for document in documents])
        for document in documents:
            self.model.setdefault(document["id"], {}).update(document)
        self.published += len(documents)
        self.token |= token
        return token

    def drop(self, name: str) -> Token:
        token = self.writer.drop_fields_by_name([name])
        for document in self.model.values():
            document.pop(name, None)
        self.published += PARTITIONS
        self.token |= token
        return token

    def publish(self, value: bytes) -> Token:
        """Any event, past the writer's checks."""
        token: Token = self.writer._transport.publish([Message(0, b"", value, 1)])  # type: ignore[attr-defined]
        self.published += 1
        return token

    def worker(self, policy: str = "raise") -> Worker:
        worker = Worker(self, policy)
        self.workers.append(worker)
        return worker

    def ready(self, count: int) -> list[Worker]:
        workers = [self.worker() for _ in range(count)]
        assert [worker.answer() for worker in workers] == ["ready"] * count
        return workers

    def check(self, worker: Worker) -> None:
        """The worker sees everything that was published, applied once."""
        state = worker.ask(f"wait {self.token}")
        assert isinstance(state, dict), state
        assert state["documents"] == self.model
        assert (state["applied"], state["positions"], state["count"]) == (
            self.published,
            self.published,
            len(self.model),
        )

    def status(self) -> Status | None:
        return Status.read(self.mount)

    def ingester(self) -> int:
        """The pid of who ingests, once somebody says so."""

        def speaks() -> int:
            status = self.status()
            return status.pid if status is not None and status.fresh() else 0

        return eventually(speaks, "somebody ingests")

    def close(self) -> None:
        self.writer.shutdown()
        for worker in self.workers:
            worker.end()


def eventually(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    deadline = time.monotonic() + patience
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {patience} s: {what}"
        time.sleep(0.002)
    return answer


on_all = pytest.mark.parametrize("store", ["lmdb", "sqlite", "rocksdb"], indirect=True)
"""Where an engine has a way of its own to share files."""


@pytest.fixture
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    store = Store(tmp_path / "mount", getattr(request, "param", "lmdb"))
    try:
        yield store
    finally:
        store.close()


def holder_of_lock(mount: Path) -> int | None:
    """The pid in whose name ingest.lock is locked, from the kernel itself; None where it is free."""
    inode = (mount / "ingest.lock").stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        parts = line.split()
        if parts[1] == "POSIX" and parts[5].endswith(f":{inode}") and "->" not in parts[:2]:
            return int(parts[4])
    return None


# -- one ingests -------------------------------------------------------------------------------


@on_all
def test_four_workers_one_ingests_and_all_see_every_write(store: Store) -> None:
    """status.json and the lock name one and the same process, the whole time; wait_for works in all of them."""
    store.put(*({"id": f"k{number}", "n": number} for number in range(100)))
    workers = store.ready(4)
    pids = {worker.pid for worker in workers}
    ingester = store.ingester()
    assert ingester in pids
    for number in range(5):
        store.put({"id": f"k{number}", "again": number, f"new{number}": "x"}, {"id": f"more{number}", "n": -1})
        store.drop("n" if number == 2 else f"new{number - 1}")
        for worker in workers:
            store.check(worker)
        assert store.ingester() == ingester
        assert holder_of_lock(store.mount) == ingester


def test_a_reader_may_start_before_during_and_after_the_writes(store: Store) -> None:
    """Writers and readers in processes of their own; each reader ends with everything."""
    (before,) = store.ready(1)
    assert before.ask("state")["documents"] == {}
    with open(os.devnull) as nothing:
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, store.account, str(1_000 * number), str(1_000 * number + 700)],
                stdin=nothing,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]
    eventually(lambda: before.ask("state")["applied"] > 0, "the first writes are seen")
    during = store.worker()
    for writer in writers:
        printed, _ = writer.communicate(timeout=PATIENCE)
        assert writer.returncode == 0
        store.token |= Token.parse(printed.strip())
    assert during.answer() == "ready"
    (after,) = store.ready(1)
    whole = after.ask("state")  # its startup waited for all of it
    assert whole["applied"] == whole["positions"] == 1_400
    assert len(whole["documents"]) == 50
    # The last event of a key wins; the two writers wrote the same keys at the same time, each in its order.
    assert all(fields["n"] % 1_000 >= 650 for fields in whole["documents"].values())
    for worker in (before, during):
        assert worker.ask(f"wait {store.token}") == whole


# -- takeover ----------------------------------------------------------------------------------


class Witness:
    """Looks into the replica without being one of its workers: the commit number, straight from the files."""

    def __init__(self, store: Store) -> None:
        info = load_backend(store.backend).info
        follow = info.sharing is Sharing.FOLLOWERS
        opened = open_backend(store.backend, store.mount / "gen-1", {"durability": "process-crash"}, follow=follow)
        self.storage: Any = as_storage(opened, info)

    def commit(self) -> int:
        self.storage.catch_up()
        return int(self.storage.read_meta([b"commit"])[0] or 0)


@on_all
def test_a_killed_ingester_is_replaced_within_a_second(store: Store) -> None:
    """Several times, under a stream of writes: another commits within 1 s of the kill; nothing is lost or doubled."""
    store.put({"id": "first", "n": 0})
    workers = {worker.pid: worker for worker in store.ready(4)}
    witness = Witness(store)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            store.put(*({"id": f"k{number % 97}", "n": number, f"f{number % 11}": "x"} for _ in range(3)))
            if number % 50 == 0:
                store.drop(f"f{number % 11}")

    stream = threading.Thread(target=write, daemon=True)
    stream.start()
    figures = []
    try:
        for _ in range(5 if store.backend == "lmdb" else 3):
            pid = eventually(lambda: (p := store.ingester()) in workers and p, "a live worker ingests")
            began = witness.commit()
            eventually(lambda began=began: witness.commit() > began, "it commits")
            killed = time.monotonic()
            workers.pop(pid).kill()
            dead = witness.commit()  # whatever comes after this is the successor's
            eventually(lambda dead=dead: witness.commit() > dead, "a successor commits")
            figures.append(time.monotonic() - killed)
            (fresh,) = store.ready(1)
            workers[fresh.pid] = fresh
    finally:
        stop.set()
        stream.join(PATIENCE)
        sys.stdout.write(f"takeover after kill -9: {', '.join(f'{figure:.3f} s' for figure in figures)}\n")
    for worker in workers.values():
        store.check(worker)
    witness.commit()
    assert witness.storage.verify() == []
    witness.storage.close()
    assert max(figures) < 1.0, figures


@on_all
def test_a_clean_shutdown_hands_over(store: Store) -> None:
    """By shutdown, and by an exit that forgot it: the mount says that nobody ingests, then that another does."""
    workers = {worker.pid: worker for worker in store.ready(3)}
    for command in ("shutdown", "exit"):
        pid = store.ingester()
        leaving = workers.pop(pid)
        leaving.tell(command)
        if command == "shutdown":
            assert leaving.answer() == "down"
        else:
            leaving.process.wait(PATIENCE)
        store.put({"id": "a", command: 1})
        for worker in workers.values():
            store.check(worker)
        assert store.ingester() in workers


def test_the_last_worker_to_leave_says_so(store: Store) -> None:
    (worker,) = store.ready(1)
    assert store.ingester() == worker.pid
    assert worker.ask("shutdown") == "down"
    status = store.status()
    assert status is not None
    assert not status.ingesting
    assert holder_of_lock(store.mount) is None


def test_a_stopped_ingester_is_replaced_and_follows_when_it_goes_on(store: Store) -> None:
    """SIGSTOP for longer than the silence that is suffered: the others go on without it, and it does no harm after."""
    store.put({"id": "a", "n": 0})
    workers = {worker.pid: worker for worker in store.ready(3)}
    stopped = workers[store.ingester()]
    stopped.stop()
    store.put({"id": "a", "n": 1}, {"id": "b", "new": 1})
    others = [worker for worker in workers.values() if worker is not stopped]
    for worker in others:
        store.check(worker)  # waits out the silence
    end = time.monotonic() + PATIENCE
    while store.ingester() not in {worker.pid for worker in others}:  # told at its next heartbeat, if it was one before
        assert time.monotonic() < end
        time.sleep(0.05)
    store.put({"id": "c", "newer": 2})
    store.drop("new")
    for worker in others:
        store.check(worker)
    os.kill(stopped.pid, signal.SIGCONT)
    for number in range(30):
        store.put({"id": f"d{number % 5}", f"after{number}": number})
        for worker in workers.values():
            store.check(worker)


@pytest.mark.parametrize("store", ["rocksdb"], indirect=True)
def test_where_one_process_writes_a_stopped_one_is_told_of_and_waited_for(store: Store) -> None:
    """Its engine lets nobody else write: who waits is told, reads go on, and so does all when it goes on or dies."""
    store.put({"id": "a", "n": 0})
    workers = {worker.pid: worker for worker in store.ready(2)}
    stopped = workers[store.ingester()]
    (other,) = (worker for worker in workers.values() if worker is not stopped)
    stopped.stop()
    token = store.put({"id": "a", "n": 1})
    kind, message = other.ask(f"wait {token}")
    assert kind == "IngestHaltedError"
    assert f"process {stopped.pid}" in message
    state = other.ask("state")
    assert state["documents"] == {"a": {"id": "a", "n": 0}}
    assert state["health"] == "halted"
    assert f"process {stopped.pid}" in state["reason"]
    os.kill(stopped.pid, signal.SIGCONT)
    eventually(lambda: other.ask("state")["health"] == "ready", "it is heard of again")
    store.check(other)
    stopped.stop()
    stopped.kill()
    store.put({"id": "b", "n": 2})
    store.check(other)
    assert store.ingester() == other.pid


def test_a_lock_held_in_silence_from_the_start_is_no_obstacle(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that took the lock and never said a word is silent too: no heartbeat for the time that is suffered."""
    from ikvcore import _loop

    monkeypatch.setattr(_loop, "SILENCE", 0.5)
    store.put({"id": "a", "n": 1})
    reader = create_new_reader(store.options().build())
    reader.startup(timeout=PATIENCE)
    reader.shutdown()  # the mount is made, its status says that nobody ingests
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HOLDER,
            str(store.mount / "ingest.lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        store.put({"id": "a", "n": 2})
        again = create_new_reader(store.options().build())
        try:
            again.startup(timeout=4)
            assert again.get_int64_value("a", "n") == 2
        finally:
            again.shutdown()
    finally:
        holder.kill()
        holder.communicate(timeout=PATIENCE)


# -- what followers are told -------------------------------------------------------------------


def test_a_halt_is_raised_in_the_followers_too(store: Store) -> None:
    """wait_for and the startup of a worker that doesn't ingest raise what stops the ingester; reads go on."""
    store.put({"id": "a", "n": 1})
    workers = store.ready(2)
    ingester = store.ingester()
    bad = store.publish(b"\xff\xff\xff")
    for worker in workers:
        kind, message = worker.ask(f"wait {bad}")
        assert kind == "IngestHaltedError"
        assert "partition 0" in message
        state = worker.ask("state")
        assert state["documents"] == store.model
        assert state["health"] == "halted"
    kind, message = store.worker().answer()
    assert kind == "IngestHaltedError"
    assert store.ingester() == ingester


def test_a_worker_that_quarantines_passes_what_halted_another(store: Store) -> None:
    """After the halted ingester is gone, a worker with the other policy goes on, and counts the bad event."""
    store.put({"id": "a", "n": 1})
    (first,) = store.ready(1)
    kind, _ = first.ask(f"wait {store.publish(bytes([255]) * 3)}")
    assert kind == "IngestHaltedError"
    second = store.worker("quarantine")
    kind, _ = second.answer()
    assert kind == "IngestHaltedError", "it follows one that has halted"
    first.kill()
    third = store.worker("quarantine")
    assert third.answer() == "ready"
    store.put({"id": "a", "n": 2})
    store.check(third)
    assert third.ask("state")["bad"] == 1


@pytest.mark.parametrize("linked", [False, True])
def test_clients_of_one_process_share_one_replica(store: Store, linked: bool) -> None:
    """However they name the mount. The lock stays held when one of them leaves; the last one gives it up."""
    mount = store.mount
    if linked:
        mount = store.mount.with_name("link")
        mount.symlink_to(store.mount)
    first = create_new_reader(store.options().build())
    second = create_new_reader(store.options().with_mount_directory(str(mount)).build())
    first.startup(timeout=PATIENCE)
    second.startup(timeout=PATIENCE)
    assert first._replica is second._replica  # type: ignore[attr-defined]
    assert store.ingester() == os.getpid()
    first.shutdown()
    assert holder_of_lock(store.mount) == os.getpid()
    token = store.put({"id": "a", "n": 1})
    second.wait_for(token, timeout=PATIENCE)
    assert second.get_int64_value("a", "n") == 1
    second.shutdown()
    with (store.mount / "ingest.lock").open("r+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
