"""Reads an LMDB file page by page and says what could not have been written by LMDB.

LMDB keeps no checksums and trusts every page: a flipped bit in one can hide records from a search, crash the process,
or, in the list of free pages, have a later commit overwrite what is in use. Records carry their own checksums, so what
is checked here is all that lies between them: both meta pages, the form of every page, the order of keys, the counts
that the meta page states, and that no page is used twice. The format is that of LMDB 0.9 (data version 1), as lmdb.h
and mdb.c describe it, in this machine's byte order.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from ikv_backends._lmdb_environment import Transaction

__all__ = ["check_pages"]

_PAGE: Final = struct.Struct("=QHHHH")
"""Number, padding, flags, end of the pointers, begin of the nodes; an overflow page has its count for the last two."""
_META: Final = struct.Struct("=IIQQ")
_DB: Final = struct.Struct("=IHHQQQQQ")
_META_END: Final = struct.Struct("=QQ")
_NODE: Final = struct.Struct("=HHHH")
_NUMBER: Final = struct.Struct("=Q")

_MAGIC: Final = 0xBEEFC0DE
_FORMAT: Final = 1
_NO_PAGE: Final = 0xFFFF_FFFF_FFFF_FFFF
_INTEGER_KEYS: Final = 0x08
_BRANCH, _LEAF, _OVERFLOW, _IS_META = 0x01, 0x02, 0x04, 0x08
_BIG_DATA: Final = 0x01
_DEEPEST: Final = 32
_METAS: Final = 2
_NAMES: Final = ("list of free pages", "table")
_FREE: Final = "free"
_MOST_UNWRITTEN: Final = 1 << 20
"""Pages of one commit that may lie beyond the file's end: so that a damaged number takes no memory."""
_ATTEMPTS: Final = 8


class _DamagedError(Exception):
    """What cannot have been written like this."""


class _Tree(NamedTuple):
    """What a meta page says of a tree of pages."""

    pad: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int


@dataclass(frozen=True, slots=True)
class _Meta:
    page_size: int
    free: _Tree
    main: _Tree
    last_page: int
    commit: int


def check_pages(
    file: Path, begin: Callable[[], AbstractContextManager[Transaction]] | None = None, *, end_alone: bool = False
) -> list[str]:
    """What is wrong with the pages of an LMDB file at its last commit; at most one sentence, none where all is well.

    begin: begins a read transaction, which keeps the pages that are checked from being written again. None where nobody
    has the file open: then the commit before the last one is looked at too. end_alone: look for pages beyond the
    file's end, and no further than they need it. Raises OSError.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if begin is None:
                    _check(descriptor, None, end_alone)
                else:
                    with begin() as transaction:
                        _check(descriptor, transaction.id(), end_alone)
            except _DamagedError as exc:
                # Others may be writing a meta page while it is read here; what is damaged stays so.
                if begin is None or attempt == _ATTEMPTS:
                    return [str(exc)]
            else:
                break
        return []
    finally:
        os.close(descriptor)


def _check(descriptor: int, commit: int | None, end_alone: bool) -> None:
    first = _read_meta(descriptor, 0, 0)
    metas = [first, _read_meta(descriptor, 1, first.page_size)]
    commits = [meta.commit for meta in metas]
    if abs(commits[0] - commits[1]) != 1 and commits != [0, 0]:
        raise _DamagedError(f"its meta pages are of commits {commits[0]} and {commits[1]}, which do not follow")
    chosen = [meta for meta in metas if meta.commit == (max(commits) if commit is None else commit)]
    if not chosen:
        raise _DamagedError(f"no meta page is of commit {commit}")
    if end_alone and _Walk(descriptor, chosen[0]).is_end_free():
        return
    _Walk(descriptor, chosen[0]).check()
    if commit is None and commits[0] != commits[1]:
        # A meta page that fell back by two would make the one before the last commit the newest. Pages say so.
        _Walk(descriptor, metas[commits.index(min(commits))]).check_no_later_commit()


def _read_meta(descriptor: int, number: int, page_size: int) -> _Meta:
    data = os.pread(descriptor, 512, number * page_size)
    try:
        page, _, flags, _, _ = _PAGE.unpack_from(data)
        magic, version, _, _ = _META.unpack_from(data, _PAGE.size)
        at = _PAGE.size + _META.size
        free, main = (_Tree(*_DB.unpack_from(data, at + index * _DB.size)) for index in range(2))
        last_page, commit = _META_END.unpack_from(data, at + 2 * _DB.size)
    except struct.error as exc:
        raise _DamagedError(f"meta page {number} is missing") from exc
    meta = _Meta(free.pad, free, main, last_page, commit)
    if (page, flags, magic, version) != (number, _IS_META, _MAGIC, _FORMAT):
        raise _DamagedError(f"meta page {number} is none")
    if not 512 <= meta.page_size <= 65536 or meta.page_size & (meta.page_size - 1):
        raise _DamagedError(f"meta page {number} states pages of {meta.page_size} bytes")
    if page_size and meta.page_size != page_size:
        raise _DamagedError("the meta pages state pages of different sizes")
    if commit and commit % _METAS != number:
        raise _DamagedError(f"meta page {number} is of commit {commit}, which belongs into the other one")
    if free.flags != _INTEGER_KEYS or main.flags or main.pad:
        raise _DamagedError(f"meta page {number} states trees of another kind")
    return meta


class _Walk:
    """Over all that one meta page leads to."""

    def __init__(self, descriptor: int, meta: _Meta) -> None:
        self._descriptor = descriptor
        self._meta = meta
        self._size = meta.page_size
        # The file may end before the last page: one that a commit both took and gave back is free, and never written.
        self._written = os.fstat(descriptor).st_size // self._size
        if not _METAS <= meta.last_page + 1 <= self._written + _MOST_UNWRITTEN:
            raise _DamagedError(f"it has {self._written:,} pages, and {meta.last_page + 1:,} are stated")
        self._used = bytearray(meta.last_page + 1)
        self._used[:_METAS] = b"\x01" * _METAS
        self._pages = [0, 0, 0]

    def check(self) -> None:
        for _ in self._tree(1, self._meta.main):
            pass
        for key, value in self._tree(0, self._meta.free):
            self._check_free(key, value)

    def is_end_free(self) -> bool:
        """Whether the list of free pages has all that lie beyond the file's end."""
        for key, value in self._tree(0, self._meta.free):
            self._check_free(key, value)
        return all(self._used[self._written :])

    def check_no_later_commit(self) -> None:
        """Raise where pages of this state were written after its commit."""
        try:
            freed = [_NUMBER.unpack(key)[0] for key, _ in self._tree(0, self._meta.free)]
        except _DamagedError:  # of a state that nobody reads any more
            return
        if freed and max(freed) > self._meta.commit:
            raise _DamagedError(f"the meta page of commit {self._meta.commit} leads to pages of commit {max(freed)}")

    def _check_free(self, key: bytes, value: bytes) -> None:
        (commit,) = _NUMBER.unpack(key)
        count = _NUMBER.unpack_from(value)[0] if len(value) >= _NUMBER.size else _NO_PAGE
        if commit > self._meta.commit or (count + 1) * _NUMBER.size > len(value):
            raise _DamagedError(f"the list of pages freed by commit {commit} is none")
        previous = _NO_PAGE
        for (page,) in _NUMBER.iter_unpack(value[_NUMBER.size : (count + 1) * _NUMBER.size]):
            if page >= previous:
                raise _DamagedError(f"the list of pages freed by commit {commit} is out of order")
            previous = page
            self._use(page, 1, _FREE)

    def _use(self, first: int, count: int, what: str) -> None:
        if not (first >= _METAS and count >= 1 and first + count <= len(self._used)):
            raise _DamagedError(f"page {first} ({what}) lies outside of the file")
        if first + count > self._written and what != _FREE:
            raise _DamagedError(f"page {first} ({what}) is missing: the file ends before it")
        if any(self._used[first : first + count]):
            raise _DamagedError(f"page {first} ({what}) is used twice")
        self._used[first : first + count] = b"\x01" * count

    # -- one tree ------------------------------------------------------------------------------

    def _tree(self, index: int, tree: _Tree) -> Iterator[tuple[bytes, bytes]]:
        """Its entries in order. The values of big entries are not read, but for the free pages'."""
        self._pages = [0, 0, 0]
        entries = 0
        if tree.root != _NO_PAGE:
            if not 1 <= tree.depth <= _DEEPEST:
                raise _DamagedError(f"the {_NAMES[index]} is said to be {tree.depth} pages deep")
            previous: bytes | None = None
            for key, value in self._entries(index, tree.root, tree.depth, None, None):
                if previous is not None and not _before(index, previous, key):
                    raise _DamagedError(f"keys of the {_NAMES[index]} are out of order after {previous[:40]!r}")
                previous = key
                entries += 1
                yield key, value
        found = (*self._pages, entries)
        stated = (tree.branches, tree.leaves, tree.overflows, tree.entries)
        if found != stated:
            raise _DamagedError(
                f"the {_NAMES[index]} has {found} branch pages, leaf pages, overflow pages and entries; the meta page "
                f"states {stated}"
            )

    def _entries(
        self, index: int, number: int, depth: int, lowest: bytes | None, limit: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        """The entries under a page, all of which lie from `lowest` to before `limit`."""
        kind = _LEAF if depth == 1 else _BRANCH
        self._use(number, 1, _NAMES[index])
        self._pages[kind - 1] += 1
        page = os.pread(self._descriptor, self._size, number * self._size)
        nodes = self._nodes(index, number, page, kind)
        if kind == _LEAF:
            for at, low, high, flags, key in nodes:
                if (lowest is not None and _before(index, key, lowest)) or (
                    limit is not None and not _before(index, key, limit)
                ):
                    raise _DamagedError(f"page {number} of the {_NAMES[index]} holds {key[:40]!r}, which is elsewhere")
                yield key, self._value(index, page, at + _NODE.size + len(key), low | high << 16, flags)
            return
        for turn, (_, low, high, flags, key) in enumerate(nodes):
            below = lowest if turn == 0 else key
            above = limit if turn + 1 == len(nodes) else nodes[turn + 1][4]
            yield from self._entries(index, low | high << 16 | flags << 32, depth - 1, below, above)

    def _nodes(self, index: int, number: int, page: bytes, kind: int) -> list[tuple[int, int, int, int, bytes]]:
        """(offset, low, high, flags, key) of each node, in order; checked to fill the page without gap or overlap."""
        where = f"page {number} of the {_NAMES[index]}"
        stated, _, flags, lower, upper = _PAGE.unpack_from(page)
        fewest = 1 if kind == _LEAF or not index else 2
        if stated != number or flags != kind:
            raise _DamagedError(f"{where} says that it is page {stated} with flags {flags:#x}")
        count = (lower - _PAGE.size) // 2
        if lower % 2 or count < fewest or not lower <= upper <= self._size:
            raise _DamagedError(f"{where} has its limits at {lower} and {upper}")
        nodes, extents = [], []
        for at in struct.unpack_from(f"={count}H", page, _PAGE.size):
            if not upper <= at <= self._size - _NODE.size:
                raise _DamagedError(f"{where} has a node at {at}")
            low, high, node_flags, key_size = _NODE.unpack_from(page, at)
            if kind == _BRANCH:
                size = 0
            elif node_flags == _BIG_DATA:
                size = _NUMBER.size
            elif not node_flags:
                size = low | high << 16
            else:
                raise _DamagedError(f"{where} has an entry with flags {node_flags:#x}")
            end = at + _NODE.size + key_size + size
            if end > self._size or (not index and kind == _LEAF and key_size != _NUMBER.size):
                raise _DamagedError(f"{where} has an entry that is cut")
            extents.append((at, end + end % 2))
            nodes.append((at, low, high, node_flags, page[at + _NODE.size : at + _NODE.size + key_size]))
        expected = upper
        for begin, end in sorted(extents):
            if begin != expected:
                raise _DamagedError(f"{where} has entries that overlap, or a gap between them, at {expected}")
            expected = end
        if expected != self._size:
            raise _DamagedError(f"{where} has entries that end at {expected}")
        return nodes

    def _value(self, index: int, page: bytes, at: int, size: int, flags: int) -> bytes:
        if not flags:
            return page[at : at + size]
        (first,) = _NUMBER.unpack_from(page, at)
        head = os.pread(self._descriptor, _PAGE.size, first * self._size) if first < len(self._used) else b""
        needed = (_PAGE.size - 1 + size) // self._size + 1
        stated, _, kind, low, high = _PAGE.unpack(head) if len(head) == _PAGE.size else (0, 0, 0, 0, 0)
        count = low | high << 16  # more than needed where a shorter value took the place of a longer one
        if (stated, kind) != (first, _OVERFLOW) or count < needed:
            raise _DamagedError(f"overflow page {first} says that it is {count} pages, page {stated}, flags {kind:#x}")
        self._use(first, count, "overflow")
        self._pages[2] += count
        return b"" if index else os.pread(self._descriptor, size, first * self._size + _PAGE.size)


def _before(index: int, one: bytes, other: bytes) -> bool:
    if index:
        return one < other
    if len(one) != _NUMBER.size or len(other) != _NUMBER.size:
        raise _DamagedError("the list of free pages has a key of another size")
    smaller: bool = _NUMBER.unpack(one) < _NUMBER.unpack(other)
    return smaller
