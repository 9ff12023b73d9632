"""A broker that falls silent under a reader and a writer, which are told so and go on when it speaks again."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ikvcore.document import IKVDocument
from ikvcore.errors import LogUnavailableError
from ikvcore.testing._live import LiveStore

PATIENCE = 120.0
TIMEOUT = 60.0
"""Of the transport: who waited for the broker would be noticed."""


@pytest.fixture
def frozen(broker: Any) -> Iterator[Any]:
    """`frozen.freeze()`; in the end the broker goes on."""
    yield broker
    broker.thaw()


@pytest.fixture
def store(frozen: Any, tmp_path: Path) -> Iterator[LiveStore]:
    options = {"bootstrap_servers": frozen.address, "timeout": TIMEOUT}
    store = LiveStore(backend="lmdb", transport="kafka", directory=tmp_path, transport_options=options)
    yield store
    frozen.thaw()
    store.close()


def document(key: str, number: int) -> IKVDocument:
    return IKVDocument.from_dict({"id": key, "n": number})


def until_health_is(state: str, reader: Any) -> list[float]:
    """Ask until it is so; how long each answer took."""
    took: list[float] = []
    deadline = time.monotonic() + PATIENCE
    while True:
        asked = time.monotonic()
        health = reader.health()
        took.append(time.monotonic() - asked)
        if health.state == state:
            return took
        assert asked < deadline, health
        time.sleep(0.05)


def test_health_and_reads_do_not_wait_for_a_silent_broker(store: LiveStore, frozen: Any) -> None:
    """They answer at once all the time; figures of the log, and who waits for it, name the broker; then all goes on."""
    reader = store.reader
    reader.wait_for(store.writer.upsert_fields(document("a", 1)), PATIENCE)
    frozen.freeze()
    took = until_health_is("halted", reader)
    # An answer may be late on a machine that is busy, but not half of them, and none by the timeout.
    assert sorted(took)[len(took) // 2] < 1
    assert max(took) < TIMEOUT / 2
    assert f"no broker of {frozen.address} answered" in reader.health().reason
    assert reader.get_value("a", "n") == 1
    with pytest.raises(LogUnavailableError, match=frozen.address):
        reader.stats()
    frozen.thaw()
    until_health_is("ready", reader)
    reader.wait_for(store.writer.upsert_fields(document("a", 2)), PATIENCE)
    assert reader.get_value("a", "n") == 2
    assert [each.lag_events for each in reader.stats().partitions.values()] == [0]


PROGRAM = """
    import sys, threading, time
    from ikvcore.clientoptions import ClientOptionsBuilder
    from ikvcore.document import IKVDocument
    from ikvcore.errors import OutcomeUnknownError
    from ikvcore.factory import create_new_writer

    name, account, passkey, servers = sys.argv[1:]
    options = (ClientOptionsBuilder().with_store_name(name).with_account_id(account).with_account_passkey(passkey)
               .with_transport("kafka", bootstrap_servers=servers, timeout=600).with_console_logging("ERROR").build())
    writer = create_new_writer(options)
    writer.startup()
    writer.upsert_fields(IKVDocument.from_dict({"id": "before", "n": 1}))
    print("written", flush=True)
    sys.stdin.readline()  # until the broker is silent

    def write():
        try:
            writer.upsert_fields(IKVDocument.from_dict({"id": "unsent", "n": 2}))
        except OutcomeUnknownError as exc:
            print("unknown", "Writing them again is safe" in str(exc), flush=True)

    thread = threading.Thread(target=write)
    thread.start()
    while not writer._transport._writer._waiting:
        time.sleep(0.01)
    writer.shutdown()
    thread.join()
    print("over", flush=True)
"""


def test_a_program_that_shuts_down_with_unsent_events_is_told_and_ends(store: LiveStore, frozen: Any) -> None:
    """Long before the transport's timeout, and without hanging at the interpreter's end; another writes them again."""
    description = store.description
    arguments = [description.store_name, description.account_id, "secret", frozen.address]
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "written\n"
        frozen.freeze()
        said, _ = program.communicate("go\n", timeout=PATIENCE)
    finally:
        program.kill()
        program.communicate()
    assert (said, program.returncode) == ("unknown True\nover\n", 0)
    frozen.thaw()
    store.reader.wait_for(store.writer.upsert_fields(document("unsent", 2)), PATIENCE)
    assert sorted(key for key, _ in store.reader.scan()) == ["before", "unsent"]
