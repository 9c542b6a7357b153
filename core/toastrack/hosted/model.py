"""What is known of a hosted model: prompts, limit, size and identity, as one caller set them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from threading import RLock

from toastrack.errors import MissingExtraError, ModelError
from toastrack.hosted.server import ModelServer, shared_server
from toastrack.hosted.settings import Hosted
from toastrack.models.config import CONFIG_FILE, ModelConfig
from toastrack.models.files import ModelFiles, looks_like_path
from toastrack.models.known_models import family, is_known_matryoshka, known_copy, known_model
from toastrack.models.prompts import Prompts, resolve_prompts
from toastrack.models.tokenizer import Tokenizer
from toastrack.space import EmbeddingSpace

_FILES = ("tokenizer.json", CONFIG_FILE, "sentence_bert_config.json")

# What a model reads that nobody says anything of, as most read it or more; and how many characters
# of the densest of the usual languages and of source code go into a token.
_USUAL_TOKENS = 512
CHARACTERS_A_TOKEN = 2


class HostedModel:
    """Answers what ``toastrack.models.model.Model`` does, for a model whose files are elsewhere."""

    def __init__(
        self,
        name: str,
        hosted: Hosted,
        *,
        query_prompt: str | None,
        document_prompt: str | None,
        dimensions: int | None,
        max_tokens: int | None,
    ) -> None:
        self.name = name
        self.server: ModelServer = shared_server(
            name, hosted, dimensions if hosted.dimensions_by == "server" else None
        )
        self._query_prompt = query_prompt
        self._document_prompt = document_prompt
        self._dimensions = dimensions
        self._max_tokens = max_tokens
        self._lock = RLock()
        self._space: EmbeddingSpace | None = None
        self._files: tuple[Tokenizer | None, int | None, str] | None = None

    @property
    def prompts(self) -> Prompts:
        """Both prompts and where each came from; asks a server that may know them."""
        served = self._served()
        if served is not None:
            return self._served_prompts(served)
        return resolve_prompts(
            query=self._query_prompt,
            document=self._document_prompt,
            saved=None,
            known=known_model(self.name) or known_copy(self.name),
            known_by="known model",
        )

    @property
    def max_tokens(self) -> int | None:
        """How many tokens of a text are read, specials and prompt counted; None if nobody says."""
        served = self._served()
        most = self._own_files()[1] if served is None else served.max_tokens
        if self._max_tokens is None:
            return most
        if most is not None and self._max_tokens > most:
            raise ValueError(f"max_tokens={self._max_tokens} is over the {most} of {self.name!r}.")
        if served is not None and self._max_tokens != most:
            raise ValueError(
                f"max_tokens={self._max_tokens} is not what the server reads: it cuts at {most}. Set "
                "the limit there."
            )
        return self._max_tokens

    @property
    def most_characters(self) -> int:
        """How long a chunk may be that is measured in characters, with a margin."""
        return CHARACTERS_A_TOKEN * (self.max_tokens or _USUAL_TOKENS)

    @property
    def text_limit(self) -> int:
        """The limit in tokens, else in characters: what the hash of a stored text takes."""
        return self.max_tokens or self.most_characters

    @property
    def dimensions(self) -> int:
        """The size of every vector."""
        size = self.server.size
        if self._dimensions is None:
            return size
        if self._dimensions > size:
            raise ValueError(
                f"dimensions={self._dimensions} is more than the {size} that {self.name!r} makes."
            )
        return self._dimensions

    @property
    def is_matryoshka(self) -> bool:
        """Whether the model's authors say that it was trained to be cut."""
        return is_known_matryoshka(self.name)

    @property
    def space(self) -> EmbeddingSpace:
        """The identity of the vectors: that of the weights if the server tells it, else the name."""
        if self._space is None:
            with self._lock:
                prompts, served = self.prompts, self._served()
                own = EmbeddingSpace(
                    weights=f"hosted:{self.name}",
                    tokenizer="",
                    pooling="",
                    query_prompt=prompts.query,
                    document_prompt=prompts.document,
                    dimensions=self.dimensions,
                    model=self.name,
                    max_tokens=self.max_tokens,
                    base_url=self.server.hosted.url,
                )
                if served is not None:
                    own = replace(
                        own,
                        weights=served.weights,
                        tokenizer=served.tokenizer,
                        pooling=served.pooling,
                        revision=served.revision,
                    )
                self._space = own
        return self._space

    @property
    def known_space(self) -> EmbeddingSpace | None:
        """The space, or None while it would take a request to know it."""
        return self._space

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer, of the hub; raises ``ModelError`` where it cannot be had."""
        tokenizer, _, reason = self._own_files()
        if tokenizer is None:
            raise ModelError(
                f"The tokens of {self.name!r} can be counted by its own tokenizer alone, and that "
                f"cannot be had: {reason}"
            )
        return tokenizer

    @property
    def why_no_tokenizer(self) -> str | None:
        """Why texts cannot be measured in tokens; None if they can."""
        tokenizer, _, reason = self._own_files()
        if tokenizer is not None and self.max_tokens is None:
            return "nothing says how many tokens it reads. Give max_tokens=."
        return reason if tokenizer is None else None

    @property
    def is_cut_here(self) -> bool:
        """Whether texts are counted and cut before they are sent."""
        return self._served() is None and self.why_no_tokenizer is None

    @property
    def guesses(self) -> list[str]:
        """What had to be guessed because nobody says it."""
        return list(self._guess())

    def _guess(self) -> Iterator[str]:
        prompts, kind = self.prompts, family(self.name)
        unsaid = (prompts.query_source, prompts.document_source)
        if kind is not None and all(source.startswith("none") for source in unsaid):
            yield (
                f"{self.name!r} is no name whose prompt is known, and models of the {kind} family "
                "want one, so none was taken. Say which it was trained with: Embedder(..., "
                "query_prompt='...'), or query_prompt='' for none."
            )

    def _served(self) -> EmbeddingSpace | None:
        """The space that the server tells, where it is to add the prompts, too."""
        server = self.server
        return server.described_space if server.prompt_by == "role" else None

    def _served_prompts(self, served: EmbeddingSpace) -> Prompts:
        given = {"query_prompt": self._query_prompt, "document_prompt": self._document_prompt}
        for name, prompt in given.items():
            if prompt is not None and prompt != getattr(served, name):
                raise ValueError(
                    f"{name}={prompt!r} is not what the server puts in front: "
                    f"{getattr(served, name)!r}. Set the prompt there."
                )
        source = "told by the server"
        return Prompts(served.query_prompt, served.document_prompt, source, source)

    def _own_files(self) -> tuple[Tokenizer | None, int | None, str]:
        """The tokenizer, the limit that stands in its files, and why there is none."""
        with self._lock:
            if self._files is None:
                self._files = _read_files(self.name)
            return self._files


def _read_files(name: str) -> tuple[Tokenizer | None, int | None, str]:
    if name.count("/") != 1 or looks_like_path(name):
        return None, None, f"{name!r} is no name on the hub."
    files = ModelFiles(name)
    try:
        found = [files.here_or_fetched(part) for part in _FILES]
        if found[0] is None:
            return None, None, f"{name!r} has no tokenizer.json on the hub."
        config = ModelConfig(found[0].parent)
        tokenizer = Tokenizer.from_folder(found[0].parent, lower_case=config.lower_cases)
        return tokenizer, config.max_tokens, ""
    except (ModelError, MissingExtraError) as error:
        return None, None, str(error)
