"""Code in a process of its own."""

from __future__ import annotations

import atexit
import importlib
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]
"""Calls the program with words; returns exit code, output and errors."""

# Far more than any of them takes, so that a busy machine is no failure.
SECONDS = 300
if "forkserver" in multiprocessing.get_all_start_methods():
    multiprocessing.set_forkserver_preload(["torch", "sentence_transformers", "toastrack"])


def run(code: str, **environment: str) -> str:
    """Run code in a process of its own and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=SECONDS,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_warm(code: str, **environment: str) -> str:
    """Do as ``run`` does, without the seconds that importing torch takes.

    Nothing for a test of what an interpreter imports, or of what it does when it ends.
    """
    with Warm(code, **environment) as program:
        return program.printed()


def run_script(path: Path, *arguments: str | Path, **environment: str) -> str:
    """Run a program that is written in Python, as ``run_warm`` runs code."""
    with Warm(_SCRIPT, str(path), *map(str, arguments), **environment) as program:
        return program.printed()


_SCRIPT = """
import os, runpy, sys
del sys.argv[0]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Warm:
    """Code in a fork of a process that has imported torch and done nothing else.

    The first one starts that process, which ends with the one that runs the tests.
    """

    def __init__(self, code: str, *arguments: str, **environment: str) -> None:
        if "forkserver" not in multiprocessing.get_all_start_methods():
            pytest.skip("this system cannot forkserver")
        context: Any = multiprocessing.get_context("forkserver")
        self._folder = TemporaryDirectory()
        self._files = [Path(self._folder.name) / name for name in ("out", "err")]
        self._process: Any = context.Process(
            target=_execute,
            args=(code, arguments, os.environ | environment, self._files),
        )
        self._process.start()

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """Which process it is."""
        pid = self._process.pid
        assert isinstance(pid, int)
        return pid

    def kill(self) -> None:
        """End it with SIGKILL, if it has not ended yet, and wait until it is gone."""
        self._process.kill()
        self._process.join()

    def said_until(self, pattern: str) -> re.Match[str]:
        """Wait until what it says on standard error has this in it."""
        end = time.monotonic() + SECONDS
        while True:
            ended = self._process.exitcode is not None
            said = self._files[1].read_text(encoding="utf-8") if self._files[1].exists() else ""
            found = re.search(pattern, said)
            if found is not None:
                return found
            assert not ended, said
            assert time.monotonic() < end, said
            self._process.join(0.02)

    def printed(self) -> str:
        """Let it end by itself and return what it printed."""
        status, printed, errors = self.finish()
        assert status == 0, errors
        return printed

    def finish(self) -> tuple[int, str, str]:
        """Let it end by itself; return its status, what it printed and its errors."""
        self._process.join(SECONDS)
        assert self._process.exitcode is not None, "it did not end"
        printed, errors = (path.read_text(encoding="utf-8") for path in self._files)
        return self._process.exitcode, printed, errors


def _execute(
    code: str, arguments: tuple[str, ...], environment: dict[str, str], files: list[Path]
) -> None:
    for number, path in enumerate(files, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    # Those of the process that this is a fork of are older, and the hub's client has read them.
    os.environ.clear()
    os.environ.update(environment)
    if "huggingface_hub.constants" in sys.modules:
        importlib.reload(sys.modules["huggingface_hub.constants"])
    sys.argv = ["-c", *arguments]
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    finally:
        # A process that multiprocessing started leaves them out.
        atexit._run_exitfuncs()


def toastrack(*arguments: str) -> str:
    """Run the command line and return what it printed."""
    program = Path(sys.executable).with_name("toastrack")
    result = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout
