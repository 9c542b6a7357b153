"""The pages of the documentation, and how a block of one runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import metadata
from io import StringIO
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_PROGRAM = Path(sys.executable).with_name("toastrack")
# What the page's reader types before there is a toastrack to run, or beside it.
_NOT_RUN = ("docker", "export", "git", "python3", "uvicorn")


def name_of(page: Path) -> str:
    """Name a page as its readers do."""
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """One block of a page; ``language`` is all that stands behind the three backticks."""

    page: Path
    line: int
    language: str
    code: str
    shown: str = ""
    """What the page says that a command prints: the text block right behind it."""

    @property
    def is_python(self) -> bool:
        """It is Python, whether it needs a server or not."""
        return self.language in ("python", "python server")

    @property
    def at_its_line(self) -> str:
        """The code behind so many empty lines that errors name the page's own."""
        return "\n" * (self.line - 1) + self.code

    def where(self, replacements: Mapping[str, str]) -> Block:
        """Return the block with other addresses than those on the page."""
        code = self.code
        for named, used in replacements.items():
            code = code.replace(named, used)
        return replace(self, code=code)

    def run(self, names: dict[str, object]) -> None:
        """Run it, and compare what it prints with what the page shows."""
        if self.is_python:
            self._run_python(names)
        elif self.language == "bash":
            self._run_commands()

    def _run_python(self, names: dict[str, object]) -> None:
        printed = StringIO()
        with redirect_stdout(printed):
            exec(compile(self.at_its_line, self.page, "exec", dont_inherit=True), names)
        shown = "\n".join(re.findall(r"^ *# -> ?(.*)$", self.code, re.MULTILINE))
        self._check(printed.getvalue().removesuffix("\n"), shown)

    def _run_commands(self) -> None:
        printed = ""
        for line in self.code.splitlines():
            words = shlex.split(line, comments=True)
            if words:
                printed = _run_command(words)
        if self.shown and _any_numbers(printed) != _any_numbers(self.shown):
            self._check(printed, self.shown)

    def _check(self, printed: str, shown: str) -> None:
        where = f"{name_of(self.page)}, block at line {self.line}"
        assert printed == shown, f"{where}: printed\n{printed}\nand shows\n{shown}"


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    found: list[Block] = []
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(page, line, match["language"], match["code"], _shown(text, match.end())))
    return found


def _shown(text: str, end: int) -> str:
    following = _BLOCK.match(text, end + 2) if text.startswith("\n\n", end) else None
    return following["code"] if following and following["language"] == "text" else ""


def _run_command(words: list[str]) -> str:
    program, *arguments = words
    if program == "toastrack":
        return _run_toastrack(arguments)
    if program == "make":
        subprocess.run(["make", "-n", *arguments], cwd=ROOT, check=True, capture_output=True)
    elif program == "pip":
        extras = {extra for word in words for extra in _extras(word)}
        assert extras <= set(metadata("toastrack").get_all("Provides-Extra") or []), words
    elif program in ("python", ".venv/bin/python"):
        named = [word for word in arguments if "/" in word]
        assert named, words
        assert all((ROOT / word).exists() for word in named), words
    elif program == "pytest":
        # It runs in a test of its own, over the page's own code.
        assert (ROOT / arguments[0]).exists(), words
    else:
        assert program in _NOT_RUN, words
    return ""


def _extras(word: str) -> Iterator[str]:
    match = re.fullmatch(r"\.\[(.*)\]", word)
    if match:
        yield from match[1].split(",")


def _run_toastrack(arguments: list[str]) -> str:
    if arguments[0] in ("ingest", "search") and not {"--to", "--in"} & set(arguments):
        # Not in the home of who runs the tests.
        arguments = [*arguments, "--to" if arguments[0] == "ingest" else "--in", _DEFAULT_STORE]
    elif arguments == ["list"]:
        arguments.append(_DEFAULT_STORE)
    result = subprocess.run([_PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


_DEFAULT_STORE = "postgres+embedded:data"


def _any_numbers(text: str) -> list[str]:
    """Return the words of a text; its numbers are another machine's or another model's."""
    return re.sub(r"\d+([.,]\d+)*", "0", text).split()
