"""Reads: what to select for a projection, and the rows that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ikv_backends._duckdb_columns import Columns
from ikv_backends._duckdb_rest import decode_rest, unpack_rest
from ikvcore.fields import FieldType, Value, decode
from ikvcore.models import Projection, Row

__all__ = ["RowPlan", "Schema"]

_MAX_PLANS: Final = 4_096


class RowPlan:
    """One projection under one schema: `select` names columns, of whose values `row` makes a Row."""

    def __init__(self, projection: Projection, columns: Columns) -> None:
        self._names = projection.names
        wanted = [columns.by_name.get(name) for name in self._names] if self._names is not None else list(columns)
        found = list(dict.fromkeys(column for column in wanted if column is not None))
        place = {column: index for index, column in enumerate(found)}
        self._all = [(column.name, column.type) for column in found]
        self._fields = [(None, None) if column is None else (place[column], column.type) for column in wanted]
        self.select = ", ".join(["NULL" if self._names == () else "rest", *(column.sql for column in found)])

    def row(self, values: Sequence[Any]) -> Row:
        """The row of what was selected."""
        rest, cells = values[0], values[1:]
        return self._everything(rest, cells) if self._names is None else self._named(self._names, rest, cells)

    def _everything(self, rest: bytes | None, cells: Sequence[Any]) -> Row:
        found = [(name, kind, cell) for (name, kind), cell in zip(self._all, cells, strict=True) if cell is not None]
        found += [(name, kind, value) for name, (kind, value) in decode_rest(rest).items()]
        return tuple(each[0] for each in found), tuple(each[1] for each in found), [each[2] for each in found]

    def _named(self, names: tuple[str, ...], packed: bytes | None, cells: Sequence[Any]) -> Row:
        rest = unpack_rest(packed) if packed else None
        types: list[FieldType | None] = []
        values: list[Value | None] = []
        for name, (index, column_type) in zip(names, self._fields, strict=True):
            kind, value = column_type, None if index is None else cells[index]
            if value is None:
                field = rest.get(name) if rest else None
                kind, value = (None, None) if field is None else (field[0], decode(*field))
            types.append(kind)
            values.append(value)
        return names, tuple(types), values


class Schema:
    """The columns of one schema, and what reads were planned by them."""

    def __init__(self, columns: Columns) -> None:
        self.columns: Final = columns
        self._plans: dict[Projection, RowPlan] = {}

    def plan(self, projection: Projection) -> RowPlan:
        """How to read a projection."""
        plan = self._plans.get(projection)
        if plan is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans = {}
            plan = self._plans[projection] = RowPlan(projection, self.columns)
        return plan
