"""The command that installs an extra where it is read."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

_PACKAGE = "toastrack"


def install_command(*extras: str) -> str:
    """Return what adds extras to the toastrack that runs here.

    It is installed from where it came from, as pip wrote it down: a folder such as a clone of the
    repository, another address, or by its name.
    """
    wanted = ",".join(extras)
    origin = _origin()
    url = str(origin.get("url", ""))
    if "dir_info" in origin:
        folder = Path(url2pathname(urlsplit(url).path))
        if folder.is_dir():
            is_editable = origin["dir_info"].get("editable", False)
            option = "-e " if is_editable else ""
            return f"pip install {option}{shlex.quote(f'{folder}[{wanted}]')}"
    elif "vcs_info" in origin:
        found = origin["vcs_info"]
        url = f"{found['vcs']}+{url}@{found['commit_id']}"
        return f"pip install {shlex.quote(f'{_PACKAGE}[{wanted}] @ {url}')}"
    elif url:
        return f"pip install {shlex.quote(f'{_PACKAGE}[{wanted}] @ {url}')}"
    return f"pip install {shlex.quote(f'{_PACKAGE}[{wanted}]')}"


def _origin() -> dict[str, Any]:
    """Return what the installer wrote down: https://packaging.python.org/specifications/direct-url/."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        written = distribution(_PACKAGE).read_text("direct_url.json")
        found = json.loads(written or "{}")
    except (PackageNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
