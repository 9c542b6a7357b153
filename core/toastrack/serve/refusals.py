"""What a request is told that is not answered, in OpenAI's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toastrack.utils.text import shown

_KINDS = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class Refusal(Exception):
    """A request that is not answered: a status, what is wrong with which field, and what to do."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def content(self) -> dict[str, Any]:
        """Return the error as OpenAI's API writes it."""
        kind = _KINDS.get(self.status, "invalid_request_error")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


def wrong(param: str, message: str) -> Refusal:
    """Say what is wrong with one field of a request."""
    return Refusal(400, message, param=param, code=f"invalid_{param}")


def wrong_value(param: str, value: object, expected: str) -> Refusal:
    """Say what a field takes instead of what stands there."""
    return wrong(param, f"{param} is {shown(value)}. It takes {expected}.")
