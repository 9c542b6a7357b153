"""Records: what is refused, by which name, and what is taken to the letter."""

import datetime
import hashlib
import json
import struct
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from toastrack import Match, Record, Report
from toastrack.errors import RecordError
from toastrack.stores.checks import checked
from toastrack.stores.hashes import text_hash
from toastrack.stores.vectors import unit_vector
from toastrack.stores.windows import record_windows

NAN, INFINITY = float("nan"), float("inf")
RECORD = Record("loaf", "Rye is sour.")


def refused(record: Record) -> str:
    """The message with which a record is refused, alone or in a stream, which names the record."""
    with pytest.raises(RecordError) as caught:
        checked(record, dimensions=3)
    message = str(caught.value)
    assert repr(record.id) in message
    with pytest.raises(RecordError) as caught:
        list(record_windows([record], 3))
    assert str(caught.value) == message
    return message


# -- records --------------------------------------------------------------------------------


def test_a_plain_record_is_taken_as_it_is() -> None:
    record = Record("42", "Rye is sour.", {"lang": "en"}, document_id="bread", chunk=3)
    assert checked(record, dimensions=3) == record


@pytest.mark.parametrize("text", ["", " ", "\n", "🍞", "a\tb", "\ufeff"])
def test_any_text_is_taken(text: str) -> None:
    assert checked(Record("loaf", text), dimensions=None).text == text


def test_the_document_of_a_record_is_itself_unless_another_is_named() -> None:
    assert Record("loaf", "x").document_id == "loaf"
    assert Record("loaf", "x").document == "loaf"
    assert Record("loaf#1", "x", document_id="loaf").document == "loaf"


def test_equality_ignores_the_vector() -> None:
    assert Record("loaf", "x", vector=[1.0]) == Record("loaf", "x", vector=np.zeros(3))
    assert Record("loaf", "x", vector=[1.0]) == Record("loaf", "x")


@pytest.mark.parametrize(
    "other",
    [
        Record("other", "x", {"a": 1}, document_id="d", chunk=1),
        Record("loaf", "y", {"a": 1}, document_id="d", chunk=1),
        Record("loaf", "x", {"a": 2}, document_id="d", chunk=1),
        Record("loaf", "x", {"a": 1}, document_id="e", chunk=1),
        Record("loaf", "x", {"a": 1}, document_id="d", chunk=2),
    ],
)
def test_equality_sees_everything_else(other: Record) -> None:
    assert Record("loaf", "x", {"a": 1}, document_id="d", chunk=1) != other


def test_a_record_shows_no_vector() -> None:
    assert "vector" not in repr(Record("loaf", "x", vector=[1.0, 2.0]))


@pytest.mark.parametrize("value", [None, 5, b"loaf", ["loaf"]])
def test_an_id_is_a_str(value: Any) -> None:
    assert f"id is {type(value).__name__}, not str" in refused(Record(value, "x"))


@pytest.mark.parametrize("value", [None, 5, b"rye", ["rye"]])
def test_a_text_is_a_str(value: Any) -> None:
    assert f"text is {type(value).__name__}, not str" in refused(Record("loaf", value))


@pytest.mark.parametrize("value", [5, b"loaf", ["loaf"]])
def test_a_document_id_is_a_str(value: Any) -> None:
    message = refused(Record("loaf", "x", document_id=value))
    assert f"document_id is {type(value).__name__}, not str" in message


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(RecordError, match="empty id"):
        checked(Record("", "x"), dimensions=None)


@pytest.mark.parametrize("value", [True, 1.0, "1", NAN])
def test_a_chunk_is_a_whole_number(value: Any) -> None:
    assert f"chunk is {value!r}" in refused(Record("loaf", "x", chunk=value))


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (Record("loaf\ud800", "x"), "its id holds a lone surrogate"),
        (Record("loaf", "rye \udfff"), "its text holds a lone surrogate"),
        (Record("loaf", "x", document_id="\ud800"), "its document_id holds a lone surrogate"),
        (Record("loaf", "x", {"note": "\ud800"}), "metadata['note'] holds a lone surrogate"),
        (Record("loaf", "x", {"a": [{"\ud800": 1}]}), "metadata['a'][0], key"),
    ],
)
def test_what_is_not_unicode_is_refused_where_it_stands(record: Record, what: str) -> None:
    assert what in refused(record)


@pytest.mark.parametrize("value", ["loaf", {"id": "loaf", "text": "x"}, ("loaf", "x"), None])
def test_what_is_no_record_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=f"takes Record objects, not {type(value).__name__}"):
        checked(value, dimensions=None)


def test_a_refusal_is_a_value_error() -> None:
    assert issubclass(RecordError, ValueError)


# -- metadata -------------------------------------------------------------------------------

METADATA: dict[str, Any] = {
    "str": "en",
    "int": 5,
    "large": 10**30,
    "float": 1.5,
    "bool": True,
    "none": None,
    "list": [1, "a", [None, {"deep": False}]],
    "dict": {"a": {"b": [1.0]}},
    "with.dot": 1,
    "$dollar": 1,
    "": "empty",
    "ü 🍞": "ok",
}


@pytest.mark.parametrize("key", METADATA)
def test_what_json_holds_is_metadata(key: str) -> None:
    record = Record("loaf", "x", {key: METADATA[key]})
    assert checked(record, dimensions=None).metadata == {key: METADATA[key]}


def test_any_mapping_is_metadata() -> None:
    metadata: Mapping[str, Any] = MappingProxyType({"lang": "en"})
    assert checked(Record("loaf", "x", metadata), dimensions=None).metadata == {"lang": "en"}


@pytest.mark.parametrize("value", [None, "en", ["en"], [("lang", "en")], 5])
def test_metadata_is_a_mapping(value: Any) -> None:
    message = refused(Record("loaf", "x", value))
    assert f"metadata is {type(value).__name__}, not a mapping" in message


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {1, 2},
        b"bytes",
        datetime.date(2026, 1, 1),
        1j,
        np.zeros(2),
        np.complex64(1),
        np.datetime64("2026-01-01"),
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_would_give_back_as_something_else_is_refused(value: Any) -> None:
    message = refused(Record("loaf", "x", {"a": [{"b": value}]}))
    assert f"metadata['a'][0]['b'] holds {type(value).__name__}" in message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(-1), -1),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float32(1.5), 1.5),
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.str_("rye"), "rye"),
    ],
)
def test_scalars_of_numpy_are_pythons(value: Any, expected: Any) -> None:
    metadata = {"a": value, np.str_("b"): [{"c": value}]}
    record = checked(Record("loaf", "x", metadata, chunk=np.int32(3)), dimensions=None)  # type: ignore[arg-type]
    assert record.metadata == {"a": expected, "b": [{"c": expected}]}
    assert type(record.metadata["a"]) is type(record.metadata["b"][0]["c"]) is type(expected)
    assert {type(key) for key in record.metadata} == {str}
    assert type(record.chunk) is int


@pytest.mark.parametrize("metadata", [{"a": 1, "b": "x"}, {"a": [1], "b": {"c": [2]}}])
def test_metadata_is_copied(metadata: dict[str, Any]) -> None:
    before = deepcopy(metadata)
    record = checked(Record("loaf", "x", metadata), dimensions=None)
    metadata["a"] = 2
    if isinstance(metadata["b"], dict):
        metadata["b"]["c"].append(3)
    assert record.metadata == before


def nested(depth: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {"end": 1}
    for level in range(depth):
        metadata = {"a": [metadata]} if level % 2 else {"a": metadata}
    return metadata


def test_how_deep_metadata_may_be() -> None:
    deep = nested(400)
    assert checked(Record("loaf", "x", deep), dimensions=None).metadata == deep
    assert "deep" in refused(Record("loaf", "x", nested(1_000)))


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY, np.float32("nan")])
def test_numbers_that_json_has_no_word_for_are_refused(value: float) -> None:
    assert f"metadata['a'] holds {value}" in refused(Record("loaf", "x", {"a": value}))


@pytest.mark.parametrize("key", [1, None, True, ("a",)])
def test_a_key_is_a_str(key: Any) -> None:
    metadata: dict[Any, Any] = {key: 1}
    assert f"metadata has the key {key!r}" in refused(Record("loaf", "x", metadata))
    assert f"metadata['a'] has the key {key!r}" in refused(Record("loaf", "x", {"a": metadata}))


def test_metadata_that_holds_itself_is_refused() -> None:
    metadata: dict[str, Any] = {}
    metadata["self"] = metadata
    refused(Record("loaf", "x", metadata))


# -- vectors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vector",
    [[3, 0, 4], (3.0, 0.0, 4.0), np.array([3, 0, 4]), np.array([3, 0, 4], dtype=np.float16)],
    ids=["list of int", "tuple", "int array", "half array"],
)
def test_a_vector_is_normalised(vector: Any) -> None:
    stored = checked(Record("loaf", "x", vector=vector), dimensions=3).vector
    assert isinstance(stored, np.ndarray)
    assert stored.dtype == np.float32
    np.testing.assert_allclose(stored, [0.6, 0, 0.8], rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-150, 1e-30, 1e30, 1e150, 1e200, 1e307])
def test_a_very_long_or_short_vector_still_has_a_direction(scale: float) -> None:
    stored = unit_vector([3 * scale, 0, 4 * scale], "it", 3)
    np.testing.assert_allclose(stored, [0.6, 0, 0.8], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "vector",
    [[3 * 2**64, 0, 4 * 2**64], [Decimal(3), Fraction(0), 4], [np.float16(3), 0, np.int8(4)]],
)
def test_numbers_of_any_kind_are_a_vector(vector: Any) -> None:
    np.testing.assert_allclose(unit_vector(vector, "it", 3), [0.6, 0, 0.8], rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-38, 1e38])
def test_so_has_one_of_float32(scale: float) -> None:
    vector = np.array([1.5 * scale, 0, 2 * scale], dtype=np.float32)
    np.testing.assert_allclose(unit_vector(vector, "it", 3), [0.6, 0, 0.8], rtol=0, atol=1e-6)


def test_the_callers_vector_stays_as_it_was() -> None:
    vector = np.array([3.0, 0.0, 4.0], dtype=np.float32)
    checked(Record("loaf", "x", vector=vector), dimensions=3)
    assert vector.tolist() == [3.0, 0.0, 4.0]


def test_what_was_normalised_comes_back_to_the_bit() -> None:
    vectors = np.random.default_rng(0).standard_normal((200, 24)).astype(np.float32)
    for vector in vectors:
        once = unit_vector(vector, "it", 24)
        assert unit_vector(once, "it", 24).tobytes() == once.tobytes()
        assert unit_vector(once.tolist(), "it", 24).dtype == np.float32


def test_a_vector_of_nearly_length_1_is_normalised() -> None:
    vector = np.array([0.6, 0.0, 0.80001], dtype=np.float32)
    length = np.linalg.norm(unit_vector(vector, "it", 3).astype(np.float64))
    assert abs(length - 1) < 1e-7


def test_a_vector_of_any_size_is_taken_while_the_size_is_not_known() -> None:
    assert unit_vector([1.0] * 7, "it", None).shape == (7,)


@pytest.mark.parametrize(
    ("vector", "what"),
    [
        ([1.0, 2.0], "shape (2,), not (3,)"),
        ([], "shape (0,), not (3,)"),
        ([[1.0, 2.0, 3.0]], "shape (1, 3), not (3,)"),
        (1.0, "shape (), not (3,)"),
        ([1.0, NAN, 0.0], "holds nan at position 1"),
        ([1.0, 0.0, INFINITY], "holds inf at position 2"),
        ([0.0, 0.0, 0.0], "length 0"),
        (np.array([1.0, NAN, 0.0], dtype=np.float32), "holds nan at position 1"),
        (np.array([1.0, 0.0, INFINITY], dtype=np.float32), "holds inf at position 2"),
        (np.array([0.0, 0.0, 0.0], dtype=np.float32), "length 0"),
        (["a", "b", "c"], "not a list of numbers"),
        ([[1.0], [2.0, 3.0]], "not a list of numbers"),
        ([None, 1.0, 2.0], "holds nan at position 0"),
        ({"a": 1.0}, "not a list of numbers"),
        (["1.0", "2.0", "3.0"], "not a list of numbers"),
        (["1.0", 2.0, None], "not a list of numbers"),
        (np.array(["1", "2", "3"]), "not a list of numbers"),
        ([1j, 2.0, 3.0], "not a list of numbers"),
        (np.array([1, 2, 3], np.complex64), "not a list of numbers"),
        (np.array([1, 2, 3], "m8[s]"), "not a list of numbers"),
        ([10**400, 1, 1], "no float can hold"),
        ([1, 1, -(10**400)], "no float can hold"),
    ],
)
def test_a_vector_without_a_direction_of_the_right_size_is_refused(vector: Any, what: str) -> None:
    message = refused(Record("loaf", "x", vector=vector))
    assert "its vector" in message
    assert what in message


# -- the hash -------------------------------------------------------------------------------


def test_a_hash_is_32_bytes_and_the_same_every_time() -> None:
    assert len(text_hash(RECORD, 512)) == 32
    assert text_hash(RECORD, 512) == text_hash(Record("loaf", "Rye is sour."), 512)


def test_a_hash_is_made_of_the_text_the_limit_and_where_the_vector_comes_from() -> None:
    # Any other value would embed every table out there anew.
    text = hashlib.sha256(b"Rye is sour.").digest()
    assert text_hash(RECORD, 512) == hashlib.sha256(text + b"512" + b"embedded").digest()
    given = Record("loaf", "Rye is sour.", vector=[0.6, 0.8])
    vector = struct.pack("<2f", 0.6, 0.8)
    assert text_hash(given, 512) == hashlib.sha256(text + b"512" + vector).digest()


@pytest.mark.parametrize(
    ("record", "max_tokens"),
    [
        (Record("loaf", "Rye is sour"), 512),
        (Record("loaf", "Rye is sour. "), 512),
        (Record("loaf", ""), 512),
        (RECORD, 511),
        (RECORD, 5),
        (Record("loaf", "Rye is sour.", vector=[0.6, 0.8]), 512),
        (Record("loaf", "Rye is sour.", vector=[0.8, 0.6]), 512),
        (Record("loaf", "Rye is sour.", vector=[0.6, 0.8, 0.0]), 512),
    ],
)
def test_a_hash_changes_with_whatever_changes_the_vector(record: Record, max_tokens: int) -> None:
    assert text_hash(record, max_tokens) != text_hash(RECORD, 512)


def test_a_hash_tells_two_vectors_apart() -> None:
    one, other = (Record("loaf", "x", vector=vector) for vector in ([0.6, 0.8], [0.8, 0.6]))
    assert text_hash(one, 512) != text_hash(other, 512)


def test_a_hash_does_not_change_with_what_leaves_the_vector_alone() -> None:
    other = Record("other", "Rye is sour.", {"lang": "en"}, document_id="bread", chunk=3)
    assert text_hash(other, 512) == text_hash(RECORD, 512)


def test_a_hash_takes_any_kind_of_sequence_as_the_same_vector() -> None:
    vectors: list[Any] = [[0.5, 0.25], (0.5, 0.25), np.array([0.5, 0.25])]
    vectors.append(np.array([0.5, 0.25], dtype=np.float32))
    assert len({text_hash(Record("a", "x", vector=vector), 512) for vector in vectors}) == 1


# -- the rest -------------------------------------------------------------------------------


def test_a_match_says_what_kind_of_score_it_has() -> None:
    assert Match("loaf", "x", 0.5).score_kind == "cosine"


def test_a_report_starts_at_zero() -> None:
    assert not any(asdict(Report()).values())


def test_a_match_as_plain_values() -> None:
    metadata = {"lang": "en", "tags": ["a"], "none": None}
    match = Match("rye#1", "Rye.", 0.5, MappingProxyType(metadata), "rye", 1)
    values = match.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert Match(**values) == Match("rye#1", "Rye.", 0.5, metadata, "rye", 1)
    values["metadata"]["tags"].append("b")
    assert metadata["tags"] == ["a"]
