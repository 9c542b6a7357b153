"""What a type says it is can be looked up while the program runs, as pydantic and FastAPI do."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_type_hints

import numpy as np
import pytest
from numpy.typing import NDArray

import toastrack
from toastrack import Embedder, Match, Record, Report, errors
from toastrack.stores.protocol import Store
from toastrack.utils import arrays


def public_things() -> Iterator[Any]:
    """Everything with annotations that a user of the package can lay hands on."""
    exported = [getattr(toastrack, name) for name in toastrack.__all__]
    owners = [thing for thing in exported if inspect.isclass(thing) or inspect.isfunction(thing)]
    owners.append(Store)
    owners += [value for value in vars(errors).values() if inspect.isclass(value)]
    for owner in owners:
        yield pytest.param(owner, id=owner.__qualname__)
        if not inspect.isclass(owner):
            continue
        for name, value in vars(owner).items():
            function = value.fget if isinstance(value, property) else value
            function = getattr(function, "__func__", function)
            # What NamedTuple generates is in no module.
            if inspect.isfunction(function) and function.__module__ in sys.modules:
                yield pytest.param(function, id=f"{owner.__qualname__}.{name}")


@pytest.mark.parametrize("thing", list(public_things()))
def test_every_public_annotation_resolves(thing: Any) -> None:
    get_type_hints(thing)


def test_arrays_are_numpys() -> None:
    assert get_type_hints(Embedder.embed_query)["return"] == NDArray[np.float32]
    assert get_type_hints(Embedder.aembed_documents)["return"] == NDArray[np.float32]
    assert get_type_hints(Record)["vector"] == arrays.Vector | None


def test_looking_is_what_imports_numpy() -> None:
    code = (
        "import sys, typing, toastrack\n"
        "print('numpy' in sys.modules)\n"
        "typing.get_type_hints(toastrack.Record)\n"
        "print('numpy' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["False", "True"], result.stderr


def test_an_unknown_array_type_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'FloatMatrices'"):
        _ = arrays.FloatMatrices  # type: ignore[attr-defined]


def test_pydantic_reads_records_and_matches() -> None:
    pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed")
    records = pydantic.TypeAdapter(list[Record])
    read = records.validate_json('[{"id": "a", "text": "rye", "vector": [1, 0]}]')
    assert read == [Record("a", "rye")]
    assert read[0].vector == [1.0, 0.0]
    ready = Record("a", "rye", vector=np.ones(2))
    assert records.validate_python([ready]) == [ready]
    assert pydantic.TypeAdapter(Match).validate_python({"id": "a", "text": "", "score": 1}).score
    assert pydantic.TypeAdapter(Report).json_schema()["type"] == "object"
