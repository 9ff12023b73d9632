"""CSV files: comma-separated and their like, with the names of the columns in the first line.

DuckDB guesses delimiter and types. Left alone it looks at the first 20,480 lines, and then rounds a 3.5 that comes
later into an integer, or takes a later 007 for 7; skips lines at the top until the rest looks even; and knows no quotes
where the first lines have none. So here it reads each file once to its end before it decides, and guesses no more than
it must. Several files get the same types.
"""

# ruff: noqa: S608 - SQL is made here, of quoted names and of what the caller may ask for

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import duckdb

from ikv_load._engine import Connection, text
from ikv_load._names import may_be_renamed, refuse_twins
from ikv_load._part import Part, unreadable
from ikvcore.errors import InvalidArgumentError

__all__ = ["csv_parts"]

_TEXT: Final = "VARCHAR"
_BUFFER: Final = 4_000_000
"""Bytes; twice what a line may have. DuckDB's own buffers are larger, and do not fit into what memory it is given."""
_ISO_DATES: Final = (None, "", "%Y-%m-%d")
_WIDER: Final = ["BIGINT", "HUGEINT", "DOUBLE"]
"""Each takes the values of those before it, as far as text goes."""


class _Guess(NamedTuple):
    file: str
    delimiter: str
    new_line: str
    columns: dict[str, str]


def csv_parts(
    connection: Connection, files: Sequence[str], null: Sequence[str], as_text: Iterable[str], keys: Iterable[str]
) -> list[Part]:
    """A part for each file. `null`: cells that mean absent, besides the empty one. `as_text`: columns not to guess.
    `keys`: columns that are keys; but for whole numbers, they are what the file has.
    """
    options = _dialect(null=null)
    guesses = [_guess(connection, file, options) for file in files]
    for guess in guesses:
        if may_be_renamed(guess.columns):
            refuse_twins(repr(guess.file), _header(connection, guess))
    types = _common_types(guesses, set(as_text))
    types |= {key: _TEXT for key in keys if types.get(key) != "BIGINT"}  # 1.10 is another key than 1.1
    return [_part(guess, types, options) for guess in guesses]


def _guess(connection: Connection, file: str, options: str) -> _Guess:
    query = (
        "SELECT Delimiter, NewLineDelimiter, Columns, DateFormat, TimestampFormat "
        f"FROM sniff_csv({text(file)}, {options}, sample_size = -1)"
    )
    try:
        ((delimiter, new_line, columns, *formats),) = connection.execute(query).fetchall()
    except duckdb.Error as exc:
        raise unreadable(file, exc) from exc
    if Path(file).stat().st_size == 0:
        raise InvalidArgumentError(f"{file!r} is empty; a CSV file begins with the names of its columns")
    # Which of 01/02/2013 is the month? Text it stays.
    guessed_dates = {kind for kind, form in zip(("DATE", "TIMESTAMP"), formats, strict=True) if not _is_iso(form)}
    return _Guess(
        file,
        delimiter,
        new_line,
        {each["name"]: _TEXT if each["type"] in guessed_dates else each["type"] for each in columns},
    )


def _header(connection: Connection, guess: _Guess) -> list[str]:
    """The names in the first line; DuckDB's for one that has none."""
    columns = ", ".join(f"{text(name)}: '{_TEXT}'" for name in guess.columns)
    lines = connection.execute(f"SELECT * FROM {_read(guess, columns, _dialect(header=False))} LIMIT 1").fetchall()
    return [own.strip() if own else made for line in lines for own, made in zip(line, guess.columns, strict=True)]


def _is_iso(form: str | None) -> bool:
    return form in _ISO_DATES or str(form).startswith("%Y-%m-%d")


def _common_types(guesses: Sequence[_Guess], as_text: set[str]) -> dict[str, str]:
    types: dict[str, str] = {}
    for guess in guesses:
        for name, kind in guess.columns.items():
            types[name] = _TEXT if name in as_text else _common_type(types.get(name, kind), kind)
    return types


def _common_type(one: str, other: str) -> str:
    if one == other:
        return one
    if one in _WIDER and other in _WIDER:
        return max(one, other, key=_WIDER.index)
    return _TEXT


def _part(guess: _Guess, types: dict[str, str], options: str) -> Part:
    columns = ", ".join(f"{text(name)}: {text(types[name])}" for name in guess.columns)
    query = f"SELECT * FROM {_read(guess, columns, options)}"
    return Part(guess.file, query, weight=float(Path(guess.file).stat().st_size), files=[guess.file])


def _read(guess: _Guess, columns: str, options: str) -> str:
    new_line = f", new_line = {text(guess.new_line)}" if guess.new_line in _NEW_LINES else ""
    return (
        f"read_csv({text(guess.file)}, auto_detect = false, delim = {text(guess.delimiter)}{new_line}, "
        f"columns = {{{columns}}}, {options})"
    )


def _dialect(*, header: bool = True, null: Sequence[str] = ()) -> str:
    return (
        f"header = {str(header).lower()}, skip = 0, comment = '', quote = '\"', escape = '\"', "
        f"allow_quoted_nulls = false, buffer_size = {_BUFFER}, nullstr = [{', '.join(map(text, ['', *null]))}]"
    )


_NEW_LINES: Final = ("\\n", "\\r\\n", "\\r")
