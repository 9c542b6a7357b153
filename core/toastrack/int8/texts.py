"""Which texts a model is calibrated with, and which are held back to measure what that cost."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from toastrack.embedder import Embedder
from toastrack.errors import MissingExtraError, SourceError
from toastrack.ingestion.readers import BadInput, ReadOptions
from toastrack.ingestion.sources import SourceFile, find_files, lacking_for
from toastrack.stores.addresses import is_address, open_store

# Fewer of them say little about the first ten.
HELD_BACK = 200
# 40 texts did as well as 300 on a real MiniLM; this many meet more of what a corpus has.
SAMPLE = 300
LEAST = 100

NEUTRAL = "neutral.txt"

_QUERY_WORDS = 32
_SENTENCE = re.compile(r".+?[.!?](?=\s|$)", re.DOTALL)


@dataclass(frozen=True)
class Samples:
    """Different texts, drawn by chance and always the same ones.

    Args:
        calibration: Those that the ranges of numbers are taken from.
        held_back: Those that the result is measured on.
        notes: What people should know of them, a sentence each.
    """

    calibration: list[str]
    held_back: list[str]
    notes: list[str]


def samples(embedder: Embedder, calibrate: str | None, sample: int | None) -> Samples:
    """Draw texts of a file, a folder or a store, or of the neutral ones that come with toastrack.

    Raises ``SourceError`` if there are too few to calibrate with and to measure on.
    """
    wanted = SAMPLE if sample is None else sample
    texts = neutral_texts() if calibrate is None else read_texts(calibrate, embedder)
    drawn = draw(texts, HELD_BACK + wanted)
    least = HELD_BACK + min(wanted, LEAST)
    if len(drawn) < least:
        raise SourceError(
            f"{calibrate!r} holds {len(drawn)} different texts, and {least} are needed: {HELD_BACK} "
            f"to measure on, the others to calibrate with. Give more, such as a whole folder or a "
            "store, or leave calibrate= out for the neutral texts that come with toastrack."
        )
    held_back, calibration = drawn[:HELD_BACK], drawn[HELD_BACK:]
    notes = []
    if calibrate is None:
        notes.append(
            f"calibrated with {len(calibration)} neutral texts that come with toastrack, and measured "
            f"on {HELD_BACK} others of them. Your own texts do better, and say more: calibrate='...' "
            "takes a file, a folder or a store."
        )
    elif len(calibration) < wanted:
        notes.append(
            f"{calibrate!r} holds {len(drawn)} different texts: {HELD_BACK} to measure on are held "
            f"back, and {len(calibration)} calibrate instead of {wanted}."
        )
    return Samples(calibration, held_back, notes)


def neutral_texts() -> list[str]:
    """Return the texts that come with toastrack, of many kinds and fields."""
    content = files("toastrack.int8").joinpath(NEUTRAL).read_text(encoding="utf-8")
    return [line for line in content.splitlines() if line]


def read_texts(source: str, embedder: Embedder) -> Iterator[str]:
    """Yield the texts of a file, a folder or a store, in the parts that a store would hold.

    Raises ``SourceError`` for what cannot be read, ``StoreError`` for what cannot be opened.
    """
    if is_address(source) and not Path(source).expanduser().exists():
        with open_store(source, create=False) as store:
            yield from (record.text for record in store.records())
        return
    found = find_files([source])
    lacking = lacking_for(found)
    if lacking.packages:
        raise MissingExtraError(", ".join(lacking.packages), ",".join(lacking.extras), lacking.hint)
    for file in found:
        if not isinstance(file, SourceFile):
            continue
        for item, _ in file.read(ReadOptions()):
            if isinstance(item, BadInput):
                if item.kind == "cannot be read":
                    raise SourceError(f"{item.location}: {item.reason}")
            elif item.text.strip():
                chunks = embedder._chunks(item.text, markdown=item.markdown)
                yield from (text for _, text in chunks)


def draw(texts: Iterable[str], count: int) -> list[str]:
    """Return so many different texts of a stream, each as likely as any other, in any order."""
    pick = random.Random(0)
    seen: set[int] = set()
    chosen: list[str] = []
    for text in texts:
        known = hash(text)
        if not text.strip() or known in seen:
            continue
        seen.add(known)
        if len(chosen) < count:
            chosen.append(text)
        elif (place := pick.randrange(len(seen))) < count:
            chosen[place] = text
    pick.shuffle(chosen)
    return chosen


def query_of(text: str) -> str:
    """Return what somebody might ask who looks for a text: its first sentence, if that is short."""
    sentence = _SENTENCE.match(text.strip())
    words = (sentence[0] if sentence else text).split()
    return " ".join(words[:_QUERY_WORDS])
