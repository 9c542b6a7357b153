"""What the command line draws on a terminal, and that it draws nothing elsewhere."""

from __future__ import annotations

import pytest

from toastrack.cli.output import progress_bar, share_bar, working
from toastrack.ingestion.ingest import Progress
from toastrack.records import Report


@pytest.fixture
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.mark.usefixtures("_terminal")
def test_a_share_is_shown_in_percent(capsys: pytest.CaptureFixture[str]) -> None:
    with share_bar("building the index") as told:
        told(0.43)
    out, err = capsys.readouterr()
    assert out == ""
    assert "building the index" in err
    assert " 43%" in err


@pytest.mark.usefixtures("_terminal")
def test_without_a_share_no_percentage_is_made_up(capsys: pytest.CaptureFixture[str]) -> None:
    with share_bar("building the index"):
        pass
    err = capsys.readouterr().err
    assert "building the index" in err
    assert "%" not in err


@pytest.mark.usefixtures("_terminal")
def test_an_ingest_shows_bytes_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("embedding") as told:
        told(Progress(Report(embedded=7, unchanged=5), 25, 100))
    err = capsys.readouterr().err
    assert " 25%" in err
    assert "7 embedded, 5 unchanged" in err


@pytest.mark.usefixtures("_no_terminal")
def test_nothing_moves_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with share_bar("building the index") as told:
        told(0.43)
    with working("loading"):
        pass
    with progress_bar("embedding") as move:
        move(Progress(Report(), 1, 2))
    assert capsys.readouterr() == ("", "")
