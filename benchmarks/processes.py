"""Run Python code in a fresh process and learn how much memory it took."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

# Not wait4's ru_maxrss: a child begins with what its parent had when it was started.
# https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
TELL = """
def _tell_peak():
    import sys
    try:
        with open("/proc/self/status") as file:
            peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    except OSError:
        import resource
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    with open({path!r}, "w") as file:
        file.write(str(peak * 1_024))

import atexit
atexit.register(_tell_peak)
"""


def peak_of(code: str, *words: str, lines: Iterable[bytes] = ()) -> float:
    """Run code to its end and return its peak resident memory in MB.

    ``words`` are its arguments and ``lines`` its standard input. Raises ``RuntimeError`` with the
    last line it complained with, if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peak"
        with (Path(folder) / "stderr").open("w+b") as stderr:
            child = subprocess.Popen(
                [sys.executable, "-c", TELL.format(path=str(path)) + code, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
            try:
                assert child.stdin is not None
                with child.stdin as pipe:
                    pipe.writelines(lines)
            except BrokenPipeError:
                pass  # It ended early, and says below why.
            if child.wait():
                stderr.seek(0)
                said = stderr.read().decode(errors="replace").strip().splitlines() or ["nothing"]
                raise RuntimeError(f"ended with {child.returncode} and said: {said[-1]}")
        return float(path.read_text()) / 1e6
