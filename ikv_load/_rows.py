"""The rows that a caller asks for: select, where and keys, each bound alone, so that an error says which is wrong."""

# ruff: noqa: S608 - SQL is made here, of quoted names and of what the caller may ask for

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import duckdb
from duckdb.sqltypes import DuckDBPyType

from ikv_load._engine import Connection, quoted, reason
from ikvcore.errors import InvalidArgumentError, near_miss
from ikvcore.fields import check_name

__all__ = ["Column", "Rows"]


class Column(NamedTuple):
    """A column of the rows."""

    name: str
    sql: str
    """What it is called in queries over the rows, since its name may be there twice."""
    type: DuckDBPyType


class Rows:
    """SELECT <select>, <keys> FROM source WHERE <where>. Raises InvalidArgumentError and FieldNameError."""

    def __init__(self, connection: Connection, source: str, select: str | None, where: str | None) -> None:
        for role, given in (("select", select), ("where", where)):
            if given is not None and not given.strip():
                raise InvalidArgumentError(f"{role} is empty; leave it out to load all")
        self._connection = connection
        self._select = select or "*"
        self._where = f"WHERE (\n{where}\n)" if where else ""
        self._keys: list[str] = []
        self._source = f"({source}) AS source"
        self.source_columns = [name for name, _ in self._bound("the source", "*")]
        selected = self._bound("select", self._select)
        if where:
            self._bound("where", "1", self._where)
            self._single("where", where)
        self.columns = [Column(name, f"c{number}", kind) for number, (name, kind) in enumerate(selected)]
        _check_names([column.name for column in self.columns])

    @property
    def query(self) -> str:
        """The query of `columns` and of the keys asked for so far."""
        names = [column.sql for column in self.columns] + [f"k{number}" for number in range(len(self._keys))]
        expressions = ", ".join([f"{self._select}\n", *self._keys])
        return f"SELECT * FROM (SELECT {expressions} FROM {self._source} {self._where}) AS chosen({', '.join(names)})"

    def named(self, name: str, role: str, *, or_expression: bool = False) -> Column:
        """The column `name`: one that was selected, else one of the source."""
        for column in self.columns:
            if column.name == name:
                return column
        if name in self.source_columns:
            return self.expression(name, role)
        hint = "; give primary_key a column or an SQL expression" if or_expression else "; name it in select"
        raise InvalidArgumentError(
            f"no column is named {name!r}, as the store's {role} is{near_miss(name, self.source_columns)}; "
            f"the columns are {_listed(self.source_columns)}{hint}"
        )

    def expression(self, expression: str, role: str) -> Column:
        """A column of the source, or what an SQL expression makes of them."""
        if expression in self.source_columns:
            expression = quoted(expression)
        elif re.fullmatch(r"\w+", expression) and (close := near_miss(expression, self.source_columns)):
            raise InvalidArgumentError(
                f"{role}: no column is named {expression!r}{close}; the columns are {_listed(self.source_columns)}"
            )
        kind = self._single(role, expression)
        self._keys.append(f"(\n{expression}\n)")
        return Column(expression, f"k{len(self._keys) - 1}", kind)

    def _single(self, role: str, expression: str) -> DuckDBPyType:
        """The type of an expression that gives one value: `a, b` would be a tuple, nothing an empty one."""
        bound = self._bound(role, f"(\n{expression}\n)")
        if len(bound) != 1 or bound[0][1].id == "tuple":
            raise InvalidArgumentError(f"{role}: {expression!r:.80} is not one value")
        return bound[0][1]

    def _bound(self, role: str, expressions: str, where: str = "") -> list[tuple[str, DuckDBPyType]]:
        try:
            relation = self._connection.sql(f"SELECT {expressions}\nFROM {self._source} {where}")
            return list(zip(relation.columns, relation.types, strict=True))
        except (duckdb.Error, AttributeError) as exc:  # AttributeError: of several statements comes no relation
            raise InvalidArgumentError(f"{role} cannot be used: {reason(exc)}") from exc


def _check_names(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InvalidArgumentError(f"select gives more than one column the name {_listed(twice)}; rename them with AS")
    for name in names:
        check_name(name)


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:40])
    return shown if len(names) <= 40 else f"{shown} and {len(names) - 40} more"
