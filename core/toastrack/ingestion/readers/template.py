"""``'{title}: {body}'``: the text of a row, made of several fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any


@dataclass(frozen=True)
class Template:
    """A text with the names of fields in it: pairs of what stands before a name, and the name."""

    parts: Sequence[tuple[str, str | None]]

    @classmethod
    def parse(cls, template: str) -> Template:
        """Raise ``ValueError`` for anything but ``{name}``, and for a text without one.

        Templates come from users' own users, too: attributes and indexes would look into objects.
        """
        parts: list[tuple[str, str | None]] = []
        try:
            for before, name, format_code, conversion in Formatter().parse(template):
                if name is not None and (format_code or conversion or not _is_plain(name)):
                    raise ValueError("only a field's name can stand in braces")
                parts.append((before, name))
        except ValueError as error:
            raise ValueError(
                f"text={template!r} is no template: {error}. Write it like '{{title}}: {{body}}'; "
                "a brace of the text's own is doubled."
            ) from None
        if all(name is None for _, name in parts):
            raise ValueError(
                f"text={template!r} names no field. Write it like '{{title}}: {{body}}', or name "
                "one field with text_column=."
            )
        return cls(parts)

    @property
    def names(self) -> list[str]:
        """The fields that are needed."""
        return [name for _, name in self.parts if name is not None]

    def fill(self, row: Mapping[str, Any]) -> str:
        """Return the text; raises ``ValueError`` for a value that is no text, number or bool."""
        return "".join(
            before + ("" if name is None else _text(name, row[name])) for before, name in self.parts
        )


def _is_plain(name: str) -> bool:
    return bool(name.strip()) and not any(sign in name for sign in ".[]{}")


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    raise ValueError(f"{name!r} is {type(value).__name__}, which makes no text")
