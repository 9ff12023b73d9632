"""The programs whose system calls fail: a writer, an ingester, and one that makes, changes and removes stores.

    python -m ikvcore.testing.faults.syscalls_victim ROLE TARGET-AS-JSON STEPS-FILE

How far a program came stands in a mapped file, one byte a step, which takes no system call to write.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from ikvcore import _ingest as _ingest_module
from ikvcore import admin
from ikvcore.document import IKVDocument
from ikvcore.errors import IKVError, OutcomeUnknownError, PartialPublishError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.testing.faults.target import Pair, Target
from ikvcore.testing.faults.timeline import Log

__all__ = ["ACKNOWLEDGED", "BEGUN", "CALLS", "FAILED", "NEVER", "REFUSED", "Steps", "look", "make", "stores"]

NEVER, BEGUN, ACKNOWLEDGED, REFUSED, FAILED, UNTYPED = range(6)
"""A step: not begun; begun; returned; raised, without effect; raised, with any outcome; raised what it must not."""

CALLS: Final = 5
"""Writes of a writer's run."""
_BATCH: Final = 3
_PATIENCE: Final = 30.0
_ACCOUNT: Final[dict[str, Any]] = {"account_id": "steps", "account_passkey": "old"}


class Steps:
    """What a program says of itself."""

    SIZE: Final = 64

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(self.SIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), self.SIZE)

    def __getitem__(self, step: int) -> int:
        return self._map[step]

    def do(self, step: int, action: Callable[[], object]) -> None:
        """Carry out a step, and note how it went."""
        self._map[step] = BEGUN
        try:
            action()
        except (OutcomeUnknownError, PartialPublishError):
            self._map[step] = FAILED
        except IKVError:
            self._map[step] = REFUSED
        except Exception:
            self._map[step] = UNTYPED
            raise
        else:
            self._map[step] = ACKNOWLEDGED


# -- the programs ------------------------------------------------------------------------------


def _write(target: Target, steps: Steps) -> None:
    writer = create_new_writer(target.options())
    steps.do(CALLS, writer.startup)
    if steps[CALLS] != ACKNOWLEDGED:
        return
    for number in range(CALLS):
        documents = [
            IKVDocument.from_dict({"id": f"{number}/{part}", "text": "x" * 3_000 * part}) for part in range(_BATCH)
        ]
        steps.do(number, partial(writer.upsert_fields_batch, documents))
    writer.shutdown()


def _ingest(target: Target, steps: Steps) -> None:
    _ingest_module._MAX_MESSAGES = 8  # type: ignore[misc]  # several commits, where one would do
    reader = create_new_reader(target.options())
    steps.do(0, lambda: reader.startup(timeout=_PATIENCE))
    if steps[0] == ACKNOWLEDGED:
        steps.do(1, lambda: list(reader.scan()))
    reader.shutdown()


def _provision(target: Target, steps: Steps) -> None:
    steps.do(0, lambda: admin.create_store("one", primary_key="id", **_ACCOUNT))
    steps.do(1, lambda: admin.create_store("two", primary_key="id", partitions=3, **_ACCOUNT))
    steps.do(2, lambda: admin.delete_store("one", **_ACCOUNT))
    steps.do(3, lambda: admin.rotate_passkey("new", **_ACCOUNT))


_ROLES: Final[Mapping[str, Callable[[Target, Steps], None]]] = {
    "write": _write,
    "ingest": _ingest,
    "provision": _provision,
}


# -- before and after, in processes whose calls do not fail ---------------------------------------


def make(directory: str, pair: Mapping[str, Any]) -> dict[str, Any]:
    """A store with some documents, half of which a mount holds. The target's JSON."""
    target = Target.make(Path(directory) / "victim", Pair(**pair), partitions=2)
    with create_new_writer(target.options()) as writer:
        for half in range(2):
            writer.upsert_fields_batch(
                IKVDocument.from_dict({"id": f"before/{half}/{number}", "text": "y" * 50 * number})
                for number in range(40)
            )
            writer.drop_fields_by_name(["nothing"])
            if not half:
                with create_new_reader(target.options()):
                    pass
    return target.to_json()


def look(target: dict[str, Any]) -> dict[str, Any]:
    """Open everything again: what the log holds, what a reader shows, and whether a write goes through."""
    victim = Target.from_json(target)
    transport = victim.open_log()
    try:
        log = Log.read(transport)
    finally:
        transport.close()
    messages = sum(len(found) for found in log.messages.values())
    with create_new_reader(victim.options()) as reader:
        shown = sorted(key for key, _ in reader.scan())
        stats = reader.stats()
        counted = reader.count()
        with create_new_writer(victim.options()) as writer:
            token = writer.upsert_fields(IKVDocument.from_dict({"id": "afterwards"}))
        reader.wait_for(token, timeout=_PATIENCE)
        if reader.get_value("afterwards", "id") != "afterwards":
            raise AssertionError("what is written afterwards is not shown")
    return {"messages": messages, "applied": stats.events_applied, "shown": shown, "counted": counted}


def stores(steps: list[int]) -> list[str]:
    """What is wrong with the stores that a provisioning run left, given how its steps went."""
    passkeys = [passkey for passkey in ("old", "new") if _is_passkey(passkey)]
    if not passkeys:
        if ACKNOWLEDGED in steps:
            return ["a step was acknowledged, and there is no account"]
        admin.create_account(account_id="steps", account_passkey="old")
        passkeys = ["old"]
    wrong = []
    if len(passkeys) != 1 or (steps[3] == ACKNOWLEDGED and passkeys != ["new"]):
        wrong.append(f"passkeys that are accepted: {passkeys}")
    access: dict[str, Any] = {"account_id": "steps", "account_passkey": passkeys[0]}
    names = {found.store_name for found in admin.list_stores(**access)}
    if steps[1] == ACKNOWLEDGED and "two" not in names:
        wrong.append("store two is lost")
    if steps[0] == ACKNOWLEDGED and steps[2] == NEVER and "one" not in names:
        wrong.append("store one is lost")
    if steps[2] == ACKNOWLEDGED and "one" in names:
        wrong.append("store one is there again")
    for name in ("one", "two", "three"):
        if name not in names:
            admin.create_store(name, primary_key="id", **access)
        admin.measure_store(name, **access)
        wrong += admin.verify_log(name, **access)
        admin.delete_store(name, **access)
    home = Path(os.environ["IKV_HOME"])
    wrong += [f"{path.name} is left" for path in home.glob("accounts/*/stores/*") if path.name.startswith("~deleted")]
    return wrong


def _is_passkey(passkey: str) -> bool:
    try:
        admin.list_stores(account_id="steps", account_passkey=passkey)
    except IKVError:
        return False
    return True


if __name__ == "__main__":
    faulthandler.enable()
    _ROLES[sys.argv[1]](Target.from_json(json.loads(sys.argv[2])), Steps(Path(sys.argv[3])))
