"""Which engine runs a model: the one asked for, else the fastest that is installed and can."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from toastrack.errors import ModelError

EngineName = Literal["auto", "sentence-transformers", "openvino", "hosted"]
EngineKind = Literal["sentence-transformers", "openvino"]
Precision = Literal["auto", "float32", "bfloat16", "int8"]
RerankerPrecision = Literal["auto", "float32", "bfloat16"]
RunPrecision = Literal["float32", "bfloat16", "int8"]

# What the drivers of NVIDIA, of AMD and of Windows' own Linux put there.
_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def engines_to_try(engine: EngineName, device: str | None) -> tuple[EngineKind, ...]:
    """Return the engines to try, the best first, as far as that is known without the model.

    Raises ``ModelError`` if the engine asked for does not run on the device asked for.
    """
    if engine == "openvino":
        if not _is_cpu(device):
            raise ModelError(
                f"device={device!r} is nothing for engine='openvino', which runs on the CPU. Leave "
                "one of the two out."
            )
        return ("openvino",)
    if engine == "auto" and is_installed("openvino") and _is_cpu(device):
        if device is None and _has_gpu():
            return ("sentence-transformers",)
        return ("openvino", "sentence-transformers")
    return ("sentence-transformers",)


def is_installed(package: str) -> bool:
    """Tell whether a package is there, without importing it."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def best_extra(device: str | None = None) -> str:
    """Return the extra of an engine for a machine that has none: without torch where that goes."""
    import platform

    # https://pypi.org/project/openvino/#files
    machine = platform.machine().lower()
    is_there = (sys.platform, machine) in (
        ("linux", "x86_64"),
        ("linux", "aarch64"),
        ("darwin", "arm64"),
        ("win32", "amd64"),
    )
    return "openvino" if is_there and _is_cpu(device) else "local"


def _is_cpu(device: str | None) -> bool:
    return device is None or device.partition(":")[0] == "cpu"


def _has_gpu() -> bool:
    """Tell whether torch has a GPU to run on; torch takes seconds to ask, so only if it may."""
    if not is_installed("torch") or not _may_have_gpu():
        return False
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _may_have_gpu() -> bool:
    if sys.platform == "darwin":
        return True
    if sys.platform == "win32":
        from ctypes.util import find_library

        return find_library("nvcuda") is not None
    return any(Path(path).exists() for path in _GPU_FILES)
