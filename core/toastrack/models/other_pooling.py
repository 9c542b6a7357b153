"""A model as somebody runs it who pools its tokens in another way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from toastrack.models.config import CONFIG_FILE, ModelConfig
from toastrack.models.modules import MODULES_FILE, read_modules

# What is run in one's place by who overlooks it.
_OTHER = {"cls": "mean", "mean": "cls"}


def other_pooling(folder: Path) -> str | None:
    """Return the pooling that a model is run with by mistake; None if it pools in a way of its own."""
    poolings = ModelConfig(folder).poolings() if (folder / MODULES_FILE).is_file() else []
    return _OTHER.get(poolings[0]) if len(poolings) == 1 else None


@contextmanager
def pooled(folder: Path, pooling: str) -> Iterator[Path]:
    """Lend a folder with the same files, that says to pool so."""
    with TemporaryDirectory(prefix="toastrack-pooling-") as made:
        target = Path(made) / folder.name
        target.mkdir()
        changed = {
            module.path
            for module in read_modules(folder, "embedding")
            if module.kind not in ("Transformer", "Normalize")
        }
        for path in folder.iterdir():
            if path.is_dir() and path.name in changed:
                shutil.copytree(path, target / path.name)
                config = target / path.name / CONFIG_FILE
                values = json.loads(config.read_text(encoding="utf-8"))
                if any(key.startswith("pooling_mode") for key in values):
                    kept = {key: values[key] for key in values if key[:12] != "pooling_mode"}
                    text = json.dumps({**kept, "pooling_mode": pooling})
                    config.write_text(text, encoding="utf-8")
            else:
                _lend(path.resolve(), target / path.name)
        yield target


def _lend(path: Path, target: Path) -> None:
    try:
        target.symlink_to(path)
    except OSError:  # where a user may make none
        (shutil.copytree if path.is_dir() else shutil.copy)(path, target)
