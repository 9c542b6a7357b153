"""Plain text, in the encodings that people have."""

from __future__ import annotations

import codecs
import io

import pytest

from toastrack.ingestion.readers import BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.readers import decoding as decoding_module
from toastrack.ingestion.readers.text import read_text


def read(content: bytes, encoding: str | None = None) -> SourceDocument | BadInput:
    options = ReadOptions(encoding=encoding)
    (item,) = read_text(
        io.BytesIO(content), location="docs/rye.txt", name="rye.txt", options=options
    )
    return item


def test_a_file_is_one_document_with_its_source() -> None:
    item = read("# Röggen\n".encode())
    assert item == SourceDocument("rye.txt", "# Röggen\n", "docs/rye.txt", {"source": "rye.txt"})


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + "Röggen".encode(),
        "Röggen".encode("utf-16"),
        codecs.BOM_UTF16_BE + "Röggen".encode("utf-16-be"),
        "Röggen".encode("utf-32"),
    ],
    ids=["utf-8", "utf-16", "utf-16-be", "utf-32"],
)
@pytest.mark.parametrize("encoding", [None, "latin-1"])
def test_a_byte_order_mark_is_believed(content: bytes, encoding: str | None) -> None:
    item = read(content, encoding)
    assert isinstance(item, SourceDocument)
    assert item.text == "Röggen"


def test_another_encoding_is_read_on_request() -> None:
    item = read(b"R\xf6ggen \x80", "cp1252")
    assert isinstance(item, SourceDocument)
    assert item.text == "Röggen €"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift_jis", "utf-16-le"])
def test_a_file_that_is_utf8_stays_so_beside_others(encoding: str) -> None:
    item = read("Öfen für Brötchen, 240 °C".encode(), encoding)
    assert isinstance(item, SourceDocument)
    assert item.text == "Öfen für Brötchen, 240 °C"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("iso-2022-jp", "パン 麦"),
        ("utf-16-le", "rye"),
        ("utf-16-le", "Grüße"),
        ("utf-16-be", "パン 麦"),
        ("gb18030", "裸麦面包"),
        ("cp037", "Grüße"),
    ],
)
def test_what_only_looks_like_ascii_is_read_as_was_asked(encoding: str, text: str) -> None:
    item = read(text.encode(encoding), encoding)
    assert isinstance(item, SourceDocument)
    assert item.text == text


def test_a_file_that_is_not_utf8_is_named_with_the_byte_and_the_way_out() -> None:
    item = read(b"rye\ncaf\xe9")
    assert item == BadInput(
        "docs/rye.txt",
        "line 2: byte 7 of the file (0xE9) is not UTF-8. Name the encoding, for "
        "instance encoding='latin-1' or encoding='cp1252'.",
    )


def test_a_file_over_the_limit_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding_module, "MAX_DOCUMENT", 100)
    file = io.BytesIO(b"x" * 10_000)
    (item,) = read_text(file, location="a.txt", name="a.txt", options=ReadOptions())
    assert isinstance(item, BadInput)
    assert "more than one document may have" in str(item)
    assert file.tell() == 101
