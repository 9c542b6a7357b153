"""However a model's folder is broken: a ``ModelError`` that names it, or vectors."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from broken_folders import broken_copy
from models import MXBAI_PROMPT, save_tiny_bert

from toastrack import Embedder, EngineName
from toastrack.errors import ModelError

A_TEST = 50


@pytest.fixture(scope="module")
def shards_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_folder``'s weights in several files."""
    prompts = {"query": MXBAI_PROMPT, "passage": ""}
    return save_tiny_bert(tmp_path_factory.mktemp("m") / "shards", shards=True, prompts=prompts)


@pytest.mark.parametrize(
    "first",
    [
        number if number < A_TEST else pytest.param(number, marks=pytest.mark.rest)
        for number in range(0, 2_100, A_TEST)
    ],
)
def test_a_broken_folder_ends_in_a_model_error_that_names_it(
    shards_folder: Path, openvino_folder: Path, tmp_path: Path, first: int
) -> None:
    wrong = []
    for seed in range(first, first + A_TEST):
        folder = tmp_path / "model"
        source = openvino_folder if seed % 4 == 3 else shards_folder
        how = broken_copy(source, folder, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fault = ask_everything(folder)
        if fault is not None:
            wrong.append(f"seed {seed}, {how}: {fault}")
        shutil.rmtree(folder)
    assert wrong == []


def ask_everything(folder: Path) -> str | None:
    """Ask a model all that it can be asked; return what should not have happened."""
    engine: EngineName = "openvino" if (folder / "openvino").is_dir() else "sentence-transformers"
    for ask in (
        lambda embedder: embedder.prompts,
        lambda embedder: (embedder.dimensions, embedder.max_tokens),
        lambda embedder: embedder.count_tokens("why is rye bread sour?"),
        lambda embedder: embedder.split("rye bread keeps fresh. " * 20),
        lambda embedder: embedder.space.to_dict(),
        lambda embedder: embedder.embed_query("why is rye bread sour?"),
        lambda embedder: embedder.embed_documents(["", "rye", "the starter rises, " * 30]),
    ):
        try:
            answer = ask(Embedder(folder, engine=engine, device="cpu", on_truncate="ignore"))
        except ModelError as error:
            if str(folder) not in str(error):
                return f"a message that does not name the folder: {error}"
        except BaseException as error:  # Rust's panics are no Exception
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            return f"{type(error).__name__}: {error}"
        else:
            if isinstance(answer, np.ndarray) and not np.isfinite(answer).all():
                return f"vectors that are not finite: {answer}"
    return None
