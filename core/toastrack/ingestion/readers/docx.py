"""Word: one .docx, one document, read as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from toastrack.errors import needs_extra
from toastrack.ingestion.readers.base import MAX_DOCUMENT, BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.readers.decoding import TOO_LONG
from toastrack.ingestion.readers.html import to_markdown
from toastrack.ingestion.readers.markdown import markdown_document

# Word says each thing in many words.
_MAX_XML = 4 * MAX_DOCUMENT


def read_docx(
    file: BinaryIO, *, location: str, name: str, options: ReadOptions
) -> Iterator[SourceDocument | BadInput]:
    """Yield the file as one document, without its pictures; Word's headings are its sections."""
    with needs_extra("files", "mammoth", "bs4", "markdownify"):
        import mammoth
        import markdownify  # noqa: F401 - so that a missing one is named before the file is read
        from bs4 import BeautifulSoup
    try:
        _check_size(file)
        html = mammoth.convert_to_html(file, convert_image=_no_picture).value
        text = to_markdown(BeautifulSoup(html, "html.parser"))
    except RecursionError:
        yield BadInput(location, "the document is nested too deeply.")
        return
    except Exception as error:  # zipfile's, expat's, zlib's and mammoth's: whatever comes to them
        fault = str(error).rstrip(".") or type(error).__name__
        yield BadInput(location, f"not a Word document (.docx), or damaged: {fault}.")
        return
    yield markdown_document(name, text, location, {"source": name})


def _check_size(file: BinaryIO) -> None:
    """Raise ``ValueError`` for what would be unpacked to more than can be a document."""
    from zipfile import ZipFile

    with ZipFile(file) as parts:
        # Of a part no more is unpacked than is said here.
        xml = sum(
            part.file_size for part in parts.infolist() if part.filename.endswith((".xml", ".rels"))
        )
    if xml > _MAX_XML:
        raise ValueError(f"unpacked it is {xml // 2**20:,} MB, {TOO_LONG}")
    file.seek(0)


def _no_picture(picture: Any) -> list[Any]:
    return []
