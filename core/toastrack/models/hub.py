"""What the hub's own errors mean, in one sentence, and what to do about them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from socket import gaierror
from typing import Any

from toastrack.errors import ModelError
from toastrack.models.known_models import known_model, nearest_name


@contextmanager
def hub_errors(model: str, revision: str | None) -> Iterator[None]:
    """Say in one sentence what the hub's own errors mean and what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # Its bases are the errors of the HTTP library that this version of the hub's client uses.
    client_errors: tuple[type[Any], ...] = (OSError, *HfHubHTTPError.__bases__)
    try:
        yield
    except GatedRepoError:
        raise ModelError(
            f"{model!r} asks for an agreement on the hub. Accept it on its page and set HF_TOKEN."
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"There is no model {model!r} on the hub. {_did_you_mean(model)}Check the spelling, set "
            "HF_TOKEN if it is private, or give a local folder."
        ) from None
    except RevisionNotFoundError:
        raise ModelError(
            f"{model!r} has no revision {revision!r} on the hub. Leave it out for the newest."
        ) from None
    except HFValidationError:
        raise ModelError(
            f"{model!r} is neither a folder nor a hub name such as "
            "'mixedbread-ai/mxbai-embed-large-v1'."
        ) from None
    except client_errors as error:
        raise ModelError(
            f"{model!r} {_what_happened(error)} {_did_you_mean(model)}".rstrip()
        ) from error


def _did_you_mean(model: str) -> str:
    nearest = nearest_name(model)
    return "" if nearest in (None, model) or known_model(model) else f"Did you mean {nearest!r}? "


def _what_happened(error: BaseException) -> str:
    """Say what stands between us and the hub's files, and what to do about it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    not_here = isinstance(error, LocalEntryNotFoundError)
    cause = error.__cause__ if not_here and error.__cause__ is not None else error
    reason = getattr(cause, "reason", cause)  # a URLError wraps what happened
    network = not isinstance(reason, OSError) or isinstance(
        reason, (ConnectionError, TimeoutError, gaierror)
    )
    response = getattr(cause, "response", None)
    if not network and isinstance(reason, OSError) and reason.errno is not None:
        return (
            f"cannot be kept in or read from the hub's cache: {reason}. Mend that, or set HF_HOME "
            "to another folder."
        )
    if constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    elif response is not None:
        return (
            f"is not in the local cache and the hub answered {response.status_code}. Try again "
            "later, or give a local folder."
        )
    elif network or not_here:
        why = f"the hub cannot be reached ({reason})"
    else:
        return f"cannot be downloaded: {reason}. Try again, or give a local folder."
    way_out = "Unset it" if constants.HF_HUB_OFFLINE else "Connect once"
    return f"is not in the local cache and {why}. {way_out} to download it, or give a local folder."


def check_reachable() -> None:
    """Raise ``OSError`` at once where there is no network: the hub's client retries for 23 s."""
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()
    except URLError as error:
        # Anything but a host that is not there is for the hub's own client to judge.
        if isinstance(error.reason, (gaierror, ConnectionError)):
            raise
    except OSError:
        return
