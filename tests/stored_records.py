"""What the stores under ``tests/data/stores`` were filled with, and what is found in them.

Nothing here may change: every set that is kept there holds it.
"""

from __future__ import annotations

from toastrack import Record

COLLECTION = "docs"
VECTOR = "dense"
"""The name of the vector of ``qdrant-named``."""
FILES = {
    "chroma": "chroma.tar.gz",
    "qdrant": "qdrant.tar.gz",
    "qdrant-named": "qdrant-named.tar.gz",
    "postgres": "postgres.sql",
}
"""What a set holds of a host, if that host's format is the set's."""

READY = Record(
    "ready",
    "This vector came from elsewhere.",
    {"lang": "en", "year": 2019, "tested": False},
    # Zeros and a length of 5, so that every machine rounds its unit vector to the same bits.
    vector=[3.0, 4.0] + [0.0] * 382,
)
WHOLE = [
    Record(
        "rye",
        "A full rye loaf keeps fresh for more than a week.",
        {
            "lang": "en",
            "year": 2024,
            "rating": 4.5,
            "loaves": 3.0,
            "tested": True,
            "note": None,
            "source": {"book": "Brot", "pages": [12, 13.0, True], "shelf": {"row": None}},
        },
    ),
    Record(
        "Brötchen/Nr. 1",
        'Brötchen backt man heiß 🥨, mit "Schwaden" und 60 % Wasser.\n\tIt\'s C:\\bread\n',
        {"lang": "de", "größe": "klein", "year": -(2**40), "rating": 1e-9, "empty": {}, "": []},
    ),
    READY,
]
DOCUMENT = "doc"
SOURCE = "/srv/bread"
"""Where all documents came from, in the sets whose documents have a source."""
CHUNKS = [
    Record(
        "doc#0",
        "Feed the sourdough starter twice a day with flour and water.",
        {"lang": "en", "title": "Starter"},
        document_id=DOCUMENT,
        chunk=0,
    ),
    Record(
        "doc#1",
        "A starter that smells of acetone is hungry.",
        {"lang": "en", "title": "Starter"},
        document_id=DOCUMENT,
        chunk=1,
    ),
]
RECORDS = [*WHOLE, *CHUNKS]

BEST = {
    "which bread can I take on a long journey?": "rye",
    "how often does a sourdough need food?": "doc#0",
    "nail polish remover": "doc#1",
}
"""Queries, and the id that is to come first."""

PLACED = "placed"
"""A second collection, in the sets from ``format-3`` on: ``LONG``, as ``ingest`` stores it."""
LONG = Record(
    "timetable",
    "\n\n".join(
        f"At minute {minute} fold the dough for the {time} time, cover it and let it rest."
        for time, minute in zip(
            ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"),
            range(20, 180, 20),
            strict=True,
        )
    )
    + "\n\n"
    + " ".join(
        f"After {hour} hours the loaf is turned, and after {hour} more it is looked at again."
        for hour in range(1, 16)
    ),
    {"lang": "en"},
)
"""A text that is over the limit of MiniLM, so that its chunks hold their place in it."""
