"""The JSON files of a model's folder, read so that whatever is wrong with one is said with its name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toastrack.errors import ModelError

# Python's JSON takes the half of a character, and nothing that reads the text later does.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_LONGEST_NAME = 255


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object; an absent file is an empty one."""
    value = read_value(path)
    if value is None and not path.is_file():
        return {}
    if not isinstance(value, dict):
        raise broken(path, f"it holds {_kind(value)} where an object belongs")
    return value


def read_value(path: Path) -> Any:
    """Read whatever a JSON file holds; None if there is no file."""
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise broken(path, "a text in it holds half of a character") from None
    except ValueError as error:
        raise ModelError(f"{str(path)!r} is not valid JSON: {error}. Get the model anew.") from None
    except RecursionError:
        raise broken(path, "it is nested too deeply") from None
    except OSError as error:
        raise ModelError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from None
    return value


def whole(values: Mapping[str, Any], name: str, path: Path) -> int | None:
    """Return a whole number that is at least 1; None if there is none."""
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise broken(path, f"{name} is {value!r:.80} and must be a whole number of at least 1")
    return value


def text(values: Mapping[str, Any], name: str, path: Path) -> str | None:
    """Return a text; None if there is none."""
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise broken(path, f"{name} is {value!r:.80} and must be a text")
    return value


def flag(values: Mapping[str, Any], name: str, path: Path, *, default: bool = False) -> bool:
    """Return true or false; ``default`` if neither is there."""
    value = values.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise broken(path, f"{name} is {value!r:.80} and must be true or false")
    return value


def name_inside(name: object, path: Path, *, what: str) -> str:
    """Return a name that a file of a model's folder gives for another; refuse one that leads out.

    The name alone is judged: in the hub's cache the file itself is a link to somewhere else.
    """
    if not isinstance(name, str) or "\0" in name:
        raise broken(path, f"{what} is {name!r:.80} and must be the name of a file")
    parts = re.split(r"[/\\]", name)
    if ".." in parts or name[:1] in ("/", "\\", "~") or ":" in parts[0]:
        raise ModelError(
            f"{str(path)!r} names {name!r:.80} as {what}, which lies outside of the model's folder. "
            "Nothing there is read. Choose a model that stands in one folder."
        )
    if max(map(len, parts)) > _LONGEST_NAME:
        raise broken(path, f"{what} is {name!r:.80}..., longer than the name of any file")
    return name


def broken(path: Path, fault: str) -> ModelError:
    """Return the error for a file that is not what it has to be."""
    return ModelError(
        f"{str(path)!r} is damaged or belongs to another model: {fault}. Get it anew."
    )


def _kind(value: object) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")
