"""What a store must look like after any events: plain dicts, written from C3 alone, to compare with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ikvcore.fields import FieldBytes, Value, decode
from ikvcore.models import Clear, DeleteDocument, DeleteFields, DropFields, Mutation, Upsert

__all__ = ["StoreModel"]

Document = dict[str, FieldBytes]


class StoreModel:
    """The documents of every partition, each a dict of name -> (type, bytes).

    `key_fields` are the fields that deletes and drops skip.
    """

    def __init__(self, key_fields: Iterable[str] = ()) -> None:
        self.key_fields = frozenset(key_fields)
        self.partitions: dict[int, dict[bytes, Document]] = {}

    # -- events --------------------------------------------------------------------------------

    def upsert(self, partition: int, key: bytes, fields: Mapping[str, FieldBytes]) -> None:
        """Set the named fields, leave the others; make the document if it is not there."""
        self._held(partition).setdefault(key, {}).update(fields)

    def delete_fields(self, partition: int, key: bytes, names: Iterable[str]) -> None:
        """Remove fields of one document, but never its key fields."""
        document = self._held(partition).get(key, {})
        for name in set(names) - self.key_fields:
            document.pop(name, None)

    def delete_document(self, partition: int, key: bytes) -> None:
        """Remove one document."""
        self._held(partition).pop(key, None)

    def drop(self, partition: int, names: Iterable[str] = (), prefixes: Iterable[str] = ()) -> None:
        """Remove fields, by name and by prefix, from every document that the partition holds now."""
        self._drop(partition, frozenset(names), tuple(prefixes), self.key_fields)

    def clear(self, partition: int) -> None:
        """Remove every document that the partition holds now."""
        self._held(partition).clear()

    def apply(self, mutations: Sequence[Mutation]) -> None:
        """The same, from what a storage is given."""
        for mutation in mutations:
            if isinstance(mutation, Upsert):
                self.upsert(mutation.partition, mutation.key, mutation.fields)
            elif isinstance(mutation, DeleteFields):
                document = self._held(mutation.partition).get(mutation.key, {})
                for name in mutation.names:
                    document.pop(name, None)
            elif isinstance(mutation, DeleteDocument):
                self.delete_document(mutation.partition, mutation.key)
            elif isinstance(mutation, DropFields):
                self._drop(mutation.partition, mutation.names, mutation.prefixes, mutation.keep)
            else:
                assert isinstance(mutation, Clear)
                self.clear(mutation.partition)

    # -- reads ---------------------------------------------------------------------------------

    def get(self, partition: int, key: bytes) -> Document | None:
        """A copy of one document, None if it is not there."""
        document = self._held(partition).get(key)
        return None if document is None else dict(document)

    def find(self, key: bytes) -> Document | None:
        """The document in the lowest partition that has the key."""
        for partition in sorted(self.partitions):
            if key in self.partitions[partition]:
                return dict(self.partitions[partition][key])
        return None

    def values(self, partition: int, key: bytes) -> dict[str, Value] | None:
        """One document as Python values."""
        document = self.get(partition, key)
        return None if document is None else decoded(document)

    def documents(self) -> Iterator[tuple[int, bytes, Document]]:
        """Every document as (partition, key, fields), a copy each."""
        for partition, documents in self.partitions.items():
            for key, document in documents.items():
                yield partition, key, dict(document)

    def count(self) -> int:
        """How many documents there are, over all partitions."""
        return sum(len(documents) for documents in self.partitions.values())

    # -- parts ---------------------------------------------------------------------------------

    def _held(self, partition: int) -> dict[bytes, Document]:
        return self.partitions.setdefault(partition, {})

    def _drop(self, partition: int, names: frozenset[str], prefixes: tuple[str, ...], keep: frozenset[str]) -> None:
        for document in self._held(partition).values():
            for name in list(document):
                if name not in keep and (name in names or name.startswith(prefixes)):
                    del document[name]


def decoded(document: Mapping[str, FieldBytes]) -> dict[str, Value]:
    """A document's fields as Python values."""
    return {name: decode(field_type, data) for name, (field_type, data) in document.items()}
