"""The shared filter in SQL: every operator exactly, and no value that is stored makes it fail."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal, localcontext
from typing import Any

from psycopg import sql

from toastrack.stores import Comparison, Condition, Instant
from toastrack_postgres.codec import MINUS_ZERO, as_json

Bounds = Sequence[tuple[str, Decimal]]

_ORDERS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS = {word: sql.SQL(word) for word in ("=", ">", ">=", "<", "<=")}
_NEVER, _ALWAYS = sql.SQL("false"), sql.SQL("true")

# Up to here a number is written as one decimal whether it is an int or a float.
_MAX_EXACT = 2**53

# From so many values on, rows are looked up in a table of them that the server makes, as it does for
# "= any" from 9 on: one containment after another takes rows x values. Fewer are contained, so
# that an index of the user's on all of the metadata serves.
_MANY = 32

_DAY = 86_400_000_000
_EPOCH = date(1970, 1, 1).toordinal()

_LARGEST = math.nextafter(math.inf, 0)
# What is nearer to infinity than to any other float.
_OVERFLOW = Decimal(2**1024 - 2**970)

# Only days that there are, as a cast of any other fails. Nothing is captured, which takes far longer:
# each part has its place.
_MOMENT = (
    "^(?!0000)(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
    "(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,6})?)?)?"
    "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?$"
)
_MICROSECONDS = sql.SQL(
    """(
    select case when t ~ {pattern} then
        (make_date(substr(t, 1, 4)::int, substr(t, 6, 2)::int, substr(t, 9, 2)::int)
         - date '1970-01-01')::bigint * 86400000000
        + case when substr(t, 11, 1) in ('T', ' ') then
            substr(t, 12, 2)::bigint * 3600000000 + substr(t, 15, 2)::bigint * 60000000
            + case when substr(t, 17, 1) = ':' then substr(t, 18, 2)::bigint * 1000000 else 0 end
            + case when substr(t, 20, 1) = '.' then
                rpad(rtrim(split_part(split_part(substr(t, 21, 12), '+', 1), '-', 1), 'Z'), 6, '0')::bigint
              else 0 end
          else 0 end
        - case when substr(right(t, 6), 1, 1) in ('+', '-') and length(t) > 10 then
            (substr(right(t, 6), 1, 1) || '1')::bigint
            * (substr(right(t, 5), 1, 2)::bigint * 60 + right(t, 2)::bigint) * 60000000
          else 0 end
    end from (select {text} offset 0) as one (t)
    )"""
)


EQUALITY = sql.SQL("gin (metadata jsonb_path_ops)")
"""What an index for the equality of every field is on."""

_TEXT = "(case when jsonb_typeof(metadata->{0}) = 'string' then metadata->>{0} end)"
_NUMBER = "(case when jsonb_typeof(metadata->{0}) = 'number' then (metadata->{0})::numeric end)"


def text_order(field: str) -> sql.Composed:
    """Return what an index for the order of a field's texts and dates is on."""
    return sql.SQL('btree (({} collate "C"))').format(sql.SQL(_TEXT).format(_literal(field)))


def number_order(field: str) -> sql.Composed:
    """Return what an index for the order of a field's numbers is on."""
    return sql.SQL("btree ({})").format(sql.SQL(_NUMBER).format(_literal(field)))


def _literal(field: str) -> sql.Composable:
    return sql.SQL("{}::text").format(sql.Literal(field.replace("%", "%%")))


class Where:
    """A condition in SQL with the values of its placeholders, whose names start ``toastrack_f``."""

    def __init__(self, condition: Condition) -> None:
        self.values: dict[str, Any] = {}
        self.sql = self._condition(condition)

    def _value(self, value: Any, kind: str) -> sql.Composable:
        name = f"toastrack_f{len(self.values)}"
        self.values[name] = value
        return sql.SQL("{}::{}").format(sql.Placeholder(name), sql.SQL(kind))

    def _condition(self, condition: Condition) -> sql.Composable:
        if isinstance(condition, Comparison):
            return self._comparison(condition)
        parts = [self._condition(part) for part in condition.parts]
        if condition.word == "$and":
            return _joined(" and ", parts, _ALWAYS)
        return _joined(" or ", parts, _NEVER)

    def _comparison(self, asked: Comparison) -> sql.Composable:
        key, word, value = asked.key, asked.operator, asked.value
        if "\0" in key:  # jsonb cannot hold it
            is_left = word in ("$ne", "$nin") or (word == "$exists" and not value)
            return _ALWAYS if is_left else _NEVER
        if word == "$exists":
            is_there = sql.SQL("is not null" if value else "is null")
            return sql.SQL("({} {})").format(self._field(key), is_there)
        if isinstance(value, tuple):
            found = self._equal(key, value)
        elif word in ("$eq", "$ne"):
            found = self._equal(key, (value,))
        else:
            return self._ordered(key, _ORDERS[word], value)
        if word in ("$ne", "$nin"):
            return sql.SQL("not coalesce({}, false)").format(found)
        return found

    def _field(self, key: str) -> sql.Composable:
        return sql.SQL("metadata->{}").format(self._value(key, "text"))

    def _text(self, key: str) -> sql.Composable:
        return sql.SQL(_TEXT).format(self._value(key, "text"))

    def _equal(self, key: str, values: Sequence[Any]) -> sql.Composable:
        texts: list[str] = []
        bools: list[bool] = []
        numbers: list[float] = []
        large: list[float] = []
        moments: list[Instant] = []
        for value in values:
            if isinstance(value, Instant):
                moments.append(value)
            elif isinstance(value, str):
                if "\0" not in value:
                    texts.append(value)
            elif isinstance(value, bool):
                bools.append(value)
            elif abs(value) <= _MAX_EXACT:
                numbers.append(value)
            else:
                large.append(value)
        parts: list[sql.Composable] = []
        if len(moments) > _MANY:
            parts.append(self._moment_among(key, moments))
        else:
            parts += [self._moment(key, "=", moment) for moment in moments]
        if large:
            # Two decimals can be one float, and one decimal two numbers.
            written = [decimal for value in large for decimal in _decimals(value)]
            is_written = (
                self._contains(key, written)
                if len(written) <= _MANY
                else self._among_numbers(key, written)
            )
            exactly = self._exactly_among(key, large)
            parts.append(_joined(" and ", [is_written, exactly], _NEVER))
        contained = [as_json(value) for value in bools]
        decimals = [as_json(value) for value in numbers]
        if 0 in numbers:
            decimals.append(MINUS_ZERO)
        if len(texts) + len(decimals) <= _MANY:
            contained += [*map(as_json, texts), *decimals]
        else:
            parts += [self._among_texts(key, texts)] if texts else []
            parts += [self._among_numbers(key, decimals)] if decimals else []
        if contained:
            parts.append(self._contains(key, contained))
        return _joined(" or ", parts, _NEVER)

    def _among_texts(self, key: str, texts: Sequence[str]) -> sql.Composable:
        return sql.SQL('({} collate "C" = any({}))').format(
            self._text(key), self._value(texts, "text[]")
        )

    def _among_numbers(self, key: str, decimals: Sequence[str]) -> sql.Composable:
        return sql.SQL("({} = any({}))").format(
            sql.SQL(_NUMBER).format(self._value(key, "text")),
            self._value([Decimal(decimal) for decimal in decimals], "numeric[]"),
        )

    def _contains(self, key: str, values: Sequence[str]) -> sql.Composable:
        # So that an index of the user's on the metadata serves.
        name = as_json(key)
        objects = [f"{{{name}:{value}}}" for value in values]
        if len(objects) == 1:
            return sql.SQL("metadata @> {}").format(self._value(objects[0], "jsonb"))
        return sql.SQL("metadata @> any({})").format(self._value(objects, "jsonb[]"))

    def _ordered(self, key: str, order: str, value: Any) -> sql.Composable:
        if isinstance(value, Instant):
            return self._moment(key, order, value)
        if not isinstance(value, str):
            return self._number(key, order, value)
        before, nul, _ = value.partition("\0")
        if nul:  # what it begins with, and nothing more, is less than it; what is longer is not
            order = "<=" if order[0] == "<" else ">"
        return sql.SQL('({} collate "C" {} {})').format(
            self._text(key), _OPERATORS[order], self._value(before, "text")
        )

    def _moment(self, key: str, order: str, value: Instant) -> sql.Composable:
        moment = _MICROSECONDS.format(text=self._text(key), pattern=self._value(_MOMENT, "text"))
        exactly = sql.SQL("({} {} {})").format(
            moment, _OPERATORS[order], self._value(value.microseconds, "bigint")
        )
        return _joined(" and ", [*self._days(key, order, value), exactly], _ALWAYS)

    def _moment_among(self, key: str, values: Sequence[Instant]) -> sql.Composable:
        moment = _MICROSECONDS.format(text=self._text(key), pattern=self._value(_MOMENT, "text"))
        microseconds = [value.microseconds for value in values]
        exactly = sql.SQL("({} = any({}))").format(moment, self._value(microseconds, "bigint[]"))
        ends = Instant(min(microseconds)), Instant(max(microseconds))
        days = *self._days(key, ">=", ends[0]), *self._days(key, "<=", ends[1])
        return _joined(" and ", [*days, exactly], _ALWAYS)

    def _days(self, key: str, order: str, value: Instant) -> Iterator[sql.Composable]:
        """Say between which days a moment is written, whatever its zone; an index knows texts."""
        day = _EPOCH + value.microseconds // _DAY
        for sign, ordinal, bound in ((">", day - 1, ">="), ("<", day + 2, "<")):
            if order[0] in (sign, "=") and date.min.toordinal() <= ordinal <= date.max.toordinal():
                written = date.fromordinal(ordinal).isoformat()
                yield sql.SQL('({} collate "C" {} {})').format(
                    self._text(key), _OPERATORS[bound], self._value(written, "text")
                )

    def _number(self, key: str, order: str, value: float) -> sql.Composable:
        as_int = [(order, Decimal(value))]
        as_float = _float_bounds(order, value)
        exactly = self._as_number(key, self._bounded(as_int), self._bounded(as_float))
        if not as_float:
            return exactly
        # What both allow, so that an index can look for it.
        bounds = [bound for _, bound in (*as_int, *as_float)]
        is_more = order[0] == ">"
        about = sql.SQL("({} {} {})").format(
            sql.SQL(_NUMBER).format(self._value(key, "text")),
            _OPERATORS[">=" if is_more else "<="],
            self._value(min(bounds) if is_more else max(bounds), "numeric"),
        )
        return _joined(" and ", [about, exactly], _ALWAYS)

    def _exactly_among(self, key: str, values: Sequence[float]) -> sql.Composable:
        ints = [Decimal(value) for value in values if value == int(value)]
        floats = [nearest for value in values if (nearest := _floor(value)) == value]
        as_int = sql.SQL("n = any({})").format(self._value(ints, "numeric[]"))
        if len(floats) > _MANY:
            # The cast of what is near no such float would fail.
            as_float = sql.SQL(
                "case when abs(n) >= {} and abs(n) < {} then n::float8 = any({}) else false end"
            ).format(
                self._value(Decimal(_MAX_EXACT), "numeric"),
                self._value(_OVERFLOW, "numeric"),
                self._value(floats, "float8[]"),
            )
            return self._as_number(key, as_int, as_float)
        edges = [(_edge(number), _edge(_next(number))) for number in floats]
        as_float = sql.SQL(
            "exists (select from unnest({}, {}, {}) as f (low, high, even) where "
            "case when even then n between low and high else n > low and n < high end)"
        ).format(
            self._value([low for (low, _), _ in edges], "numeric[]"),
            self._value([high for _, (high, _) in edges], "numeric[]"),
            self._value([is_included for (_, is_included), _ in edges], "boolean[]"),
        )
        return self._as_number(key, as_int, as_float)

    def _as_number(
        self, key: str, as_int: sql.Composable, as_float: sql.Composable
    ) -> sql.Composable:
        """Compare as Python does: an int is what its digits say, a float the nearest that there is.

        jsonb keeps all digits of a number, and with them whether it has any behind the point.
        """
        return sql.SQL(
            "(select case when scale(n) = 0 then {as_int} else {as_float} end from (select "
            "case when jsonb_typeof({field}) = 'number' then ({field})::numeric end) as one (n))"
        ).format(field=self._field(key), as_int=as_int, as_float=as_float)

    def _bounded(self, bounds: Bounds) -> sql.Composable:
        parts = [
            sql.SQL("n {} {}").format(_OPERATORS[order], self._value(bound, "numeric"))
            for order, bound in bounds
        ]
        return _joined(" and ", parts, sql.SQL("n is not null"))


def _joined(word: str, parts: Sequence[sql.Composable], of_none: sql.Composable) -> sql.Composable:
    if len(parts) < 2:
        return parts[0] if parts else of_none
    return sql.SQL("({})").format(sql.SQL(word).join(parts))


def _decimals(value: float) -> list[str]:
    """Return every decimal that a number equal to this one is stored as."""
    written = {f"{Decimal(value):f}"}
    nearest = _floor(value)
    if nearest == value:
        written.add(f"{Decimal(repr(nearest)):f}")
    return sorted(written)


def _float_bounds(order: str, value: float) -> Bounds:
    """Return between what a decimal lies whose nearest float stands so."""
    below, above = _floor(value), -_floor(-value)
    return {
        ">": lambda: _from(_next(below)),
        ">=": lambda: _from(above),
        "<": lambda: _before(above),
        "<=": lambda: _before(_next(below)),
    }[order]()


def _floor(value: float) -> float:
    """Return the largest float that is not more than a number."""
    try:
        nearest = float(value)
    except OverflowError:
        return _LARGEST if value > 0 else -math.inf
    return (math.nextafter(nearest, -math.inf) if nearest > value else nearest) + 0.0


def _next(number: float) -> float:
    return math.nextafter(number, math.inf) + 0.0


def _from(number: float) -> Bounds:
    """The decimals whose nearest float is this one or more."""
    if number == -math.inf:
        return []
    bound, is_included = _edge(number)
    return [(">=" if is_included else ">", bound)]


def _before(number: float) -> Bounds:
    """The decimals whose nearest float is less than this one."""
    bound, is_included = _edge(number)
    return [("<" if is_included else "<=", bound)]


def _edge(number: float) -> tuple[Decimal, bool]:
    """Return where rounding to a float begins, and whether that very decimal is rounded to it."""
    if number == math.inf:
        return _OVERFLOW, True
    if number == -_LARGEST:
        return -_OVERFLOW, False
    with localcontext() as context:
        context.prec = 1_100  # the digits of the smallest float, all of them
        edge = (Decimal(number) + Decimal(math.nextafter(number, -math.inf))) / 2
    # Of two floats that are as near, the even one is taken.
    return edge, not struct.pack("<d", number)[0] & 1
