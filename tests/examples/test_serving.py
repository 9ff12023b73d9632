"""examples/serving as its README starts it: uvicorn, and gunicorn with two workers on one mount, asked over HTTP."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ikvcore import admin
from ikvcore._status import Status
from ikvcore.clientoptions import ClientOptions
from ikvcore.document import IKVDocument, IKVDocumentBuilder
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.models import Message

if TYPE_CHECKING:
    import httpx

PARTS = {
    **dict.fromkeys(("fastapi", "gunicorn", "uvicorn"), "pip install -r examples/serving/requirements.txt"),
    "httpx": "pip install httpx",
}
pytestmark = [
    pytest.mark.requires_part(name, available=find_spec(name) is not None, how=how) for name, how in PARTS.items()
]

SERVING = Path(__file__).parents[2] / "examples" / "serving"
PATIENCE = 30.0
ENDS_WITHIN = 15.0
ADDRESS = re.compile(rb"http://127\.0\.0\.1:(\d+)")
FAST = '{"durability": "process-crash"}'

UVICORN = ("uvicorn", "app:app", "--port", "0")
GUNICORN = ("gunicorn", "--bind", "127.0.0.1:0")
WORKERS = {"uvicorn": 1, "gunicorn": 2}


class Store:
    """A store in a home of its own, the environment in which the example finds it, and a writer."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.mount = directory, directory / "replica"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("IKV_", "XDG_", "SERVING_"))},
            "HOME": str(directory),
            "IKV_HOME": str(directory / "ikv"),
            "IKV_STORE_NAME": "features",
            "IKV_ACCOUNT_ID": "demo",
            "IKV_ACCOUNT_PASSKEY": "secret",
            "IKV_MOUNT_DIRECTORY": str(self.mount),
            "IKV_TRANSPORT_OPTIONS": json.dumps({"home": str(directory / "ikv"), "durability": "process-crash"}),
            "IKV_BACKEND_OPTIONS": FAST,
            "IKV_CONSOLE_LOGGING": "ERROR",
        }
        self.options = ClientOptions.from_env(self.environment)
        admin.create_store(
            "features",
            account_id="demo",
            account_passkey="secret",
            primary_key="user_id",
            transport_options=dict(self.options.transport_options),
        )
        self.writer = create_new_writer(self.options)
        self.writer.startup()

    def put(self, key: str, **fields: Any) -> None:
        self.writer.upsert_fields(IKVDocument.from_dict({"user_id": key, **fields}))

    def count_to(self, number: int) -> None:
        """The counter that tests follow; its two fields are written together."""
        self.put("counter", n=number, again=number)

    def ingester(self) -> int | None:
        """The pid of the worker that ingests, where one says so."""
        status = Status.read(self.mount)
        return status.pid if status is not None and status.fresh() else None


class Server:
    """A server of the example, and whatever it forks: a session of its own."""

    def __init__(self, store: Store, command: tuple[str, ...], **changes: str) -> None:
        import httpx

        self.workers = WORKERS[command[0]]
        self._log = store.directory / f"{command[0]}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=SERVING,
                env={**store.environment, "PYTHONUNBUFFERED": "1", **changes},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Every request has a connection of its own, so that any worker may answer it.
        self._client = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), timeout=PATIENCE)

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def started(self) -> Server:
        """Once it listens, and each of its workers answers."""

        def address() -> re.Match[bytes] | None:
            assert self.process.poll() is None, self.said()
            return ADDRESS.search(self._log.read_bytes())

        self._client.base_url = eventually(address, "the server says where it listens")[0].decode()
        self.pids()
        return self

    def get(self, path: str) -> httpx.Response:
        return self._client.get(path)

    def post(self, body: Any) -> httpx.Response:
        content = body if isinstance(body, str) else json.dumps(body)
        return self._client.post("/features", content=content, headers={"content-type": "application/json"})

    def ask(self, keys: list[str], fields: list[str]) -> tuple[int, list[Any]]:
        """Who answered, and the rows."""
        answer = self.post({"keys": keys, "fields": fields})
        assert answer.status_code == 200, answer.text
        assert answer.json()["fields"] == fields
        return int(answer.headers["x-worker"]), answer.json()["rows"]

    def counter(self) -> tuple[int, int]:
        """Who answered, and how far it sees the counter."""
        pid, (row,) = self.ask(["counter"], ["n", "again"])
        assert row[0] == row[1], "half a write is seen"
        return pid, row[0]

    def pids(self) -> set[int]:
        """The workers, once each of them has answered."""
        seen: set[int] = set()

        def all_answered() -> bool:
            seen.add(self.get("/health/live").json()["pid"])
            return len(seen) == self.workers

        eventually(all_answered, f"{self.workers} workers answer")
        return seen

    def sees_everywhere(self, number: int) -> None:
        """Each worker comes to see this value of the counter."""
        seen: set[int] = set()

        def all_see() -> bool:
            pid, found = self.counter()
            if found == number:
                seen.add(pid)
            return len(seen) == self.workers

        eventually(all_see, f"all workers see {number}")

    def end(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(ENDS_WITHIN)

    def clean_up(self) -> None:
        self._client.close()
        if alive(-self.process.pid):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


def eventually(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.01)
    return answer


def alive(pid: int) -> bool:
    """Whether there is a process, or of a negative pid any of that group."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Follower(threading.Thread):
    """Asks for the counter without pause, until it is left: what each worker answered, and which requests failed."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server, self._left = server, threading.Event()
        self.seen: dict[int, list[int]] = defaultdict(list)
        self.failed: list[Exception] = []
        self.wrong: AssertionError | None = None

    def run(self) -> None:
        import httpx

        while not self._left.is_set():
            try:
                pid, number = self._server.counter()
                self.seen[pid].append(number)
            except httpx.TransportError as exc:
                self.failed.append(exc)
            except AssertionError as exc:
                self.wrong = exc
                return

    def __enter__(self) -> Follower:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self.join(PATIENCE)

    def check(self) -> None:
        """No answer was wrong, and none older than an earlier one of the same worker."""
        if self.wrong is not None:
            raise self.wrong
        for pid, numbers in self.seen.items():
            assert numbers == sorted(numbers), f"worker {pid} went back"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    try:
        yield store
    finally:
        store.writer.shutdown()


@pytest.fixture
def serve(store: Store) -> Iterator[Callable[..., Server]]:
    """`serve(UVICORN, **changes_to_the_environment)` starts a server of `store`."""
    with ExitStack() as stack:

        def start(command: tuple[str, ...], **changes: str) -> Server:
            server = Server(store, command, **changes)
            stack.callback(server.clean_up)
            return server

        yield start


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Server]]:
    """One store with some documents under uvicorn, for all tests that only ask."""
    store = Store(tmp_path_factory.mktemp("served"))
    server = Server(store, UVICORN)
    try:
        store.put("ann", city="Oslo", clicks=1)
        store.put("bob", clicks=2)
        store.put("a/b ü", clicks=3)
        eventually(lambda: server.started().get("/features/a%2Fb%20%C3%BC").status_code == 200, "all is visible")
        yield store, server
    finally:
        server.clean_up()
        store.writer.shutdown()


@pytest.fixture(params=[UVICORN, GUNICORN], ids=lambda command: command[0])
def command(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


# -- answers -----------------------------------------------------------------------------------


def test_rows_come_in_the_order_asked_with_null_for_what_is_missing(served: tuple[Store, Server]) -> None:
    """Duplicates repeat; a document that is not there is null, a field that is not there null in its row."""
    _, server = served
    _, rows = server.ask(["bob", "nobody", "ann", "bob"], ["clicks", "city", "user_id", "clicks"])
    bob = [2, None, "bob", 2]
    assert rows == [bob, None, [1, "Oslo", "ann", 1], bob]


def test_values_of_every_type_are_told_apart(served: tuple[Store, Server]) -> None:
    """Also those that JSON cannot carry: none of them becomes the null of a missing value."""
    store, server = served
    document = (
        IKVDocumentBuilder()
        .put_string_field("user_id", "types")
        .put_int64_field("int64", 2**63 - 1)
        .put_float32_field("float32", 0.5)
        .put_float64_field("whole", 2.0)
        .put_bool_field("bool", True)
        .put_bool_field("false", False)
        .put_string_field("empty", "")
        .put_bytes_field("bytes", b"\xff\x00")
        .put_float64_field("nan", math.nan)
        .put_float32_field("inf", -math.inf)
        .build()
    )
    store.writer.upsert_fields(document)
    eventually(lambda: server.get("/features/types").status_code == 200, "it is visible")
    wanted = {
        "user_id": '"types"',
        "int64": "9223372036854775807",
        "float32": "0.5",
        "whole": "2.0",
        "bool": "true",
        "false": "false",
        "empty": '""',
        "bytes": '{"bytes":"/wA="}',
        "nan": '{"float64":"NaN"}',
        "inf": '{"float32":"-Infinity"}',
    }
    answer = server.post({"keys": ["types"], "fields": list(wanted)})
    assert f'"rows":[[{",".join(wanted.values())}]]' in answer.text
    assert server.get("/features/types").json() == {name: json.loads(text) for name, text in wanted.items()}


def test_one_document_by_its_key(served: tuple[Store, Server]) -> None:
    """All its fields or those asked for; 404 for one that is not there."""
    _, server = served
    assert server.get("/features/ann").json() == {"user_id": "ann", "city": "Oslo", "clicks": 1}
    assert server.get("/features/a%2Fb%20%C3%BC?fields=clicks&fields=none").json() == {"clicks": 3, "none": None}
    answer = server.get("/features/nobody")
    assert (answer.status_code, answer.json()) == (404, {"detail": "there is no document 'nobody'"})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"keys": [], "fields": ["f"]}, "body.keys: List should have at least 1 item"),
        ({"keys": ["k"], "fields": []}, "body.fields: List should have at least 1 item"),
        ({"keys": ["k"] * 1_001, "fields": ["f"]}, "body.keys: List should have at most 1000 items"),
        ({"keys": ["k"], "fields": ["f"] * 101}, "body.fields: List should have at most 100 items"),
        ({"keys": ["k"] * 1_000, "fields": ["f"] * 21}, "are 21,000, and may be 20,000; ask in parts"),
        ({"keys": [7], "fields": ["f"]}, "body.keys.0: Input should be a valid string"),
        ({"keys": "k", "fields": ["f"]}, "body.keys: Input should be a valid list"),
        ({"keys": ["k"]}, "body.fields: Field required"),
        ({"keys": ["k"], "fields": ["f"], "field": "g"}, "body.field: Extra inputs are not permitted"),
        ({"keys": ["k", ""], "fields": ["f"]}, "'' cannot be a key"),
        ({"keys": ["k" * 65_536], "fields": ["f"]}, "65,535 bytes, not 65,536"),
        ({"keys": ["k"], "fields": ["f", ""]}, "field name"),
        ({"keys": ["\ud800"], "fields": ["f"]}, "it has no UTF-8 form"),
        ('{"keys": [', "JSON decode error"),
    ],
)
def test_bad_requests_are_refused_in_words(served: tuple[Store, Server], body: Any, words: str) -> None:
    _, server = served
    answer = server.post(body)
    assert answer.status_code == 422, answer.text
    assert list(answer.json()) == ["detail"]
    assert words in answer.json()["detail"]
    assert len(answer.text) < 1_000


def test_an_impossible_key_in_the_path_is_refused(served: tuple[Store, Server]) -> None:
    _, server = served
    for path in ("/features/", "/features/ann?fields="):
        answer = server.get(path)
        assert answer.status_code == 422, answer.text


def test_stats_tell_of_the_replica(served: tuple[Store, Server]) -> None:
    _, server = served
    figures = server.get("/stats").json()
    assert figures["pid"] == server.process.pid
    assert figures["documents"] >= 3
    assert figures["partitions"]["0"]["lag_events"] == 0


def test_the_feed_writes_what_is_served(served: tuple[Store, Server]) -> None:
    """feed.py as the README runs it."""
    store, server = served
    feed = [sys.executable, "feed.py", "--users", "20", "--seconds", "0.1"]
    done = subprocess.run(
        feed, cwd=SERVING, env=store.environment, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert re.fullmatch(r"20 users written\n[\d,]+ clicks written\n", done.stdout)
    eventually(lambda: server.get("/features/user-19").status_code == 200, "the last user is visible")
    assert set(server.get("/features/user-19").json()) >= {"user_id", "city", "clicks", "embedding"}


# -- beside a writer ---------------------------------------------------------------------------


def test_what_is_written_while_it_serves_is_seen_in_every_worker(
    store: Store, serve: Callable[..., Server], command: tuple[str, ...]
) -> None:
    """No worker answers with something older than before, nor with half a write."""
    store.count_to(0)
    server = serve(command).started()
    with Follower(server) as follower:
        for number in range(1, 500):
            store.count_to(number)
            if number % 5 == 0:
                server.counter()  # or the writer is done before the follower has asked much
            if number % 100 == 0:
                server.sees_everywhere(number)
    store.count_to(500)
    server.sees_everywhere(500)
    follower.check()
    assert not follower.failed
    assert len(follower.seen) == server.workers
    assert store.ingester() in follower.seen


def test_a_killed_worker_is_replaced_and_the_other_ingests(store: Store, serve: Callable[..., Server]) -> None:
    """kill -9 of the ingesting one: requests go on, at most the one that it had in hand fails, and new writes are seen
    by both workers.
    """
    store.count_to(0)
    server = serve(GUNICORN).started()
    before = server.pids()
    killed = eventually(store.ingester, "one of them ingests")
    assert killed in before
    with Follower(server) as follower:
        eventually(lambda: follower.seen, "requests are made")
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: not alive(killed), "gunicorn has noticed")
        for number in range(1, 200):
            store.count_to(number)
        server.sees_everywhere(199)
        eventually(lambda: len(follower.seen.keys() - {killed}) == 2, "the new worker answers")
    follower.check()
    assert len(follower.failed) <= 1, follower.failed
    after = server.pids()
    assert after & before == before - {killed}
    assert eventually(store.ingester, "another one ingests") in after


# -- readiness ---------------------------------------------------------------------------------


@pytest.fixture
def held(store: Store) -> Iterator[Callable[[], None]]:
    """Ten events are in the log and nobody may ingest them until this is called: the mount is locked, and the heart of
    who locked it beats far into the future.
    """
    with create_new_reader(store.options):
        pass  # makes the mount
    for number in range(10):
        store.count_to(number)
    with (store.mount / "ingest.lock").open("r+") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        Status(heartbeat=time.monotonic() + 3_600).write(store.mount)
        yield lock.close


def test_not_ready_until_what_was_in_the_log_is_visible(serve: Callable[..., Server], held: Callable[[], None]) -> None:
    """Probes are answered meanwhile, features are not; then both are."""
    server = serve(UVICORN, SERVING_STARTUP_SECONDS="0.1").started()
    not_ready = server.get("/health/ready")
    reason = "10 events of before the startup are not visible yet"
    assert (not_ready.status_code, not_ready.json()) == (503, {"state": "catching-up", "reason": reason})
    for refused in (server.post({"keys": ["counter"], "fields": ["n"]}), server.get("/features/counter")):
        wanted = {"detail": f"not ready (catching-up): {reason}"}
        assert (refused.status_code, refused.json()) == (503, wanted)
    held()
    eventually(lambda: server.get("/health/ready").status_code == 200, "it is ready")
    assert server.get("/health/ready").json() == {"state": "ready", "reason": ""}
    server.sees_everywhere(9)


def test_a_worker_first_waits_a_while_for_the_end_of_the_log(
    serve: Callable[..., Server], held: Callable[[], None]
) -> None:
    """In post_fork, before it listens, so that its first answer is no refusal. The lifespan has no part in it here."""
    command = (*GUNICORN, "--asgi-lifespan", "off")
    server = serve(command, SERVING_STARTUP_SECONDS="20", IKV_CONSOLE_LOGGING="INFO")
    eventually(lambda: re.search("startup: 0 of 10|ASGI server listening", server.said()), "it waits, or does not")
    assert "ASGI server listening" not in server.said()
    held()
    assert server.started().counter()[1] == 9


def test_a_halted_worker_is_not_ready_and_answers_with_what_it_has(store: Store, serve: Callable[..., Server]) -> None:
    store.count_to(1)
    server = serve(UVICORN).started()
    server.sees_everywhere(1)
    store.writer._transport.publish([Message(0, b"", b"\xff\xff", 1)])  # type: ignore[attr-defined]
    eventually(lambda: server.get("/health/ready").status_code == 503, "the halt is told")
    health = server.get("/health/ready").json()
    assert health["state"] == "halted"
    assert "bad event at position 1" in health["reason"]
    assert server.counter() == (server.process.pid, 1)
    assert server.get("/health/live").status_code == 200


# -- starting and ending -----------------------------------------------------------------------


def test_sigterm_ends_all_of_it_in_good_order(
    store: Store, serve: Callable[..., Server], command: tuple[str, ...]
) -> None:
    """No process is left, and the mount says that nobody ingests: the reader was shut down, not just left."""
    store.count_to(1)
    server = serve(command).started()
    server.sees_everywhere(1)
    eventually(store.ingester, "one of them ingests")
    code = server.end()
    # uvicorn shuts down and then lets the signal have its usual effect, so that whoever waits for it can tell.
    assert code == (-signal.SIGTERM if command is UVICORN else 0), server.said()
    assert not alive(-server.process.pid)
    status = Status.read(store.mount)
    assert status is not None
    assert not status.ingesting
    assert "Traceback" not in server.said()


@pytest.mark.parametrize(
    ("command", "changes", "words"),
    [
        ((*GUNICORN, "--preload"), {}, "ForkedError"),
        (UVICORN, {"IKV_ACCOUNT_PASSKEY": "wrong"}, "StoreAccessError"),
    ],
    ids=["preload", "passkey"],
)
def test_a_reader_that_cannot_start_ends_the_server(
    serve: Callable[..., Server], command: tuple[str, ...], changes: dict[str, str], words: str
) -> None:
    """At once, with the reason in its log."""
    server = serve(command, **changes)
    assert server.process.wait(PATIENCE) in (1, 3), server.said()  # gunicorn's 3 becomes 1 where both workers fail
    assert words in server.said()
    assert not alive(-server.process.pid)
