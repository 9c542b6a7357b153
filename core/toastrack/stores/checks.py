"""What a record, a vector, a filter, ``k`` and a list of ids may be."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toastrack.errors import FilterError, RecordError
from toastrack.filters import Filter, checked_filter
from toastrack.records import Reading, Record
from toastrack.utils import arrays
from toastrack.utils.numbers import MAX_INT_BITS, plain
from toastrack.utils.text import check_unicode, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A call of Python's for each level: it makes 1,000 in all.
_MAX_DEPTH = 700
# What hosts count in: 64 bits, with a sign.
_MAX_K = 2**63 - 1
# What rounding to float32 leaves of length 1: half of 2**-23 in each number, squared twice that.
_ONE = 2**-23


def checked(record: Record, *, dimensions: int | None) -> Record:
    """Return the record with its vector normalised, or raise ``RecordError`` naming it.

    ``dimensions`` is the size a ready vector must have.
    """
    record = checked_fields(record)
    if record.vector is None:
        return record
    vector = unit_vector(record.vector, vector_of(record), dimensions)
    return replace(record, vector=vector)


def checked_fields(record: Record) -> Record:
    """Return a record of our own, its vector as it is, or raise ``RecordError`` naming it.

    Its metadata is a copy, as the caller's may be used again, with numpy's scalars as Python's.
    """
    if not isinstance(record, Record):
        raise TypeError(f"A store takes Record objects, not {type(record).__name__}.")
    if _is_plain(record):
        return _with(record, dict(record.metadata), record.chunk)
    name = f"Record {record.id!r}"
    for what, value in (("id", record.id), ("text", record.text), ("document_id", record.document)):
        if not isinstance(value, str):
            raise RecordError(f"{name}: {what} is {type(value).__name__}, not str.")
        _check_text(value, f"{name}: its {what}")
    if not record.id:
        raise RecordError("A record has an empty id. Give every record an id of its own.")
    chunk = plain(record.chunk)
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int)):
        raise RecordError(f"{name}: chunk is {record.chunk!r}, not a whole number or None.")
    if not isinstance(record.metadata, Mapping):
        raise RecordError(f"{name}: metadata is {type(record.metadata).__name__}, not a mapping.")
    try:
        metadata = _json(dict(record.metadata), f"{name}: metadata", 0)
    except RecursionError:
        raise RecordError(f"{name}: metadata holds itself, or is nested too deeply.") from None
    return _with(record, metadata, chunk)


def _with(record: Record, metadata: dict[str, Any], chunk: int | None) -> Record:
    made = Record(record.id, record.text, metadata, record.vector, record.document_id, chunk)
    if record.vector_from_text is False and record.vector is None:
        raise RecordError(
            f"Record {record.id!r} was read without the vector that was given for it, and would be "
            "embedded in its place. Read it by get(ids, vectors=True) or records(vectors=True)."
        )
    reading = record.reading
    if record.vector_from_text and reading is None:
        object.__setattr__(made, "vector", None)  # nothing tells of which text it is
    vector = record.vector
    # What is done with the vector from here on is no change.
    if reading and vector is not None and reading.vector in (None, vector_digest(vector)):
        object.__setattr__(made, "reading", replace(reading, vector=None))
        object.__setattr__(made, "vector_from_text", record.vector_from_text)
    return made


def vector_digest(vector: arrays.Vector) -> bytes | None:
    """Return the sha256 of a vector as float32, None for what is none."""
    import numpy as np

    try:
        return hashlib.sha256(np.asarray(vector, dtype="<f4").tobytes()).digest()
    except (TypeError, ValueError, OverflowError):
        return None


def text_digest(text: str) -> bytes:
    """Return the sha256 of a text."""
    return hashlib.sha256(text.encode("utf-8")).digest()


def stored_hash(record: Record, max_tokens: int, space: str) -> bytes | None:
    """Return the hash of a record whose vector is still what a store gave with it, else None.

    One that was embedded is taken so only in the same space, with the same limit and text.
    """
    reading = record.reading
    if reading is None or record.vector is None or reading.space != space:
        return None
    if record.vector_from_text:
        embedded = text_hash(replace(record, vector=None), max_tokens)
        return embedded if embedded == reading.text_hash else None
    return reading.text_hash if reading.text == text_digest(record.text) else None


def read_record(
    record: Record,
    stored: bytes,
    vector: arrays.FloatVector | None,
    *,
    space: str,
    limits: Collection[int],
) -> Record:
    """Return a record as a store hands it out.

    Args:
        record: As the host gives it.
        stored: Its hash; empty where somebody else wrote it.
        vector: Its vector, if that was asked for.
        space: The digest of the store's embedding space.
        limits: The numbers of tokens that its text may have been cut at; none if nobody knows.
    """
    if not stored or not limits:
        return replace(record, vector=vector)
    digest = None if vector is None else vector_digest(vector)
    return replace(
        record,
        vector=vector,
        vector_from_text=any(text_hash(record, limit) == stored for limit in limits),
        reading=Reading(space, stored, text_digest(record.text), digest),
    )


def text_hash(record: Record, max_tokens: int) -> bytes:
    """Return 32 bytes that change whenever the stored vector would.

    sha256 over the text's sha256, the effective limit, and either "embedded" or the bytes of a
    ready vector.
    """
    text = text_digest(record.text)
    source = b"embedded"
    if record.vector is not None:
        import numpy as np

        source = np.asarray(record.vector, dtype="<f4").tobytes()
    return hashlib.sha256(b"".join((text, b"%d" % max_tokens, source))).digest()


def vector_of(record: Record) -> str:
    """Say in an error which vector is meant."""
    return f"Record {record.id!r}: its vector"


def unit_vector(vector: arrays.Vector, what: str, dimensions: int | None) -> arrays.FloatVector:
    """Return a vector at length 1: float32 of shape ``(dimensions,)``.

    Raises ``RecordError``, starting with ``what``, for another size, NaN, infinity or zero.
    """
    import numpy as np

    values = _numbers(vector, what)
    if values.ndim != 1 or (dimensions is not None and len(values) != dimensions):
        raise RecordError(f"{what} has shape {values.shape}, not ({dimensions},).")
    if isinstance(vector, np.ndarray) and vector.dtype == np.float32:
        # Squares of float32 fit float64 well, so most vectors need a single look.
        squares = float(values @ values)
        if abs(squares - 1) < _ONE:
            return values.astype(np.float32)  # to the bit as it came
        if 0 < squares < math.inf:
            return (values / math.sqrt(squares)).astype(np.float32)
    if not np.isfinite(values).all():
        position = int(np.flatnonzero(~np.isfinite(values))[0])
        raise RecordError(f"{what} holds {values[position]} at position {position}.")
    largest = float(np.abs(values).max(initial=0.0))
    if not largest:
        raise RecordError(f"{what} has length 0; cosine needs a direction.")
    values = values / largest  # or the squares of very long and short vectors leave float64
    return (values / np.linalg.norm(values)).astype(np.float32)


def _numbers(vector: arrays.Vector, what: str) -> NDArray[np.float64]:
    """Return a vector as float64; what numpy would make numbers of, such as texts, is none."""
    import numpy as np

    try:
        found = np.asarray(vector)
        if found.dtype.kind in "biuf":
            return found.astype(np.float64, copy=False)
        if found.dtype.kind != "O":
            raise ValueError
        values = np.empty(found.shape)
        for position, value in enumerate(found.flat):
            if isinstance(value, (str, bytes)):
                raise ValueError
            values.flat[position] = math.nan if value is None else float(value)
    except OverflowError:
        raise RecordError(f"{what} holds a number that no float can hold.") from None
    except (TypeError, ValueError):
        raise RecordError(f"{what} is not a list of numbers.") from None
    return values


def float32_vector(vector: arrays.Vector, what: str, dimensions: int) -> arrays.FloatVector:
    """Return a vector as float32 for ``normalise``, which is left to do if it was float32 before.

    Raises ``RecordError`` as ``unit_vector`` does.
    """
    import numpy as np

    if not isinstance(vector, np.ndarray) or vector.dtype != np.float32:
        return unit_vector(vector, what, dimensions)
    if vector.shape != (dimensions,):
        raise RecordError(f"{what} has shape {vector.shape}, not ({dimensions},).")
    return np.asarray(vector, dtype=np.float32)


def normalise(vectors: arrays.FloatMatrix, what: Callable[[int], str]) -> None:
    """Bring each row of float32 ``(rows, dimensions)`` to length 1, as ``unit_vector`` does."""
    import numpy as np

    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    # Written so that NaN is among them.
    for row in np.flatnonzero(~(np.abs(squares - 1) < _ONE)).tolist():
        vectors[row] = unit_vector(vectors[row], what(row), None)


def _check_text(text: str, what: str) -> None:
    try:
        check_unicode(text, what)
    except ValueError as error:
        raise RecordError(str(error)) from None


def _is_plain(record: Record) -> bool:
    """Tell at a glance that nothing is wrong with a usual record: ASCII, and small scalars."""
    for text in (record.id, record.text, record.document_id):
        if type(text) is not str or not text.isascii():
            return False
    if not record.id or not (record.chunk is None or type(record.chunk) is int):
        return False
    if type(record.metadata) is not dict:
        return False
    for key, value in record.metadata.items():
        kind = type(value)
        if type(key) is not str or not key.isascii():
            return False
        if kind is str:
            plain = value.isascii()
        elif kind is float:
            plain = math.isfinite(value)
        else:
            plain = value is None or kind is bool or (kind is int and -(2**63) <= value < 2**63)
        if not plain:
            return False
    return True


def _json(value: Any, where: str, depth: int) -> Any:
    """Return a copy, or raise ``RecordError`` for what JSON would give back as something else."""
    given, value = value, plain(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > MAX_INT_BITS:
            raise RecordError(
                f"{where} holds an int of {value.bit_length()} bits. Store it as str."
            )
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RecordError(f"{where} holds {value}, which JSON has no word for. Use None.")
        return value
    if isinstance(value, str):
        _check_text(value, where)
        return value
    if depth == _MAX_DEPTH:
        where = f"{where[:200]}..."
        raise RecordError(f"{where} holds itself, or is nested more than {_MAX_DEPTH} deep.")
    if isinstance(value, list):
        items = []
        for position, item in enumerate(value):
            items.append(_json(item, f"{where}[{position}]", depth + 1))
        return items
    if isinstance(value, dict):
        copy = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise RecordError(f"{where} has the key {shown(key)}; JSON keys are str.")
            _check_text(key, f"{where}, key {key!r},")
            copy[str.__str__(key)] = _json(item, f"{where}[{key!r}]", depth + 1)
        return copy
    raise RecordError(
        f"{where} holds {type(given).__name__} {shown(given, 40)}, which JSON cannot give back as "
        "it is. Use str, int, float, bool, None, list or dict."
    )


def checked_k(k: int) -> int:
    """Return how many are wanted, or raise ``ValueError`` before a model is loaded for it."""
    number = plain(k)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(f"k={shown(k)} must be a whole number of at least 0.")
    if number > _MAX_K:
        raise ValueError(f"k={shown(k)} is more than a host can count; take {_MAX_K:,} for all.")
    return number


def checked_score(score: float | None) -> float:
    """Return what a score must be at least, or raise ``ValueError`` for what can be none.

    None and -1 are of every record: a host may compute a little less.
    """
    if score is None:
        return -math.inf
    number = plain(score)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not -1 <= number <= 1:
        raise ValueError(f"min_score={shown(score)} is no cosine similarity: they go from -1 to 1.")
    return number if number > -1 else -math.inf


def ids_to_delete(
    ids: Iterable[str] | None, documents: Iterable[str] | None
) -> tuple[list[str], list[str]]:
    """Return both as lists; neither is a mistake."""
    if ids is None and documents is None:
        raise ValueError("Say what to delete: ids=, documents= or filter=.")
    return listed("ids", ids or ()), listed("documents", documents or ())


def filter_to_delete(
    filter: Filter, ids: Iterable[str] | None, documents: Iterable[str] | None
) -> dict[str, Any]:
    """Return a checked filter; one that filters nothing is a mistake, and so are ids beside it."""
    if ids is not None or documents is not None:
        raise ValueError("delete() takes ids= and documents=, or a filter=, and never both.")
    checked = checked_filter(filter)
    if not checked:
        raise FilterError(
            "An empty filter would delete every record. Say which by a filter, or delete them by "
            "their documents: delete(documents=store.document_ids())."
        )
    return checked


def listed(name: str, values: Iterable[str]) -> list[str]:
    """Return a list of ids; one str is a mistake, not a list of letters."""
    if isinstance(values, str):
        raise TypeError(f"{name} takes a list of str and was given one str. Write [id].")
    found = list(values)
    for value in found:
        if not isinstance(value, str):
            raise TypeError(f"{name} takes str and was given {value!r:.60}.")
    return found
