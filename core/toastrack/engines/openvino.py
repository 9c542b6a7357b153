"""The engine that runs a model's OpenVINO or ONNX file on the CPU, without torch."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from toastrack.engines.padding import Padded, padded
from toastrack.errors import ModelError, needs_extra
from toastrack.models.config import ModelConfig
from toastrack.models.openvino_files import NOTE_FILE, run_file, why_not
from toastrack.models.tokenizer import Tokenizer, Tokens, check_token_ids
from toastrack.utils import arrays
from toastrack.utils.forks import after_fork
from toastrack.utils.install import install_command

if TYPE_CHECKING:
    import openvino

# With two threads a padded token takes as long from 512 to 4,096 (BERT-large: within 4 %; MiniLM:
# within the noise of the measurement). So the smallest: it pads least, and a waiting query is let
# in soonest. Each batch is divided among all threads, so more of them are given as much each, up
# to what was measured; with more than two nothing was.
_BATCH_TOKENS = 512
_THREADS = 2
_MOST_BATCH_TOKENS = 4_096

_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
_HIDDEN = ("last_hidden_state", "token_embeddings")
_RELEASE = (2025, 3)
# What a file in int8 leaves to other numbers is float32: in bfloat16 it was no faster (MiniLM), and so
# the vectors are the same on every processor.
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
_SMALL_NUMBERS = {"i8", "u8", "i4", "u4", "nf4", "f8e4m3", "f8e5m2"}


class CompiledModel:
    """Holds one compiled model with its tokenizer and feeds it token ids.

    ``outputs`` are the names that its output can have, and ``rank`` how many axes that has.
    """

    name = "openvino"
    batch_texts: int | None = None
    may_be_left = False

    def __init__(
        self, config: ModelConfig, *, precision: str, outputs: Collection[str], rank: int
    ) -> None:
        folder = config.folder
        path, reason = run_file(folder), why_not(folder, config.task)
        if path is None or reason is not None:
            raise ModelError(f"{str(folder)!r} cannot be run by OpenVINO: {reason or 'no file'}.")
        self.tokenizer = Tokenizer.from_folder(
            folder, lower_case=config.lower_cases, extra="openvino"
        )
        self._pad = config.pad_token_id
        self._tokens = config.vocabulary
        self._folder = folder
        compiled = _compile(path, precision)
        self._inputs, self._output = _ports(compiled, path, outputs, rank)
        self._request = compiled.create_infer_request()
        self.batch_tokens = _batch_tokens(compiled.get_property("INFERENCE_NUM_THREADS"))
        self._label = f"{self.name} on cpu in {precision}"

    def __str__(self) -> str:
        return self._label

    def infer(self, batch: Padded) -> Any:
        """Return the output, in memory that the next call will use again."""
        if self._tokens is not None:
            check_token_ids(int(batch.ids.max()), self._tokens, self._folder)
        outputs: Mapping[Any, Any] = self._request.infer(
            self.features(batch), share_inputs=True, share_outputs=True
        )
        return outputs[self._output]

    def features(self, batch: Padded) -> dict[str, Any]:
        """Return what goes into the model, by the names that it asks for."""
        return {name: value for name, value in batch.named().items() if name in self._inputs}

    def pad(self, batch: Sequence[Tokens]) -> Padded:
        """Return texts of one length, padded as this model wants it."""
        return padded(batch, pad=self._pad)


class OpenVinoEngine(CompiledModel):
    """Makes vectors with a compiled model; pools in float32."""

    def __init__(self, folder: Path, *, precision: str) -> None:
        config = ModelConfig(folder)
        super().__init__(config, precision=precision, outputs=_HIDDEN, rank=3)
        self._poolings = config.poolings()
        self._pools_prompt = config.pools_prompt()
        probe = self.run(self.prepare(["probe", "a longer probe"], 8), prompt="")
        self.dimensions = int(probe.shape[1])

    def prepare(self, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
        """Tokenise texts and cut them at ``max_tokens``."""
        return self.tokenizer.encode(texts, max_tokens)

    def run(self, batch: Sequence[Tokens], *, prompt: str) -> arrays.FloatMatrix:
        """Return one raw vector a text."""
        whole = self.pad(batch)
        hidden, mask = self.infer(whole), whole.mask
        if not self._pools_prompt and prompt:
            # The closing special token stands behind the text, not behind the prompt.
            mask[:, : len(self.tokenizer.ids(prompt)) - 1] = 0
        return self._pool(hidden, mask)

    def _pool(self, hidden: Any, mask: Any) -> arrays.FloatMatrix:
        """Make one vector of the last layer's, whose memory the next call will use again."""
        import numpy as np

        parts = []
        for pooling in self._poolings:
            if pooling == "cls":
                parts.append(hidden[:, 0])
            else:
                weights = mask[:, None, :].astype(np.float32)
                sizes = np.maximum(weights.sum(axis=2), 1e-9)
                parts.append(np.matmul(weights, hidden)[:, 0] / sizes)
        result: arrays.FloatMatrix = np.concatenate(parts, axis=1, dtype=np.float32)
        return result


def pick_precision(precision: str) -> Literal["float32", "bfloat16"]:
    """Return the precision asked for; "auto" is bfloat16 where the processor has it."""
    has_bfloat16 = "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and not has_bfloat16:
        raise ModelError(
            "precision='bfloat16' is nothing that this processor has. Leave it out for float32."
        )
    return "bfloat16" if has_bfloat16 and precision != "float32" else "float32"


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    At import it would fork this process to tell its maker, and leave a folder in the user's home.
    """
    with undisturbed_import("openvino"), needs_extra("openvino", "openvino"):
        import openvino
    _check_release(openvino.__version__)
    return openvino


@contextmanager
def undisturbed_import(package: str) -> Iterator[None]:
    """Leave the process as it was by the first import of one of OpenVINO's packages.

    They would bring what they report with, and NNCF a class of its own for everybody's loggers.
    """
    kind = logging.getLoggerClass()
    telemetry = "openvino_telemetry"
    before = sys.modules.get(telemetry)
    if package not in sys.modules:
        sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        logging.setLoggerClass(kind)
        if before is not None:
            sys.modules[telemetry] = before
        elif sys.modules.get(telemetry, before) is None:
            sys.modules.pop(telemetry, None)


def _check_release(version: str) -> None:
    """Refuse what gives vectors of zeros in bfloat16, and says nothing of it."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < _RELEASE:
        raise ModelError(
            f"openvino {version.partition('-')[0]} is installed, which gives vectors of zeros in "
            f"bfloat16; toastrack needs {_RELEASE[0]}.{_RELEASE[1]} or later. "
            f"Run: {install_command('openvino')}"
        )


_shared: list[openvino.Core] = []
_lock = Lock()


def _core() -> openvino.Core:
    with _lock:
        if not _shared:
            _shared.append(import_openvino().Core())
        return _shared[0]


def _start_anew() -> None:
    global _lock
    _lock = Lock()
    # The parent's is not ended here: its threads are not in this process.
    _of_parent.extend(_shared)
    _shared.clear()


_of_parent: list[openvino.Core] = []
after_fork(_start_anew)


def _compile(path: Path, precision: str) -> openvino.CompiledModel:
    from toastrack.engines.onnx_cache import read_onnx

    core = _core()
    try:
        model = read_onnx(core, path) if path.suffix == ".onnx" else core.read_model(path)
        _check_precision(model, path, precision)
        return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": _HINTS[precision]})
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ModelError(
            f"{str(path)!r} is damaged or was not copied whole ({lines[-1]:.200}). Delete it and "
            "get the model anew."
        ) from None


def _check_precision(model: openvino.Model, path: Path, precision: str) -> None:
    """Refuse a file in int8 where other numbers are promised, and the other way round."""
    is_small = any(
        operation.get_type_name() == "FakeQuantize"
        or (
            operation.get_type_name() == "Constant"
            and operation.get_element_type().get_type_name() in _SMALL_NUMBERS
            and len(operation.shape) > 1
        )
        for operation in model.get_ops()
    )
    if is_small and precision != "int8":
        raise ModelError(
            f"{str(path)!r} holds numbers in 8 bits or less, so it cannot run in {precision}. Use "
            "engine='sentence-transformers', or make a folder that says so: toastrack export MODEL "
            "DIR --precision int8."
        )
    if precision == "int8" and not is_small:
        raise ModelError(
            f"{str(path)!r} is not in int8, as {NOTE_FILE} beside it says. Export the model anew."
        )


def _batch_tokens(threads: int) -> int:
    return min(max(1, threads // _THREADS) * _BATCH_TOKENS, _MOST_BATCH_TOKENS)


def _ports(
    model: openvino.CompiledModel, path: Path, outputs: Collection[str], rank: int
) -> tuple[set[str], Any]:
    """Return the names of what goes in, and the output of one of the names with so many axes."""
    # A port can have several names, and any of them will do.
    inputs = {min(port.names & _INPUTS or port.names) for port in model.inputs}
    unknown = inputs - _INPUTS
    if unknown or "input_ids" not in inputs:
        raise ModelError(
            f"{str(path)!r} asks for {', '.join(sorted(unknown or inputs))}, and toastrack knows "
            f"{', '.join(sorted(_INPUTS))}. Use engine='sentence-transformers'."
        )
    for port in model.outputs:
        if port.names & set(outputs) and len(port.partial_shape) == rank:
            return inputs, port
    found = [sorted(port.names) for port in model.outputs]
    raise ModelError(
        f"{str(path)!r} gives {found}, none of which is {' or '.join(outputs)}. Use "
        "engine='sentence-transformers'."
    )
