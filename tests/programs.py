"""Code in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(code: str, **environment: str) -> str:
    """Run code in a process of its own and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def toastrack(*arguments: str) -> str:
    """Run the command line and return what it printed."""
    program = Path(sys.executable).with_name("toastrack")
    result = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout
