"""Changes to the files of a model's folder: what a bad copy does, and what somebody hostile would."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FILES = (
    "config.json",
    "model.safetensors.index.json",
    "1_Pooling/config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "toastrack.json",
)

_DEEP: list[Any] = []
for _ in range(200):
    _DEEP = [_DEEP]

VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 7, 10**6, 10**9, 10**30, 0.5, -2.5, float("nan"), 1e308),
    *("", "x", "0", "cls", "sentence_transformers.models.Dense", "evil.Module", "gelu", "\ud800"),
    *("../../outside", "/etc/passwd", "C:\\outside", "a\0b", "n" * 300, "toastrack" * 50),
    *([], {}, [[]], {"a": {}}, ["cls", "mean"], {"text": None}, [None], _DEEP),
)

# What a file may say that makes a loader look elsewhere, or run something.
HOSTILE: tuple[tuple[str, Any], ...] = (
    ("auto_map", {"AutoModel": "evil.Model", "AutoConfig": "evil.Config", "AutoTokenizer": "e.T"}),
    ("transformers_weights", "../outside.safetensors"),
    ("tokenizer_file", "/etc/passwd"),
    ("vocab_file", "../../outside.txt"),
    ("tokenizer_name_or_path", "../outside"),
    ("model_args", {"trust_remote_code": True, "subfolder": "../outside"}),
    ("config_args", {"transformers_weights": "../outside.safetensors"}),
    ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    ("attn_implementation", "evil/kernel"),
    ("tokenizer_class", "PreTrainedTokenizer"),
    ("model_type", "gpt2"),
    ("requirements", ["evil>=1"]),
    ("prompts", {"query": "\ud800"}),
    ("activation_function", "os.system"),
)


def broken_copy(folder: Path, target: Path, seed: int) -> str:
    """Copy a folder, break one or two of its files, and say which and how."""
    pick = random.Random(seed)
    shutil.copytree(folder, target)
    there = [name for name in FILES if (target / name).is_file()]
    done = []
    for _ in range(pick.choice((1, 1, 1, 2))):
        name = pick.choice(there)
        change = pick.choice(_CHANGES)
        if (target / name).is_file():
            change(target / name, pick)
            done.append(f"{change.__name__} {name}")
    return ", ".join(done)


def _cut(path: Path, pick: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: pick.randrange(len(content) + 1)])


def _flip(path: Path, pick: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(pick.choice((1, 3, 20))):
        place = pick.randrange(len(content) + 1)
        content[place : place + 1] = bytes([pick.randrange(256)])
    path.write_bytes(bytes(content))


def _repeat(path: Path, pick: random.Random) -> None:
    content = path.read_bytes()
    start = pick.randrange(len(content) + 1)
    path.write_bytes(content[:start] + content[start : start + 40] * 3 + content[start:])


def _swap_file(path: Path, pick: random.Random) -> None:
    kind = pick.choice(("gone", "folder", "empty", "deep", "another", "number"))
    content = path.with_name(pick.choice(["config.json", "README.md"]))
    other = content.read_bytes() if content.is_file() else b"[]"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "deep":
        path.write_text("[" * 100_000)
    elif kind != "gone":
        path.write_bytes({"empty": b"", "another": other, "number": b"5"}[kind])


def _replace(path: Path, pick: random.Random) -> None:
    _edit(path, pick, lambda holder, key: holder.__setitem__(key, pick.choice(VALUES)))


def _delete(path: Path, pick: random.Random) -> None:
    _edit(path, pick, lambda holder, key: holder.__delitem__(key))


def _rename(path: Path, pick: random.Random) -> None:
    def rename(holder: Any, key: Any) -> None:
        if isinstance(holder, dict):
            holder[pick.choice(("x", "type", "path", str(key).upper()))] = holder.pop(key)
        else:
            holder.append(holder[key])

    _edit(path, pick, rename)


def _shift(path: Path, pick: random.Random) -> None:
    """Change a number a little, or by orders of magnitude."""

    def shift(holder: Any, key: Any) -> None:
        value = holder[key]
        if isinstance(value, int) and not isinstance(value, bool):
            holder[key] = pick.choice((value + 1, value - 1, -value, value * 2, value * 1000))
        else:
            holder[key] = pick.choice(VALUES)

    _edit(path, pick, shift)


def _add(path: Path, pick: random.Random) -> None:
    content = _content(path)
    name, value = pick.choice(HOSTILE)
    if not isinstance(content, (dict, list)):
        return
    holders = [holder for holder, _ in _places(content) if isinstance(holder, dict)]
    if isinstance(content, dict):
        holders = [content, content, *holders[:3]]
    if holders:
        pick.choice(holders)[name] = value
    path.write_text(json.dumps(content), encoding="utf-8")


_CHANGES: tuple[Callable[[Path, random.Random], None], ...] = (
    *(_cut, _flip, _repeat, _swap_file, _delete, _rename, _add, _add),
    *(_replace, _replace, _replace, _shift, _shift),
)


def _content(path: Path) -> Any:
    """What a file holds; None if the change before broke it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None


def _edit(path: Path, pick: random.Random, change: Callable[[Any, Any], object]) -> None:
    content = _content(path)
    if not isinstance(content, (dict, list)):
        return
    places = list(_places(content))
    # Few of a tokenizer's places are not words: those near the top are asked as often.
    near = [place for place in places if len(places) < 100 or _is_near(content, place)]
    holder, key = pick.choice(pick.choice((places, near)) or [([content], 0)])
    change(holder, key)
    path.write_text(json.dumps(content), encoding="utf-8")


def _is_near(content: Any, place: tuple[Any, Any]) -> bool:
    return len(place[0]) < 50 or place[0] is content


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value where something stands, as its holder and key."""
    keys: Any = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])
