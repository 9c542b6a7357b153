"""Write docs/reference.md out of the docstrings: every public name, with what it takes and raises."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("reference.md")
ADAPTERS = ("postgres", "qdrant", "chroma", "langchain", "llama_index")
PACKAGES = (
    "toastrack",
    *(f"toastrack_{adapter}" for adapter in ADAPTERS),
    "toastrack_postgres.sqlalchemy",
    "toastrack.errors",
)
INTRODUCTION = """\
# Reference

Written by `make docs` from the docstrings. In the examples `embedder` is an `Embedder()`, `client` a
`QdrantClient(":memory:")`, `store` a `QdrantStore(client, "bread", embedder=embedder)` with two breads
in it, `text` a long text, and `connection` a psycopg connection that knows the embedder, to a database
with a table `loaves (id bigint, text text, embedding halfvec(1024))`; all else is imported from the
packages on this page.

A `Vector` is a list or an array of numbers, a `FloatVector` a float32 array of shape `(dimensions,)`, a
`FloatMatrix` one of shape `(n, dimensions)`. What a class has from its host's own class is explained in
the host's documentation. An `Async...` class has the methods of its twin, awaited.
"""


def reference() -> str:
    """Return the page."""
    return INTRODUCTION + "".join(part for name in PACKAGES for part in package(name))


def package(name: str) -> Iterator[str]:
    """Yield what the page says of one package."""
    module = importlib.import_module(name)
    yield f"\n## {name}\n\n{markdown(module)}\n"
    for public, thing in public_things(module):
        if not inspect.isclass(thing) and not inspect.isroutine(thing):
            yield f"\n### {public}\n\n    {public} = {thing!r}\n".replace("typing.", "")
            continue
        yield f"\n### {public}\n\n{signature(public, thing)}{markdown(thing)}\n"
        for member, function in members(thing) if not public.startswith("Async") else ():
            shown = f"{public}.{member}"
            yield f"\n#### {shown}\n\n{signature(shown, function)}{markdown(function)}\n"


def public_things(module: Any) -> list[tuple[str, Any]]:
    """Return what users import from a package, by name; of the errors, the classes."""
    classes = [name for name, thing in vars(module).items() if inspect.isclass(thing)]
    errors = [name for name in classes if issubclass(getattr(module, name), (Exception, Warning))]
    return [(name, getattr(module, name)) for name in getattr(module, "__all__", errors)]


def members(thing: Any) -> list[tuple[str, Any]]:
    """Return a class's public methods and properties but for those of a host's own class."""
    bases = thing.__mro__ if inspect.isclass(thing) else ()
    ours = [base for base in bases if base.__module__.startswith("toastrack")]
    theirs = [base for base in bases if base not in ours]
    found: dict[str, Any] = {}
    for base in ours:
        for name, member in vars(base).items():
            member = getattr(member, "__func__", member)  # of a class method
            is_member = isinstance(member, property) or inspect.isfunction(member)
            if is_member and name[0] != "_" and not any(hasattr(host, name) for host in theirs):
                found.setdefault(name, member)
    return list(found.items())


def signature(name: str, thing: Any) -> str:
    """Return how something is called, as an indented block; nothing if it is not ours to say."""
    code = thing.__init__ if inspect.isclass(thing) else inspect.unwrap(thing)
    is_error = inspect.isclass(thing) and issubclass(thing, Exception)
    if is_error or not inspect.isfunction(code) or not code.__module__.startswith("toastrack"):
        return ""
    parameters = list(inspect.signature(code).parameters.values())
    arguments = [_argument(item) for item in parameters if item.name not in ("self", "cls")]
    kinds = [item.kind for item in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        arguments.insert(len(arguments) - kinds.count(inspect.Parameter.KEYWORD_ONLY), "*")
    end = ")" if inspect.isclass(thing) else f") -> {_plain(code.__annotations__['return'])}"
    start = f"    {'await ' if inspect.iscoroutinefunction(code) else ''}{name}("
    line = f"{start}{', '.join(arguments)}{end}"
    if len(line) > 100:
        line = "\n".join([start, *(f"        {item}," for item in arguments), f"    {end}"])
    return line + "\n\n"


def _argument(item: inspect.Parameter) -> str:
    shown = _plain(str(item).replace(repr(item.annotation), str(item.annotation)))
    return shown.replace("<factory>", "{}")


def _plain(annotation: str) -> str:
    return re.sub(r"\barrays\.", "", annotation)


def markdown(thing: Any) -> str:
    """Return a docstring as Markdown: what it says of arguments, fields and errors as lists."""
    doc = (inspect.getdoc(thing) or "").replace("``", "`")
    head, *sections = re.split(r"^(\w+):\n(?=    )", doc, flags=re.MULTILINE)
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        items = re.sub(r"^    (\w+): ", r"- `\1`: ", body, flags=re.MULTILINE)
        head += f"**{title}**\n\n" + re.sub(r"^ {8}", "  ", items, flags=re.MULTILINE)
    return head


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
