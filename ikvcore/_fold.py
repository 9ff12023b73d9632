"""Folding: several mutations of one document become at most three, so that a storage rewrites it once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from ikvcore.fields import FieldBytes
from ikvcore.models import Clear, DeleteDocument, DeleteFields, DropFields, Mutation, Upsert

__all__ = ["fold"]

_DocumentMutation: TypeAlias = Upsert | DeleteFields | DeleteDocument
_Documents: TypeAlias = dict[bytes, _DocumentMutation | list[_DocumentMutation]]
"""What waits for each document: most often a single mutation, for which a list would cost more than the rest."""


def fold(mutations: Iterable[Mutation]) -> list[Mutation]:
    """Mutations with the same effect: of one document a DeleteDocument, an Upsert and a DeleteFields at most, in this
    order, between two drops or clears of its partition. What is of different partitions or documents commutes.
    """
    folded: list[Mutation] = []
    waiting: dict[int, _Documents] = {}
    for mutation in mutations:
        if isinstance(mutation, (DropFields, Clear)):
            _flush(waiting.pop(mutation.partition, {}), folded)
            folded.append(mutation)
            continue
        documents = waiting.get(mutation.partition)
        if documents is None:
            documents = waiting[mutation.partition] = {}
        others = documents.setdefault(mutation.key, mutation)
        if isinstance(others, list):
            others.append(mutation)
        elif others is not mutation:
            documents[mutation.key] = [others, mutation]
    for documents in waiting.values():
        _flush(documents, folded)
    return folded


def _flush(documents: _Documents, folded: list[Mutation]) -> None:
    for mutations in documents.values():
        if isinstance(mutations, list):
            folded.extend(_combine(mutations))
        else:
            folded.append(mutations)


def _combine(mutations: Sequence[_DocumentMutation]) -> list[Mutation]:
    """One document's mutations as one of each kind."""
    deleted = False
    fields: dict[str, FieldBytes] = {}
    removed: set[str] = set()
    for mutation in mutations:
        if isinstance(mutation, Upsert):
            fields.update(mutation.fields)
            removed.difference_update(mutation.fields)
        elif isinstance(mutation, DeleteFields):
            for name in mutation.names:
                fields.pop(name, None)
            removed.update(mutation.names)
        else:
            deleted = True
            fields.clear()
            removed.clear()
    partition, key, timestamp = mutations[0].partition, mutations[0].key, mutations[-1].timestamp
    combined: list[Mutation] = []
    if deleted:
        combined.append(DeleteDocument(partition, key, timestamp))
    if fields:  # an upsert always holds the primary key, which no DeleteFields removes
        combined.append(Upsert(partition, key, fields, timestamp))
    if removed and not deleted:
        combined.append(DeleteFields(partition, key, frozenset(removed), timestamp))
    return combined
