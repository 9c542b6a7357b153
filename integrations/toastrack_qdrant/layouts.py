"""Where the payload of a point holds what a record has, in a collection of ours or of others."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid5

from qdrant_client import models

from toastrack import Match, Record
from toastrack.errors import UnsupportedError
from toastrack.stores import node_text

POINT_NAMESPACE = UUID("c856bbf2-91b4-5266-886b-cf08a97c7771")
"""uuid5(NAMESPACE_DNS, "toastrack_qdrant"); written out because no point could be found with another."""

EXACT = "metadata_json"
"""Holds the metadata as JSON text, only where Qdrant would give back other numbers."""

# A name that a server gives back as it was told.
_SIMPLE = re.compile(r"[A-Za-z0-9_-]+")
# A point's number is less than this.
_NUMBERS = 2**64
_LONGEST_NUMBER = 20
# converters.py in
# https://github.com/deepset-ai/haystack-core-integrations/tree/main/integrations/qdrant
_HAYSTACK = UUID("3896d314-1e95-4a3a-b45a-945f9f0b541d")
_NODE = "_node_content"
# What LlamaIndex writes where a node has no document.
_NO_DOCUMENT = "None"
_NAMES = ("id", "text", "metadata", "document_id", "chunk")

Fields = str | Mapping[str, str | None]
"""Whose layout it is, or the payload key, or path, of each part of a record."""


@lru_cache(maxsize=8_192)  # a record's is asked for to compare it, and again to write it
def point_id(record_id: str) -> str:
    """Return the id of a record's point, its uuid5: Qdrant takes only UUIDs and numbers."""
    # What uuid5 does, without making an object that says the same.
    name = POINT_NAMESPACE.bytes + record_id.encode("utf-8")
    number = bytearray(hashlib.sha1(name, usedforsecurity=False).digest()[:16])
    number[6] = number[6] & 0x0F | 0x50
    number[8] = number[8] & 0x3F | 0x80
    digits = number.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def named_by(record_id: str) -> list[str | int]:
    """Return the point that somebody else gave this id; none where Qdrant takes no such id."""
    if len(record_id) <= _LONGEST_NUMBER and record_id.isdecimal():
        number = int(record_id)
        return [number] if str(number) == record_id and number < _NUMBERS else []
    try:
        return [str(UUID(record_id))]
    except ValueError:
        return []


def _own_or_made(record_id: str) -> str | int:
    """Return the id of a point that others made, and one of ours for what is no id of Qdrant's."""
    named = named_by(record_id)
    return named[0] if named and str(named[0]) == record_id else point_id(record_id)


def _of_haystack(record_id: str) -> str:
    return str(uuid5(_HAYSTACK, record_id))


@dataclass(frozen=True)
class Layout:
    """The keys of a payload; "metadata" may be None, where all of the payload is that."""

    name: str
    text: str
    metadata: str | None = "metadata"
    id: str = "id"
    """A payload without it has the id of its point."""
    document_id: str = "document_id"
    chunk: str = "chunk"
    read_only: str = ""
    """Why it cannot hold what ours write; "" where it can."""
    point_id: Callable[[str], str | int] | None = _own_or_made
    """The point of a record; None where a record is found by what its payload says."""

    # -- reading --------------------------------------------------------------------------------

    def record_of(self, point: Any) -> Record:
        """Return the record that a point holds."""
        values = point.payload or {}
        chunk = at(values, self.chunk)
        return Record(
            self.id_of(point),
            self.text_of(values),
            self.metadata_of(values),
            document_id=self._document(values),
            chunk=chunk if type(chunk) is int else None,
        )

    def match_of(self, point: Any, score: float, kind: str = "cosine") -> Match:
        """Return what a search found; a point that somebody else put there keeps its own id."""
        values = point.payload or {}
        chunk = at(values, self.chunk)
        return Match(
            self.id_of(point),
            self.text_of(values),
            score,
            self.metadata_of(values),
            self.document_of(point),
            chunk if type(chunk) is int else None,
            score_kind=kind,
        )

    def id_of(self, point: Any) -> str:
        """Return the id of a point's record."""
        found = at(point.payload or {}, self.id)
        return str(point.id if found is None else found)

    def document_of(self, point: Any) -> str:
        """Return the document of a point's record."""
        document = self._document(point.payload or {})
        return self.id_of(point) if document is None else document

    def _document(self, values: Mapping[str, Any]) -> str | None:
        found = at(values, self.document_id)
        if found is None or (self.text == _NODE and found == _NO_DOCUMENT):
            return None
        return str(found)

    def text_of(self, values: Mapping[str, Any]) -> str:
        """Return the text of a payload."""
        if self.text == _NODE:
            return node_text(values)
        found = at(values, self.text)
        return found if isinstance(found, str) else ""

    def metadata_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata of a payload, where it is ours to the letter."""
        if self.metadata is None:
            left_out = () if self.text == _NODE else (self.text, self.id)
            return {key: value for key, value in values.items() if key not in left_out}
        exact = values.get(EXACT)
        if isinstance(exact, str) and not self.read_only:
            found = json.loads(exact)
        else:
            found = at(values, self.metadata)
        return found if isinstance(found, dict) else {}

    # -- asking ---------------------------------------------------------------------------------

    @property
    def metadata_keys(self) -> list[str] | bool:
        """What of a payload the metadata is read from."""
        return True if self.metadata is None else [_written(_top(self.metadata)), EXACT]

    @property
    def document_keys(self) -> list[str]:
        """What of a payload the document is read from."""
        return [_written(_top(path)) for path in (self.document_id, self.id) if path]

    @property
    def has_text_key(self) -> bool:
        """Whether there is a key that holds the text, and nothing else."""
        return self.text != _NODE

    @property
    def all_but_text(self) -> models.PayloadSelectorExclude:
        """What of a payload is compared with a record whose hash is known."""
        return models.PayloadSelectorExclude(exclude=[self.text_path])

    @property
    def text_path(self) -> str:
        """The path of the text in a filter or an index."""
        return _written(self.text)

    @property
    def document_path(self) -> str:
        """The path of the document in a filter."""
        return _written(self.document_id)

    @property
    def chunk_path(self) -> str:
        """The path of the chunk in a filter."""
        return _written(self.chunk)

    def field(self, name: str) -> str:
        """Return the path of a field of the metadata in a filter."""
        return f'"{name}"' if self.metadata is None else f'{_written(self.metadata)}."{name}"'

    def index_path(self, field: str) -> str:
        """Return the path of a field of the metadata, as an index of it is named."""
        if '"' in field or "\\" in field:
            raise UnsupportedError(
                f"Qdrant has no path for the field {field!r}, because of its quote or backslash. "
                "Filters find it all the same, without an index."
            )
        if not _SIMPLE.fullmatch(field):
            return self.field(field)
        return field if self.metadata is None else f"{_written(self.metadata)}.{field}"

    def index_paths(self, field: str) -> tuple[str, ...]:
        """Return all ways to write that; a server may quote names otherwise than it was told."""
        bare = field if self.metadata is None else f"{self.metadata}.{field}"
        return (self.index_path(field), bare, self.field(field))

    def points_of(self, record_id: str) -> list[str | int]:
        """Return the points that may be a record's."""
        if self.point_id is None:
            return []
        named = named_by(record_id) if self.point_id is _own_or_made else []
        return list(dict.fromkeys([self.point_id(record_id), *named]))

    def point_of(self, record_id: str) -> str | int:
        """Return the point that a record is written to."""
        assert self.point_id is not None
        return self.point_id(record_id)

    def with_ids(self, ids: Sequence[str]) -> models.Filter:
        """Return a filter for the points whose payload has one of these ids."""
        numbers = [point for id in ids for point in named_by(id) if isinstance(point, int)]
        any_of_them: list[models.Condition] = [
            models.FieldCondition(key=_written(self.id), match=models.MatchAny(any=list(ids)))
        ]
        if numbers:
            any_of_them.append(
                models.FieldCondition(key=_written(self.id), match=models.MatchAny(any=numbers))
            )
        return models.Filter(should=any_of_them)


OURS = Layout("ours", "text", point_id=point_id)

_LAYOUTS = {
    "langchain": Layout("langchain", "page_content"),
    "llama-index": Layout(
        "llama-index",
        _NODE,
        metadata=None,
        id="",
        document_id="ref_doc_id",
        chunk="",
        read_only="LlamaIndex keeps each node as JSON of its own, without which it cannot read one",
    ),
    "haystack": Layout(
        "haystack",
        "content",
        metadata="meta",
        document_id="meta.source_id",
        chunk="meta.split_id",
        read_only="Haystack refuses a payload that has keys beside its own",
        point_id=_of_haystack,
    ),
}


def layout_of(fields: Fields | None) -> Layout:
    """Return the layout of that name, or of these keys.

    Raises:
        ValueError: There is none of the name, or a part of a record that there is not.
    """
    if fields is None:
        return OURS
    if isinstance(fields, str):
        if fields not in _LAYOUTS:
            known = ", ".join(map(repr, _LAYOUTS))
            raise ValueError(f"fields={fields!r} is none of {known}, and no mapping of keys.")
        return _LAYOUTS[fields]
    unknown = [name for name in fields if name not in _NAMES]
    if unknown or not fields.get("text"):
        wrong = f"has no part {unknown[0]!r}" if unknown else "needs a key for the 'text'"
        raise ValueError(f"fields= {wrong}; the parts of a record are {', '.join(_NAMES)}.")
    for key in fields.values():
        if key is not None and (not isinstance(key, str) or not key or '"' in key or "\\" in key):
            raise ValueError(
                f"fields= has {key!r} for a key, and Qdrant has no path to it: a key is a text without "
                "quotes and backslashes."
            )
    keys = {name: key for name, key in fields.items() if name != "metadata" and key is not None}
    metadata = fields.get("metadata", "metadata")
    finds = fields.get("id") not in (None, OURS.id)
    nested = [key for key in (*keys.values(), metadata or "") if "." in key]
    why = ""
    if metadata is None:
        why = "all of its payload is metadata, which leaves no place for what is kept beside it"
    elif finds:
        why = f"the ids of its points do not follow from {fields['id']!r}"
    elif nested:
        why = f"{nested[0]!r} lies within another key"
    return Layout(
        "yours",
        metadata=metadata,
        read_only=why,
        point_id=None if finds else _own_or_made,
        **keys,
    )


def at(values: Mapping[str, Any], path: str) -> Any:
    """Return what lies at a key of a payload, or at a path; None where nothing does."""
    if path in values or "." not in path:
        return values.get(path)
    found: Any = values
    for key in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def _top(path: str) -> str:
    return path.partition(".")[0]


def _written(path: str) -> str:
    """Return a path as Qdrant reads it: what is more than a simple name stands in quotes."""
    parts = path.split(".")
    return ".".join(part if _SIMPLE.fullmatch(part) else f'"{part}"' for part in parts)


def advice(keys: Sequence[str]) -> str:
    """Return what to do about a collection whose points have these keys, and not those asked for."""
    for name, layout in _LAYOUTS.items():
        if _top(layout.text) in keys:
            return f"That is the layout of fields={name!r}."
    return "Say with fields={'text': ...} where its texts are, or use another collection."
