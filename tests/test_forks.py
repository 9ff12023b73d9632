"""Readers and writers in children: a forked one is refused at once and does no harm, a spawned one works."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest

PATIENCE = 60.0

PRELUDE = """
import faulthandler, multiprocessing, os, signal, sys, threading, time, uuid, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads: that is the test
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.document import IKVDocument
from ikvcore.errors import ForkedError, IKVError, NotStartedError, ShutDownError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.models import Secret, StoreDescription, TransportContext
from ikvcore.tokens import Token

KIND, MOUNT, ACCOUNT, SERVERS = sys.argv[1:]

def builder():
    made = (ClientOptionsBuilder().with_account_id(ACCOUNT).with_account_passkey("secret").with_store_name("s")
            .with_console_logging("ERROR"))
    if KIND == "memory":
        return made.with_transport("memory").with_backend("memory")
    if KIND == "lmdb+kafka":
        made = made.with_transport("kafka", bootstrap_servers=SERVERS)
    else:
        made = made.with_transport("local", durability="process-crash")
    return made.with_mount_directory(MOUNT).with_backend("lmdb", durability="process-crash")

def provision(partitions=2):
    if KIND == "memory":
        from ikv_transports import memory as module
        options = module.MemoryTransportOptions()
    elif KIND == "lmdb+kafka":
        from ikv_transports import kafka as module
        options = module.KafkaTransportOptions(bootstrap_servers=SERVERS)
    else:
        from ikv_transports import local as module
        options = module.LocalTransportOptions(durability="process-crash")
    context = TransportContext(store_name=None, account_id=ACCOUNT, passkey=Secret("secret"), options=options)
    module.ikv_provisioning(context=context).create_store(
        StoreDescription(store_name="s", account_id=ACCOUNT, identity=uuid.uuid4().hex, primary_key="id",
                         partitions=partitions))

def doc(**fields):
    return IKVDocument.from_dict(fields)

def opened():
    writer, reader = create_new_writer(builder().build()), create_new_reader(builder().build())
    writer.startup()
    reader.startup(timeout=60)
    return writer, reader

def forked(work):
    "The exit code of a child that does `work` and leaves by the interpreter's own way, within a bounded time."
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a call that blocks ends the child, and the test
        work()
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

READER_CALLS = """
    "startup": lambda: reader.startup(timeout=5),
    "get_string_value": lambda: reader.get_string_value("a", "s"),
    "get_bytes_value": lambda: reader.get_bytes_value("a", "s"),
    "get_int32_value": lambda: reader.get_int32_value("a", "s"),
    "get_int64_value": lambda: reader.get_int64_value("a", "s"),
    "get_float32_value": lambda: reader.get_float32_value("a", "s"),
    "get_float64_value": lambda: reader.get_float64_value("a", "s"),
    "get_bool_value": lambda: reader.get_bool_value("a", "s"),
    "get_value": lambda: reader.get_value("a", "s"),
    "get_document": lambda: reader.get_document("a"),
    "multiget_string_values": lambda: reader.multiget_string_values(str_primary_keys=["a"], field_names=["s"]),
    "multiget_bytes_values": lambda: reader.multiget_bytes_values(bytes_primary_keys=[b"a"], field_names=["s"]),
    "multiget_values": lambda: reader.multiget_values(["a"], ["s"]),
    "multiget_documents": lambda: reader.multiget_documents(["a"]),
    "scan": lambda: list(reader.scan()),
    "scan begun before": lambda: list(begun),
    "count": lambda: reader.count(),
    "wait_for": lambda: reader.wait_for(token, 5),
    "wait_for nothing": lambda: reader.wait_for(Token(), 5),
    "stats": lambda: reader.stats(),
    "health": lambda: reader.health(),
    "with": lambda: reader.__enter__(),
"""

WRITER_CALLS = """
    "startup": lambda: writer.startup(),
    "upsert_fields": lambda: writer.upsert_fields(doc(id="a", s="child")),
    "upsert_fields_batch": lambda: writer.upsert_fields_batch([doc(id="a", s="child")]),
    "delete_fields": lambda: writer.delete_fields(doc(id="a"), ["s"]),
    "delete_fields_batch": lambda: writer.delete_fields_batch([doc(id="a")], ["s"]),
    "delete_document": lambda: writer.delete_document(doc(id="a")),
    "delete_document_batch": lambda: writer.delete_document_batch([doc(id="a")]),
    "drop_fields_by_name": lambda: writer.drop_fields_by_name(["s"]),
    "drop_fields_by_name_prefix": lambda: writer.drop_fields_by_name_prefix(["s"]),
    "drop_all_fields": lambda: writer.drop_all_fields(),
    "with": lambda: writer.__enter__(),
"""

REFUSED = """
def refused():
    wrong = []
    for name, call in calls.items():
        try:
            found = call()
        except ForkedError as exc:
            if "spawn" not in str(exc):
                wrong.append((name, "does not name the way out"))
        except BaseException as exc:
            wrong.append((name, repr(exc)))
        else:
            wrong.append((name, "gave " + repr(found)))
    if wrong:
        print("\\n".join(map(repr, wrong)))
        sys.stdout.flush()
        os._exit(1)
"""


@pytest.fixture(params=["lmdb+local", "memory", "lmdb+kafka"])
def kind(request: pytest.FixtureRequest) -> str:
    """Backend and transport; for Kafka with the address of a broker after a space."""
    kind = str(request.param)
    return f"{kind} {request.getfixturevalue('kafka')}" if kind == "lmdb+kafka" else kind


def run(kind: str, tmp_path: Path, program: str, *parts: str, calls: tuple[str, ...] = ()) -> str:
    """What a program prints; it is a file, so that spawned children can import it."""
    kind, _, servers = kind.partition(" ")
    script = tmp_path / "program.py"
    body = textwrap.dedent(program)
    script.write_text(PRELUDE + "".join(parts) + (body % calls if calls else body))
    done = subprocess.run(
        [sys.executable, str(script), kind, str(tmp_path / "mount"), f"a-{uuid.uuid4().hex}", servers],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_call_of_a_reader_is_refused_in_a_forked_child(kind: str, tmp_path: Path) -> None:
    """With ForkedError, which names the ways out; none blocks; and the parent's reader goes on."""
    program = """
        provision()
        writer, reader = opened()
        token = writer.upsert_fields_batch([doc(id=f"k{n}", s="parent") for n in range(1200)])
        reader.wait_for(token, 60)
        begun = reader.scan()
        next(begun)
        reader.get_string_value("k1", "s"), reader.get_document("k1")
        calls = {%s}
        assert forked(refused) == 0
        assert len(list(begun)) == 1199
        reader.wait_for(writer.upsert_fields(doc(id="a", s="later")), 60)
        assert reader.get_string_value("a", "s") == "later"
        reader.shutdown(); writer.shutdown()
        print("fine")
    """
    assert run(kind, tmp_path, program, REFUSED, calls=(READER_CALLS,)).endswith("fine\n")


def test_every_call_of_a_writer_is_refused_in_a_forked_child(kind: str, tmp_path: Path) -> None:
    """With ForkedError; nothing reaches the parent's log; and the parent's writer goes on."""
    program = """
        provision()
        writer, reader = opened()
        token = writer.upsert_fields(doc(id="a", s="parent"))
        calls = {%s}
        assert forked(refused) == 0
        token |= writer.upsert_fields(doc(id="b", s="parent"))
        reader.wait_for(token, 60)
        assert reader.stats().events_applied == 2, reader.stats()
        assert reader.get_string_value("a", "s") == "parent"
        reader.shutdown(); writer.shutdown()
        print("fine")
    """
    assert run(kind, tmp_path, program, REFUSED, calls=(WRITER_CALLS,)).endswith("fine\n")


def test_a_fork_beside_threads_that_hold_every_lock(kind: str, tmp_path: Path) -> None:
    """Threads read, write, start and stop clients while the process forks: no child waits for a lock of theirs."""
    program = """
        provision()
        writer, reader = opened()
        token = writer.upsert_fields(doc(id="a", s="parent"))
        reader.wait_for(token, 60)
        begun = iter(())
        stop = threading.Event()
        def churn(work):
            while not stop.is_set():
                work()
        def reopen():
            with create_new_writer(builder().build()), create_new_reader(builder().build()):
                pass
        threads = [threading.Thread(target=churn, args=(work,), daemon=True) for work in (
            lambda: reader.get_string_value("a", "s"), lambda: list(reader.scan()), reader.stats, reopen,
            lambda: writer.upsert_fields(doc(id="b", s="x")))]
        for thread in threads: thread.start()
        calls = {%s}
        del calls["scan begun before"]
        for name, call in {%s}.items():
            if name not in ("startup", "with"):
                calls["writer's " + name] = call
        for _ in range(8):
            assert forked(lambda: (refused(), reader.shutdown(), writer.shutdown())) == 0
        stop.set()
        for thread in threads: thread.join(60)
        reader.wait_for(writer.upsert_fields(doc(id="a", s="later")), 60)
        assert reader.get_string_value("a", "s") == "later"
        reader.shutdown(); writer.shutdown()
        print("fine")
    """
    assert run(kind, tmp_path, program, REFUSED, calls=(READER_CALLS, WRITER_CALLS)).endswith("fine\n")


def test_shutdown_in_a_forked_child_is_harmless(kind: str, tmp_path: Path) -> None:
    """Of reader and writer, twice, and through `with`; parent and mount notice nothing."""
    program = """
        provision()
        writer, reader = opened()
        def leave():
            for client in (reader, writer, reader, writer):
                client.shutdown()
            reader.__exit__(None, None, None)
            writer.__exit__(None, None, None)
        assert forked(leave) == 0
        reader.wait_for(writer.upsert_fields(doc(id="a", s="x")), 60)
        assert reader.get_string_value("a", "s") == "x"
        assert reader.health().ready
        if KIND != "memory":
            from pathlib import Path
            from ikvcore._status import Status
            deadline = time.monotonic() + 30
            while (status := Status.read(Path(MOUNT))) is None and time.monotonic() < deadline:
                time.sleep(0.01)  # it is first told after the ingester's first step
            assert status.ingesting and status.pid == os.getpid(), status
        reader.shutdown(); writer.shutdown()
        print("fine")
    """
    assert run(kind, tmp_path, program).endswith("fine\n")


# From Kafka a batch may come in parts, and readers may see the one before the other; here they must not.
@pytest.mark.parametrize("kind", ["lmdb+local", "memory"])
def test_a_childs_exit_leaves_the_parents_reads_right(kind: str, tmp_path: Path) -> None:
    """Children end by the interpreter's own way, with destructors and exit handlers, while the parent holds snapshots
    and reads on beside its ingest: not one value of a held snapshot changes.
    """
    program = """
        provision(partitions=1)
        writer, reader = opened()
        def put(value):
            token = writer.upsert_fields_batch([doc(id=f"k{n:04d}", s=value) for n in range(1000)])
            reader.wait_for(token, 60)
        put("round 0")
        engine = reader._replica.storage._engine
        held = [engine.snapshot() for _ in range(3)]
        keys = [b"\\x01\\x00\\x00k%04d" % n for n in range(1000)]
        before = [held[0].get(key) for key in keys]
        assert all(before)
        stop, wrong = threading.Event(), []
        def read():
            while not stop.is_set():
                values = {row["s"] for row in reader.multiget_documents([f"k{n:04d}" for n in range(0, 1000, 100)])}
                if len(values) != 1:
                    wrong.append(values)
                time.sleep(0.001)  # a thread that never rests hardly lets the ingest of its own process run
        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        for number in range(1, 5):
            assert forked(lambda: None) == 0
            put(f"round {number}")
        for number in range(5, 25):  # were the snapshots' pages given free, these would take them
            put(f"round {number}")
        stop.set(); thread.join(60)
        for snapshot in held:
            assert [snapshot.get(key) for key in keys] == before, "a held snapshot went wrong"
        assert not wrong, wrong[0]
        assert {row["s"] for _, row in reader.scan()} == {"round 24"}
        for snapshot in held:
            snapshot.__exit__(None, None, None)
        del snapshot, held
        reader.shutdown(); writer.shutdown()
        print("fine")
    """
    assert run(kind, tmp_path, program).endswith("fine\n")


def test_a_child_may_open_what_its_parent_did_not(tmp_path: Path) -> None:
    """Clients created after the fork work, as in gunicorn's post_fork; the parent has only made them, not started."""
    program = """
        provision()
        reader = create_new_reader(builder().build())
        def work():
            with create_new_writer(builder().build()) as writer, create_new_reader(builder().build()) as reader:
                reader.wait_for(writer.upsert_fields(doc(id=str(os.getpid()), s="child")), 60)
                assert reader.get_string_value(str(os.getpid()), "s") == "child"
        children = []
        for _ in range(2):
            child = os.fork()
            if child == 0:
                signal.alarm(40)
                work()
                sys.exit(0)
            children.append(child)
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with create_new_reader(builder().build()) as reader:
            assert sorted(key for key, _ in reader.scan()) == sorted(map(str, children))
        print("fine")
    """
    assert run("lmdb+local", tmp_path, program).endswith("fine\n")


def test_a_child_is_refused_what_its_parent_had_open(tmp_path: Path) -> None:
    """New clients of the same mount and log, made in the child, say ForkedError too: LMDB cannot open them again."""
    program = """
        provision()
        writer, reader = opened()
        calls = {
            "reader": lambda: create_new_reader(builder().build()).startup(timeout=5),
            "writer": lambda: create_new_writer(builder().build()).startup(),
        }
        assert forked(refused) == 0
        reader.wait_for(writer.upsert_fields(doc(id="a", s="x")), 60)
        reader.shutdown(); writer.shutdown()
        print("fine")
    """
    assert run("lmdb+local", tmp_path, program, REFUSED).endswith("fine\n")


POOL = """
def read(key):
    try:
        return clients[1].get_string_value(key, "s")
    except ForkedError as exc:
        return type(exc).__name__

def write(key):
    try:
        clients[0].upsert_fields(doc(id=key, s="child"))
    except ForkedError as exc:
        return type(exc).__name__

def fresh(key):
    with create_new_writer(builder().build()) as writer:
        with create_new_reader(builder().build()) as reader:
            reader.wait_for(writer.upsert_fields(doc(id=key, s="spawned")), 60)
            return reader.get_string_value(key, "s")
"""


def test_a_pool_of_forks_is_refused(kind: str, tmp_path: Path) -> None:
    """multiprocessing's fork method: every task raises ForkedError, the pool ends, the parent goes on."""
    program = """
        if __name__ == "__main__":
            provision()
            clients = opened()
            clients[1].wait_for(clients[0].upsert_fields(doc(id="a", s="parent")), 60)
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map_async(read, ["a", "b", "a"]).get(60) == ["ForkedError"] * 3
                assert pool.map_async(write, ["a", "b", "a"]).get(60) == ["ForkedError"] * 3
                pool.close()
                pool.join()
            assert clients[1].get_string_value("a", "s") == "parent"
            clients[1].wait_for(clients[0].upsert_fields(doc(id="b", s="parent")), 60)
            assert clients[1].count() == 2
            for client in clients:
                client.shutdown()
            print("fine")
    """
    assert run(kind, tmp_path, program, POOL).endswith("fine\n")


def test_spawned_processes_work(tmp_path: Path) -> None:
    """multiprocessing's spawn method, the way out that the error names: children with clients of their own, beside the
    parent's.
    """
    program = """
        if __name__ == "__main__":
            provision()
            writer, reader = opened()
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                assert pool.map_async(fresh, ["a", "b", "c"]).get(60) == ["spawned"] * 3
                pool.close()
                pool.join()
            reader.wait_for(writer.upsert_fields(doc(id="d", s="parent")), 60)
            assert sorted(key for key, _ in reader.scan()) == ["a", "b", "c", "d"]
            reader.shutdown(); writer.shutdown()
            print("fine")
    """
    assert run("lmdb+local", tmp_path, program, POOL).endswith("fine\n")
