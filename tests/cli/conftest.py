"""The program as its users start it, and what they give it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from programs import Run

from toastrack import cli


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the program's entry point; return exit code, output and errors."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["toastrack", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "rye.md").write_text("# Rye\n\nRye bread keeps fresh.\n")
    (folder / "salt.md").write_text("# Salt\n\nSalt in the dough.\n")
    return folder


@pytest.fixture
def url(postgres_dsn: str, schema: str) -> str:
    """A table of the test's own on the server that all tests use."""
    if not postgres_dsn.startswith(("postgres://", "postgresql://")):
        pytest.skip("TOASTRACK_POSTGRES_DSN is no URL, which the command line wants")
    return f"{postgres_dsn}{'&' if '?' in postgres_dsn else '?'}table=docs&schema={schema}"


@pytest.fixture
def own_url(tmp_path: Path) -> str:
    """A folder of the test's own, whose server comes and goes with the program."""
    return f"postgres+embedded:{tmp_path / 'pg'}?table=docs"
