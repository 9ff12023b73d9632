"""The memory backend of ikvcore under other names: one that is sound, and others that each break one promise."""

import dataclasses
import os
import signal
import threading

from ikv_backends import memory
from ikv_backends.memory import MemoryStorage
from ikvcore.hookspecs import hookimpl
from ikvcore.models import Durability


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    shelves: int = 3
    label: str = "acme"


class Crashing(MemoryStorage):
    def commit(self, batch, /, *, expect):
        if batch.deletes:
            os.kill(os.getpid(), signal.SIGSEGV)
        super().commit(batch, expect=expect)


class Hanging(MemoryStorage):
    def get_many(self, snapshot, keys, /):
        threading.Event().wait()


class Backwards(MemoryStorage):
    def scan(self, snapshot, start, stop, /):
        return reversed(list(super().scan(snapshot, start, stop)))


class Plugin:
    def __init__(self, name, storage, **said):
        self.name, self.storage, self.said = name, storage, said

    @hookimpl
    def ikv_backend_info(self):
        info = memory.ikv_backend_info()
        return dataclasses.replace(info, name=self.name, summary="shelves of Acme", options=Options, **self.said)

    @hookimpl
    def ikv_open_backend(self, context):
        print("noise on stdout")
        if "IKV_ACCOUNT_PASSKEY" in os.environ:
            raise RuntimeError("it is shown the passkey of its user")
        return self.storage()


sound = Plugin("acme", MemoryStorage)
crashing = Plugin("crashing", Crashing)
hanging = Plugin("hanging", Hanging)
backwards = Plugin("backwards", Backwards)
boasting = Plugin(
    "boasting", MemoryStorage, durability=Durability.PROCESS_CRASH, volatile=False, capabilities=frozenset({"Verify"})
)
