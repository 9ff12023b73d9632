"""A store with its clients, for tests: made on entry, and gone with everything that was opened for it on exit."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ikvcore._closing import Closing
from ikvcore.admin import create_store, delete_store
from ikvcore.client import IKVReader, IKVWriter
from ikvcore.clientoptions import ClientOptions, ClientOptionsBuilder
from ikvcore.document import IKVDocument
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.models import Message
from ikvcore.protocols import Transport
from ikvcore.testing._parallel import PATIENCE
from ikvcore.testing._plugins import open_transport
from ikvcore.tokens import Token

__all__ = ["PASSKEY", "LiveStore", "document", "documents"]

PASSKEY = "test-passkey"
PASSKEY = "test-passkey"
_numbers = itertools.count(1)


class LiveStore(Closing):
    """One store on one backend and one transport. `writer` and `reader` are started where they are first used."""

    def __init__(
        self,
        *,
        backend: str,
        transport: str,
        directory: Path | None,
        backend_options: Mapping[str, Any] | None = None,
        transport_options: Mapping[str, Any] | None = None,
        account_id: str | None = None,
        **fixed: Any,
    ) -> None:
        """`directory` holds the mounts; None for a volatile backend. `fixed` is what admin.create_store takes."""
        self.backend, self.backend_options = backend, dict(backend_options or {})
        self.transport, self.transport_options = transport, dict(transport_options or {})
        self.directory = directory
        self._opened: list[IKVReader | IKVWriter | Transport] = []
        self._reader: IKVReader | None = None
        self._writer: IKVWriter | None = None
        self._log: Transport | None = None
        self._access: dict[str, Any] = {
            "account_id": account_id or f"account-{uuid.uuid4().hex[:12]}",
            "account_passkey": PASSKEY,
            "transport": transport,
            "transport_options": self.transport_options,
        }
        self._fixed = {"primary_key": "id", **fixed}
        self.description = create_store(f"store-{next(_numbers)}", **self._access, **self._fixed)

    # -- clients -------------------------------------------------------------------------------

    @property
    def options(self) -> ClientOptions:
        """Options for readers and writers of this store."""
        return self.builder().build()

    def builder(self, mount: str = "mount") -> ClientOptionsBuilder:
        """A builder of the same options, with a mount directory of this name, to add others to."""
        builder = (
            ClientOptionsBuilder()
            .with_store_name(self.description.store_name)
            .with_account_id(self.description.account_id)
            .with_account_passkey(PASSKEY)
            .with_backend(self.backend, **self.backend_options)
            .with_transport(self.transport, **self.transport_options)
            .with_console_logging("ERROR")
        )
        return builder if self.directory is None else builder.with_mount_directory(self.directory / mount)

    @property
    def writer(self) -> IKVWriter:
        """A started writer."""
        if self._writer is None:
            self._writer = self.new_writer()
        return self._writer

    @property
    def reader(self) -> IKVReader:
        """A started reader of the mount "mount"."""
        if self._reader is None:
            self._reader = self.new_reader()
        return self._reader

    def new_writer(self) -> IKVWriter:
        """Another writer, started."""
        writer = create_new_writer(self.options)
        self._opened.append(writer)
        writer.startup()
        return writer

    def new_reader(self, builder: ClientOptionsBuilder | None = None, *, allow_stale: bool = False) -> IKVReader:
        """Another reader, started."""
        reader = self.unstarted_reader(builder)
        reader.startup(timeout=PATIENCE, allow_stale=allow_stale)
        return reader

    def unstarted_reader(self, builder: ClientOptionsBuilder | None = None) -> IKVReader:
        """Another reader, shut down with the others at the end."""
        reader = create_new_reader((builder or self.builder()).build())
        self._opened.append(reader)
        return reader

    def restart_reader(self) -> None:
        """Shut `reader` down, and let the next use start another on the same mount."""
        if self._reader is not None:
            self._reader.shutdown()
            self._reader = None

    def restart_writer(self) -> None:
        """Likewise for `writer`."""
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None

    # -- writing -------------------------------------------------------------------------------

    def put(self, fields: Mapping[str, Any] | None = None, /, **more: Any) -> Token:
        """Upsert one document, given as a dict, as keywords or both, and wait until `reader` shows it."""
        return self.shown(self.writer.upsert_fields(document(fields, **more)))

    def shown(self, token: Token) -> Token:
        """Wait until `reader` shows what `token` stands for."""
        self.reader.wait_for(token, timeout=PATIENCE)
        return token

    # -- the log itself ------------------------------------------------------------------------

    @property
    def log(self) -> Transport:
        """The store's log, opened beside the clients."""
        if self._log is None:
            self._log = open_transport(
                self.transport,
                self.description.store_name,
                self.description.account_id,
                PASSKEY,
                self.transport_options,
            )
            self._opened.append(self._log)
        return self._log

    def publish(self, *values: bytes, partition: int = 0) -> Token:
        """Put events into the log as they are, past the writer and its checks."""
        return self.log.publish([Message(partition, b"", value, 1_700_000_000_000_000_000) for value in values])

    # -- life ----------------------------------------------------------------------------------

    def recreate(self) -> None:
        """Shut all clients down, and replace the store by an empty one of the same name; mounts stay."""
        self.close()
        self.description = create_store(self.description.store_name, **self._access, **self._fixed)

    def close(self) -> None:
        """Shut all clients down and remove the store."""
        for each in reversed(self._opened):
            if isinstance(each, (IKVReader, IKVWriter)):
                each.shutdown()
            else:
                each.close()
        self._opened.clear()
        self._reader = self._writer = self._log = None
        delete_store(self.description.store_name, **self._access)


def document(fields: Mapping[str, Any] | None = None, /, **more: Any) -> IKVDocument:
    """A document of Python values."""
    return IKVDocument.from_dict({**(fields or {}), **more})


def documents(rows: Iterable[Mapping[str, Any]]) -> list[IKVDocument]:
    """Several."""
    return [document(row) for row in rows]
