"""The errors: what they are, what they say, and that they travel."""

import ast
import importlib
import inspect
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from toastrack import EmbeddingSpace, errors
from toastrack.errors import (
    MissingExtraError,
    SpaceMismatchError,
    ToastrackError,
    needs_extra,
)
from toastrack.utils.install import install_command


def test_a_missing_extra_is_a_missing_module() -> None:
    error = MissingExtraError("qdrant_client", "qdrant")
    assert isinstance(error, ModuleNotFoundError)
    assert isinstance(error, ToastrackError)
    assert error.name == "qdrant_client"
    assert error.extra == "qdrant"


def test_a_missing_extra_says_how_to_install_it() -> None:
    command = install_command("llama-index")
    message = str(MissingExtraError("llama_index", "llama-index"))
    assert message == f"'llama_index' is not installed. Run: {command}"
    assert "[llama-index]" in command
    several = str(MissingExtraError("psycopg, openvino", "postgres,openvino"))
    assert several.startswith("'psycopg', 'openvino' are not installed. Run: pip install ")
    assert "[postgres,openvino]" in several
    hint = str(MissingExtraError("pypdf", "files", "a.pdf needs it."))
    assert hint == f"a.pdf needs it. 'pypdf' is not installed. Run: {install_command('files')}"


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'toastrack[local,qdrant]'"),
        ("damaged", "pip install 'toastrack[local,qdrant]'"),
        ({"url": "FOLDER", "dir_info": {}}, "pip install 'FOLDER[local,qdrant]'"),
        (
            {"url": "FOLDER", "dir_info": {"editable": True}},
            "pip install -e 'FOLDER[local,qdrant]'",
        ),
        (
            {"url": "file:///no/longer/there", "dir_info": {}},
            "pip install 'toastrack[local,qdrant]'",
        ),
        (
            {"url": "https://h/t.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install 'toastrack[local,qdrant] @ git+https://h/t.git@abc'",
        ),
        (
            {"url": "https://h/t.whl", "archive_info": {}},
            "pip install 'toastrack[local,qdrant] @ https://h/t.whl'",
        ),
    ],
)
def test_an_extra_is_installed_from_where_the_package_came(
    origin: dict[str, Any] | str | None,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "a clone"
    written = json.dumps(origin) if isinstance(origin, dict) else origin or ""
    written = written.replace("FOLDER", folder.as_uri())
    info = tmp_path / "toastrack-0.1.0.dist-info"
    info.mkdir()
    folder.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toastrack\nVersion: 0.1.0\n")
    if origin is not None:
        (info / "direct_url.json").write_text(written)
    monkeypatch.syspath_prepend(tmp_path)
    assert install_command("local", "qdrant") == command.replace("FOLDER", str(folder))


def test_the_install_command_is_written_down_once() -> None:
    sources = [Path(errors.__file__).parent, *Path(errors.__file__).parents[2].glob("integrations")]
    found = [
        path.name
        for source in sources
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        # The splitters of LangChain's are no extra of ours, nor is a newer client than is there.
        and re.search(r"pip install (?!langchain-text-splitters|-U qdrant-client)", node.value)
    ]
    assert set(found) == {"install.py"}


def test_a_missing_extra_pickles() -> None:
    error = pickle.loads(pickle.dumps(MissingExtraError("qdrant_client", "qdrant")))
    assert isinstance(error, MissingExtraError)
    assert (error.name, error.extra) == ("qdrant_client", "qdrant")
    assert str(error) == str(MissingExtraError("qdrant_client", "qdrant"))


def test_a_space_mismatch_pickles() -> None:
    space = EmbeddingSpace("a", "b", "c", "query: ", "", 8)
    error = SpaceMismatchError("other", stored=space, differences={"weights": ("a", "b")})
    copied = pickle.loads(pickle.dumps(error))
    assert str(copied) == "other"
    assert (copied.stored, copied.ours) == (space, None)
    assert copied.differences == {"weights": ("a", "b")}


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_a_missing_package_names_its_extra(module: str) -> None:
    with pytest.raises(MissingExtraError) as caught, needs_extra("local", "no_such_package"):
        importlib.import_module(module)
    assert caught.value.name == "no_such_package"
    assert caught.value.extra == "local"
    assert caught.value.__suppress_context__


def test_a_skip_guard_sees_a_missing_extra() -> None:
    with pytest.raises(ImportError), needs_extra("local", "no_such_package"):
        importlib.import_module("no_such_package")


def test_a_package_that_was_not_named_keeps_its_own_error() -> None:
    with pytest.raises(ModuleNotFoundError) as caught, needs_extra("local", "torch"):
        importlib.import_module("no_such_package")
    assert not isinstance(caught.value, MissingExtraError)
    assert caught.value.name == "no_such_package"


def test_any_of_several_packages_is_translated() -> None:
    with pytest.raises(MissingExtraError), needs_extra("local", "torch", "no_such_package"):
        importlib.import_module("no_such_package")


def test_a_package_that_is_there_but_broken_keeps_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text("import its_own_dependency", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught, needs_extra("local", "broken_package"):
        importlib.import_module("broken_package")
    assert not isinstance(caught.value, MissingExtraError)
    assert caught.value.name == "its_own_dependency"


def test_a_package_that_is_there_without_one_of_its_parts_is_not_called_missing() -> None:
    with pytest.raises(ModuleNotFoundError) as caught, needs_extra("local", "json"):
        importlib.import_module("json.no_such_part")
    assert not isinstance(caught.value, MissingExtraError)


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), needs_extra("local", "torch"):
        _ = 1 / 0


def test_a_missing_extra_inside_another_keeps_its_own_name() -> None:
    with (
        pytest.raises(MissingExtraError, match="postgres"),
        needs_extra("local", "psycopg"),
    ):
        raise MissingExtraError("psycopg", "postgres")


def test_every_error_is_in_the_tree_and_in_its_drawing() -> None:
    drawn = set(re.findall(r"[A-Z]\w+(?:Error|Warning)\b", inspect.getdoc(errors) or ""))
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert defined <= drawn
    assert {name for name in drawn if not hasattr(errors, name)} <= {
        "ModuleNotFoundError",
        "ValueError",
        "UserWarning",
    }
    for name in defined - {"TruncationWarning", "GuessWarning", "UnprovenWarning"}:
        assert issubclass(getattr(errors, name), ToastrackError)
