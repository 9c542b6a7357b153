"""What a stack weighs on the disk: a library, its database driver and all that they bring.

    python benchmarks/installed.py

Nothing is installed for this: the files of the packages in this environment are added up, each
stack with everything that its metadata asks for here. What several stacks share counts in each.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from measuring import CannotRunError, Table, main, needs

STACKS = {
    "toastrack[openvino,postgres]": ["toastrack[openvino,postgres]"],
    "toastrack[local,postgres]": ["toastrack[local,postgres]"],
    "sentence-transformers, psycopg, pgvector": [
        "sentence-transformers",
        "psycopg[binary]",
        "pgvector",
    ],
    "langchain-huggingface, langchain-postgres": [
        # Without the extra it can run no model itself.
        "langchain-huggingface[full]",
        "langchain-postgres",
        "psycopg[binary]",
    ],
    "llama-index-embeddings-huggingface, -vector-stores-postgres": [
        "llama-index-embeddings-huggingface",
        "llama-index-vector-stores-postgres",
    ],
    "fastembed, psycopg, pgvector": ["fastembed", "psycopg[binary]", "pgvector"],
}
# Found beside every other package, and no stack's own.
IGNORED = {"pip", "setuptools"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part: there are none."""


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Add up each stack."""
    needs("packaging", "packaging")
    table = Table(
        "Installed size",
        {"": "", "MB": ",.0f", "without torch": ",.0f", "packages": "d", "heaviest": ""},
    )
    for name, wanted in STACKS.items():
        try:
            sizes = {found: size_of(found) for found in closure(wanted)}
        except CannotRunError as error:
            table.add(name, None, None, None, str(error))
            continue
        heaviest = sorted(sizes, key=lambda found: -sizes[found])[:4]
        table.add(
            name,
            sum(sizes.values()) / 1e6,
            sum(size for found, size in sizes.items() if found != "torch") / 1e6,
            len(sizes),
            ", ".join(f"{found} {sizes[found] / 1e6:,.0f}" for found in heaviest),
        )
        table.details[name] = sizes
    table.note(_about_torch())
    yield table


def closure(wanted: Iterable[str]) -> set[str]:
    """Return the names of all packages that requirements bring here, themselves included."""
    from packaging.requirements import Requirement

    waiting = [Requirement(text) for text in wanted]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        key = (_normal(requirement.name), frozenset(requirement.extras))
        if key in seen or key[0] in IGNORED:
            continue
        seen.add(key)
        for text in _distribution(requirement.name).requires or ():
            needed = Requirement(text)
            marker = needed.marker
            if marker is None or any(
                marker.evaluate({"extra": extra}) for extra in {"", *requirement.extras}
            ):
                waiting.append(needed)
    return {name for name, _ in seen}


def size_of(name: str) -> int:
    """Return the bytes of a package's files on the disk."""
    if name == "toastrack":
        # An editable install lists none of its files.
        roots = [Path(__file__).parents[1] / root for root in ("core", "integrations")]
        files = [path for root in roots for path in root.rglob("*.py")]
        return sum(path.stat().st_size for path in files)
    paths = {Path(str(file.locate())) for file in _distribution(name).files or ()}
    return sum(path.stat().st_size for path in paths if path.is_file())


def _distribution(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise CannotRunError(f"not measured: {name} is not installed") from None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _about_torch() -> str:
    try:
        version = distribution("torch").version
    except PackageNotFoundError:
        return "torch is not installed here."
    if version.endswith("+cpu"):
        return (
            f"torch here is {version}, the build without CUDA. What `pip install` brings on Linux "
            "by default is about 3 GB more, wherever torch is part of a stack."
        )
    return f"torch here is {version}; its CUDA libraries, if any, count in."


if __name__ == "__main__":
    main(__doc__, arguments, tables)
