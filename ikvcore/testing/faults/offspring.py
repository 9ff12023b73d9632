"""What children of a process with open clients do: functions of a module, so that every way to start one finds them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from ikvcore.client import IKVReader, IKVWriter
from ikvcore.document import IKVDocument
from ikvcore.errors import ForkedError, MountBusyError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.testing.faults.recorder import Recorder, digest, row_fields
from ikvcore.testing.faults.target import Target
from ikvcore.testing.faults.workload import Clock, Workload, perform, stamp
from ikvcore.tokens import Token

__all__ = ["AT_ONCE", "CLIENTS", "inherited", "open_here", "own", "work_with"]

AT_ONCE = 2.0
"""Seconds within which a call has to be refused: it may not wait for anything."""


CLIENTS: list[Any] = []
"""Writer and reader of this process, or of the one that it was forked from."""


def open_here(target: Target) -> None:
    """Open clients that children may inherit."""
    writer, reader = create_new_writer(target.options()), create_new_reader(target.options())
    writer.startup()
    reader.startup(timeout=60.0)
    CLIENTS[:] = [writer, reader]


def work_with(
    writer: IKVWriter, reader: IKVReader, target: Target, workload: Workload, number: int, first: int = 0
) -> str:
    """Write three calls as writer `number`, wait for them, read; all of it recorded. "works" where it does."""
    recorder = Recorder(target.directory, f"child-{number}-{first}")
    clock, token = Clock.take_over(), Token()
    for call in (workload.call(number, n) for n in range(first, first + 3)):
        clock.now = stamp(number, call.number)
        recorder.call(number, call.number)
        done = perform(writer, call, target.description)
        recorder.acknowledged(number, call.number, done)
        token |= done
    reader.wait_for(token, timeout=30.0)
    recorder.waited(token)
    keys = workload.all_keys()
    rows = reader.get_rows(keys)
    recorder.read((key, digest(row_fields(row))) for key, row in zip(keys, rows, strict=True))
    recorder.close()
    return "works"


def own(config: str, number: int) -> str:
    """Clients of the child's own. "works", or the error's class."""
    given = json.loads(config)
    target, workload = Target.from_json(given["target"]), Workload(**given["workload"])
    began = time.monotonic()
    try:
        with create_new_writer(target.options()) as writer, create_new_reader(target.options()) as reader:
            return work_with(writer, reader, target, workload, number)
    except ForkedError:
        return "ForkedError" if time.monotonic() - began < AT_ONCE else "ForkedError, late"
    except MountBusyError:
        return "MountBusyError"
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"


def inherited(_: object = None) -> str:
    """Every kind of call on the clients that were open at the fork: "ForkedError" where each is refused at once."""
    writer, reader = CLIENTS[0], CLIENTS[1]
    document = IKVDocument.from_dict({"id": "key-0", "n": 1})
    calls: list[Callable[[], Any]] = [
        lambda: writer.upsert_fields(document),
        lambda: writer.upsert_fields_batch([document]),
        lambda: writer.delete_document(document),
        lambda: writer.drop_all_fields(),
        writer.startup,
        lambda: reader.get_value("key-0", "n"),
        lambda: reader.get_document("key-0"),
        lambda: reader.get_rows(["key-0", "key-1"]),
        lambda: list(reader.scan()),
        reader.count,
        reader.stats,
        reader.health,
        lambda: reader.wait_for(Token(), 1.0),
        lambda: reader.startup(timeout=1.0),
    ]
    for number, call in enumerate(calls):
        began = time.monotonic()
        try:
            found = call()
        except ForkedError:
            if time.monotonic() - began > AT_ONCE:
                return f"call {number} was refused after {time.monotonic() - began:.1f} s"
        except BaseException as exc:
            return f"call {number}: {type(exc).__name__}: {exc}"
        else:
            return f"call {number} gave {found!r}"
    writer.shutdown()
    reader.shutdown()
    return "ForkedError"
