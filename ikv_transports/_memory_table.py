"""The accounts, stores and logs of the memory transport, and the table that holds them."""

from __future__ import annotations

import hmac
import threading

from ikvcore.errors import StoreAccessError
from ikvcore.models import Bounds, LogMessage, Secret, StoreDescription, TransportContext

__all__ = ["MemoryAccount", "MemoryLog", "MemoryPartition", "MemoryTable"]


class MemoryPartition:
    """Messages from position `first` on, without gaps."""

    __slots__ = ("first", "messages")

    def __init__(self) -> None:
        self.first = 0
        self.messages: list[LogMessage] = []

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.first, self.first + len(self.messages), complete=self.first == 0)

    def at(self, position: int) -> LogMessage | None:
        inside = self.first <= position < self.first + len(self.messages)
        return self.messages[position - self.first] if inside else None


class MemoryLog:
    """One store's log, shared by all of its clients; `changed` guards it and wakes its followers."""

    def __init__(self, description: StoreDescription) -> None:
        self.description = description
        self.partitions = [MemoryPartition() for _ in range(description.partitions)]
        self.changed = threading.Condition()
        self.deleted = False


class MemoryAccount:
    def __init__(self, passkey: Secret) -> None:
        self.passkey = passkey
        self.logs: dict[str, MemoryLog] = {}


class MemoryTable:
    """Every account of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.accounts: dict[str, MemoryAccount] = {}

    def account(self, context: TransportContext, store_name: str) -> MemoryAccount:
        """The context's account if the passkey is right, else StoreAccessError about `store_name`."""
        account = self.accounts.get(context.account_id)
        given = context.passkey.reveal().encode("utf-8", "surrogatepass")
        kept = account.passkey.reveal().encode("utf-8", "surrogatepass") if account else b""
        if account is None or not hmac.compare_digest(given, kept):
            raise StoreAccessError(store_name, context.account_id)
        return account

    def log(self, context: TransportContext, store_name: str) -> MemoryLog:
        log = self.account(context, store_name).logs.get(store_name)
        if log is None:
            raise StoreAccessError(store_name, context.account_id)
        return log
