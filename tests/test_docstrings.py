"""Docstrings teach: examples run, errors are named, fields are explained."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from chroma_server import close_connections

from toastrack import Embedder, Match, Record, Report, errors, ingest
from toastrack.stores.protocol import Store

TESTS = Path(__file__).parent
# What each public package cannot be imported without.
PACKAGES = {
    "toastrack": "toastrack",
    "toastrack.errors": "toastrack",
    "toastrack_chroma": "chromadb",
    "toastrack_langchain": "langchain_core",
    "toastrack_llama_index": "llama_index",
    "toastrack_postgres": "psycopg",
    "toastrack_qdrant": "qdrant_client",
}
STORES = ["ChromaStore", "PostgresStore", "QdrantStore"]
STORES += [f"Async{name}" for name in STORES]


def public_things() -> dict[str, Any]:
    """Everything that users import, by name."""
    found: dict[str, Any] = {}
    for name, needed in PACKAGES.items():
        if find_spec(needed) is not None:
            package = importlib.import_module(name)
            classes = [key for key, thing in vars(package).items() if inspect.isclass(thing)]
            for public in getattr(package, "__all__", classes):
                thing = getattr(package, public)
                if (getattr(thing, "__module__", None) or "").startswith("toastrack"):
                    found[public] = thing
    return found


THINGS = public_things()
CLASSES = {name: thing for name, thing in THINGS.items() if inspect.isclass(thing)}


def members(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield a class's public methods and properties, but for those of a host's own class."""
    for name, member in inspect.getmembers(thing) if inspect.isclass(thing) else ():
        function = member.fget if isinstance(member, property) else member
        if not name.startswith("_") and (inspect.isroutine(function)):
            code = inspect.unwrap(getattr(function, "__func__", function))
            if (getattr(code, "__module__", None) or "").startswith("toastrack"):
                yield name, member


# -- examples -----------------------------------------------------------------------------------


def examples(thing: Any) -> list[str]:
    """Return the code in a docstring: what is indented and not of a section such as "Args:"."""
    text = re.split(r"^\w+:\n(?=    )", inspect.getdoc(thing) or "", flags=re.MULTILINE)[0]
    found = re.findall(r"(?:^(?:    .*)?\n)+", f"{text}\n", re.MULTILINE)
    return [textwrap.dedent(code) for code in found if code.strip()]


def with_examples() -> Iterator[Any]:
    for name, thing in THINGS.items():
        for path, documented in [(name, thing), *((f"{name}.{n}", m) for n, m in members(thing))]:
            if examples(documented):
                yield pytest.param(documented, id=path)


@pytest.fixture
def names(newcomer: Path) -> Iterator[dict[str, Any]]:
    """What the introduction of the reference says that examples take for granted."""
    qdrant_client = pytest.importorskip(
        "qdrant_client", reason="the extra 'qdrant' is not installed"
    )
    (newcomer / "handbook").symlink_to("examples/handbook/keeping", target_is_directory=True)
    embedder = Embedder()
    guide = newcomer / "examples" / "handbook" / "faults" / "troubleshooting-guide.md"
    with ExitStack() as stack:
        client = qdrant_client.QdrantClient(":memory:")
        stack.callback(client.close)
        store = stack.enter_context(THINGS["QdrantStore"](client, "bread", embedder=embedder))
        store.upsert([Record("rye", "Rye bread keeps for a week."), Record("salt", "Salt it.")])
        yield {
            **THINGS,
            "__name__": "example",
            "chromadb": pytest.importorskip("chromadb", reason="chromadb is not installed"),
            "QdrantClient": qdrant_client.QdrantClient,
            "AsyncQdrantClient": qdrant_client.AsyncQdrantClient,
            "client": client,
            "embedder": embedder,
            "store": store,
            "text": guide.read_text(encoding="utf-8"),
        }


def where_it_runs_here(code: str, request: pytest.FixtureRequest) -> str:
    """Name the servers that there are instead of those on the page."""
    if "postgresql://" in code:
        dsn, schema = (request.getfixturevalue(name) for name in ("postgres_dsn", "schema"))
        here = f"{dsn}{'&' if '?' in dsn else '?'}options=-csearch_path%3D{schema},public"
        code = code.replace("postgresql://localhost/shop", here)
    if 'host="localhost", port=8000' in code:
        # First, so that it comes last: the database is deleted over one of the connections.
        request.addfinalizer(close_connections)
        host, port, database = request.getfixturevalue("chroma_database")
        here = f'host="{host}", port={port}, database="{database}"'
        code = code.replace('host="localhost", port=8000', here)
    return code.replace('QdrantClient("localhost")', 'QdrantClient(":memory:")')


@pytest.fixture
def loaves(postgres_dsn: str, schema: str, names: dict[str, Any]) -> Iterator[Any]:
    """A connection that knows an embedder, to a database with a table of loaves."""
    psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    with psycopg.connect(postgres_dsn, options=f"-c search_path={schema},public") as connection:
        connection.execute("create table loaves (id bigint, text text, embedding halfvec(384))")
        THINGS["record_column_space"](connection, "loaves", "embedding", names["embedder"])
        THINGS["register_embedder"](connection, names["embedder"])
        yield connection
        connection.rollback()


@pytest.mark.parametrize("documented", list(with_examples()))
def test_an_example_runs(
    documented: Any, names: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    for code in examples(documented):
        if "connection" in code:
            names["connection"] = request.getfixturevalue("loaves")
        code = where_it_runs_here(code, request)
        compiled = compile(code, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        coroutine = eval(compiled, names)
        if inspect.iscoroutine(coroutine):
            asyncio.run(coroutine)


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_class_has_an_example(name: str) -> None:
    assert examples(CLASSES[name]), f"{name} shows nobody how it is used"


# -- errors -------------------------------------------------------------------------------------

ERRORS = {name for name in vars(errors) if name.endswith("Error")}


def provoked(folder: str, names: Sequence[str]) -> set[tuple[str, str]]:
    """Return which of these functions raise what, as the tests of a folder say.

    Looked for is ``with pytest.raises(SomeError):`` around a call of one of them. A test that
    calls them by another name, as ``call()``, has them in a tuple or a dict.
    """
    found: set[tuple[str, str]] = set()
    for path in sorted((TESTS / folder).glob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
            for block in [node for node in ast.walk(function) if isinstance(node, ast.With)]:
                raised = {error for item in block.items for error in _expected(item.context_expr)}
                called = _called(block.body, function)
                found |= {(name, error) for name in called & set(names) for error in raised}
    return found


def _expected(context: ast.expr) -> set[str]:
    if not isinstance(context, ast.Call) or not context.args:
        return set()
    if ast.unparse(context.func) not in ("pytest.raises", "suppress"):
        return set()
    return {node.id for node in ast.walk(context.args[0]) if isinstance(node, ast.Name)} & ERRORS


def _called(body: Sequence[ast.stmt], function: ast.FunctionDef) -> set[str]:
    calls = [node.func for line in body for node in ast.walk(line) if isinstance(node, ast.Call)]
    named = {call.attr for call in calls if isinstance(call, ast.Attribute)}
    plain = {call.id for call in calls if isinstance(call, ast.Name)}
    if plain & {"call", "ask"}:
        tables = [
            node for node in ast.walk(function) if isinstance(node, (ast.Tuple, ast.Dict, ast.List))
        ]
        named |= {
            node.attr
            for table in tables
            for node in ast.walk(table)
            if isinstance(node, ast.Attribute)
        }
    return named | plain


def raises(thing: Any) -> set[str]:
    """Return the names under "Raises:" in a docstring."""
    sections = re.split(r"^(\w+):\n(?=    )", inspect.getdoc(thing) or "", flags=re.MULTILINE)[1:]
    named: Mapping[str, str] = dict(zip(sections[::2], sections[1::2], strict=True))
    return set(re.findall(r"^    (\w+):", named.get("Raises", ""), re.MULTILINE))


def errors_to_name() -> Iterator[Any]:
    """Yield what is documented, the names of the errors that tests provoke, and a name for it."""
    methods = [name for name, member in vars(Store).items() if inspect.isfunction(member)]
    methods = [name for name in methods if not name.startswith("_")]
    of_stores = {name: CLASSES[name] for name in STORES if name in CLASSES}
    tables: list[tuple[set[tuple[str, str]], dict[str, Any]]] = [
        (provoked("contract", methods), of_stores),
        (provoked("core", [name for name, _ in members(Embedder)]), {"Embedder": Embedder}),
    ]
    for found, classes in tables:
        for owner, cls in classes.items():
            for method in sorted({name for name, _ in found}):
                named = {error for name, error in found if name == method}
                yield pytest.param(getattr(cls, method), named, id=f"{owner}.{method}")
    named = {error for _, error in provoked("core", ["ingest"])}
    yield pytest.param(ingest, named, id="ingest")


@pytest.mark.parametrize(("documented", "named"), list(errors_to_name()))
def test_raises_names_what_the_tests_provoke(documented: Any, named: set[str]) -> None:
    assert named
    assert named <= raises(documented)


@pytest.mark.parametrize("name", THINGS)
def test_raises_names_errors_that_there_are(name: str) -> None:
    thing = THINGS[name]
    builtin = {"ModuleNotFoundError", "TypeError", "ValueError"}
    for documented in (thing, *(member for _, member in members(thing))):
        assert raises(documented) <= ERRORS | builtin


# -- fields -------------------------------------------------------------------------------------

# What a number counts or measures.
UNITS = ("cosine", "counted from 0", "documents", "records", "texts", "rows", "inputs", "seconds")


@pytest.mark.parametrize("cls", [Match, Record, Report], ids=lambda cls: cls.__name__)
def test_every_field_has_a_sentence_with_its_unit(cls: Any) -> None:
    for field in dataclasses.fields(cls):
        entry = re.search(
            rf"^    {field.name}: (.*(?:\n {{8}}.*)*)", inspect.getdoc(cls) or "", re.MULTILINE
        )
        assert entry, f"{cls.__name__}.{field.name} is not explained"
        assert entry[1][0].isupper(), entry[1]
        assert entry[1].endswith("."), entry[1]
        if "int" in str(field.type) or "float" in str(field.type):
            assert any(unit in entry[1] for unit in UNITS), f"{field.name}: {entry[1]}"
