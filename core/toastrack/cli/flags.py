"""The library's errors name arguments of Python; here they get the names of the command line."""

from __future__ import annotations

import re
import shlex

_FLAGS = {
    "adopt": "toastrack ingest --adopt",  # the other commands only look
    "allow_http": "--allow-http",
    "base_url": "--base-url",
    "calibrate": "--calibrate",
    "column_types": "--column-type",
    "delimiter": "--delimiter",
    "device": "--device",
    "encoding": "--encoding",
    "force": "--force",
    "host": "--host",
    "id_column": "--id-column",
    "id_from": "--id-from",
    "maintenance_work_mem": "--index-memory",
    "metadata_columns": "--metadata-column",
    "names": "--name",
    "overlap": "--overlap",
    "port": "--port",
    "precision": "--precision",
    "prefix": "--prefix",
    "prune": "--prune",
    "sample": "--sample",
    "skip_bad": "--skip-bad",
    "source": "--source",
    "text": "--text",
    "text_column": "--text-column",
    "vector_column": "--vector-column",
}
_ARGUMENT = re.compile(
    rf"\b({'|'.join(_FLAGS)})=(?:True\b|(?P<quote>['\"])(.*?)(?P=quote)|(-?\d+))?"
)


def with_flags(message: str) -> str:
    """Write ``id_from='content'`` as ``--id-from content``, and so on."""
    return _ARGUMENT.sub(_flag, message)


def _flag(argument: re.Match[str]) -> str:
    value = argument[3] or argument[4]
    if argument[1] == "adopt" and value:
        return f"{_FLAGS['adopt']}-{value}"
    return f"{_FLAGS[argument[1]]} {shlex.quote(value)}" if value else _FLAGS[argument[1]]
