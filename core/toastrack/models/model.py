"""What is known of a model before it runs: prompts, limits, size and identity, as one caller set them."""

from __future__ import annotations

from collections.abc import Iterator
from threading import RLock

from toastrack.errors import ModelError
from toastrack.models.config import CONFIG_FILE, PROMPTS_FILE, ModelConfig
from toastrack.models.engine_choice import EngineName, Precision
from toastrack.models.files import ModelFiles
from toastrack.models.json_files import read_json
from toastrack.models.known_models import (
    KnownModel,
    family,
    is_known_matryoshka,
    known_copy,
    known_model,
)
from toastrack.models.modules import MODULES_FILE
from toastrack.models.prompts import Prompts, Role, resolve_prompts, saved_prompts
from toastrack.models.tokenizer import Tokenizer
from toastrack.space import EmbeddingSpace


class Model:
    """Reads a model's files as far as a question needs them, once.

    Arguments that are None leave it to the model.
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str | None,
        engine: EngineName,
        device: str | None,
        precision: Precision,
        query_prompt: str | None,
        document_prompt: str | None,
        dimensions: int | None,
        max_tokens: int | None,
    ) -> None:
        self.name = name
        self.files = ModelFiles(name, revision, engine=engine, device=device, precision=precision)
        self._query_prompt = query_prompt
        self._document_prompt = document_prompt
        self._dimensions = dimensions
        self._max_tokens = max_tokens
        self._lock = RLock()
        self._config: ModelConfig | None = None
        self._prompts: Prompts | None = None
        self._tokenizer: Tokenizer | None = None
        self._space: EmbeddingSpace | None = None
        self._guesses: list[str] | None = None

    @property
    def config(self) -> ModelConfig:
        """The model's own configuration files."""
        if self._config is None:
            self._config = ModelConfig(self.files.folder())
        return self._config

    @property
    def prompts(self) -> Prompts:
        """Both prompts and where each came from; known without the model's weights."""
        with self._lock:
            if self._prompts is None:
                prompts = self._resolve_prompts()
                if self.files.cached_folder() is None:
                    return prompts  # the model itself may say otherwise once it is here
                self._prompts = prompts
            return self._prompts

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text are read, specials and prompt counted."""
        return self.config.limit(self._max_tokens, self.name)

    @property
    def text_limit(self) -> int:
        """The limit that decides what of a text is in its vector."""
        return self.max_tokens

    def _known_limit(self) -> int | None:
        """Return the limit, or None for a model that names none and still has an identity."""
        if self._max_tokens is None and self.config.max_tokens is None:
            return None
        return self.max_tokens

    @property
    def dimensions(self) -> int:
        """The size of every vector."""
        return self.check_dimensions(self.config)

    def check_dimensions(self, config: ModelConfig) -> int:
        """Return the size that is wanted; raise ``ValueError`` if the model makes less."""
        size = config.dimensions
        if self._dimensions is None:
            return size
        if self._dimensions > size:
            raise ValueError(
                f"dimensions={self._dimensions} is more than the {size} that {self.name!r} makes."
            )
        return self._dimensions

    @property
    def is_matryoshka(self) -> bool:
        """Whether the model or its authors say that it was trained to be cut."""
        names = (self.name, self._original())
        return any(map(is_known_matryoshka, names)) or self.config.is_matryoshka

    @property
    def space(self) -> EmbeddingSpace:
        """The identity of the vectors; takes the weights, but does not load them."""
        if self._space is None:
            with self._lock:
                folder = self.files.folder()
                config = ModelConfig(folder)
                self._space = EmbeddingSpace(
                    weights=self.files.weights(),
                    tokenizer=config.tokenizer_digest(),
                    pooling=config.pooling_digest(),
                    query_prompt=self.prompts.query,
                    document_prompt=self.prompts.document,
                    dimensions=self.dimensions,
                    model=self.name,
                    revision=self.files.commit(),
                    max_tokens=self._known_limit(),
                )
        return self._space

    @property
    def known_space(self) -> EmbeddingSpace | None:
        """The space, or None while it would take a download to know it."""
        return self.space if self._space or self.files.known_weights() else None

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer."""
        if self._tokenizer is None:
            with self._lock:
                self._tokenizer = Tokenizer.from_folder(
                    self.files.folder(),
                    lower_case=self.config.lower_cases,
                    extra=self.files.extra,
                )
        return self._tokenizer

    def _resolve_prompts(self) -> Prompts:
        saved = None
        if self._query_prompt is None or self._document_prompt is None:
            saved = self._saved_prompts()
        known, known_by = self._known() if saved is None else (None, "")
        return resolve_prompts(
            query=self._query_prompt,
            document=self._document_prompt,
            saved=saved,
            known=known,
            known_by=known_by,
        )

    def _saved_prompts(self) -> dict[Role, str] | None:
        if self.files.cached_folder() is None and known_model(self.name):
            return None  # what the table says needs no network
        path = self.files.small_file(PROMPTS_FILE)
        return None if path is None else saved_prompts(read_json(path))

    def _known(self) -> tuple[KnownModel | None, str]:
        """Return the entry of a well-known model, and what it is known by."""
        if not self.files.is_local:
            return known_model(self.name), "known model"
        entry = known_copy(self._original())
        if entry is not None:
            return entry, f"known by _name_or_path in {CONFIG_FILE}"
        return known_copy(self.name), "known by its folder's name"

    def _original(self) -> str:
        """The name or path that transformers wrote into a model when it was saved; "" if none."""
        folder = self.files.cached_folder()
        name = None if folder is None else read_json(folder / CONFIG_FILE).get("_name_or_path")
        return name if isinstance(name, str) else ""

    # -- what has to be guessed ---------------------------------------------------------------

    @property
    def guesses(self) -> list[str]:
        """What had to be guessed because no file of the model says it.

        Raises ``ModelError`` where the guess is known to be wrong.
        """
        if self._guesses is None:
            with self._lock:
                self._guesses = list(self._guess())
        return self._guesses

    def _guess(self) -> Iterator[str]:
        prompts = self.prompts
        unsaid = (prompts.query_source, prompts.document_source)
        kind = family(self.name) or family(self._original())
        if kind is not None and all(source.startswith("none") for source in unsaid):
            yield (
                f"{self.name!r} names no prompt, and models of the {kind} family want one, so none "
                "was taken. Say which it was trained with: Embedder(..., query_prompt='...'), or "
                "query_prompt='' for none."
            )
        folder = self.files.folder()
        if not (folder / MODULES_FILE).is_file():
            known, _ = self._known()
            pooling = ModelConfig(folder).named_pooling() or (known.pooling if known else "mean")
            if pooling != "mean":
                raise ModelError(
                    f"{str(folder)!r} has no {MODULES_FILE}, so the mean of its tokens would be "
                    f"taken, and the model is made for the pooling {pooling!r}. Get the whole "
                    "model, or save it again with SentenceTransformer.save()."
                )
            yield (
                f"{str(folder)!r} has no {MODULES_FILE} to say how the vectors of its tokens become "
                "one, so their mean is taken. If that is right, save it with "
                "SentenceTransformer.save(); if not, get the whole model."
            )
