"""Roles in, unit vectors out: the facade everyone holds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, TypedDict, cast, get_args
from weakref import WeakSet

from toastrack.batching.encoder import Encoder, EncodingStream, HostedEncoder, RoleEncoder
from toastrack.batching.engine_pool import Precision, place, shared_hosted_worker, shared_worker
from toastrack.batching.truncation import OnTruncate, TruncationCounter
from toastrack.batching.worker import EngineWorker
from toastrack.engines.base import EmbeddingEngine
from toastrack.errors import GuessWarning, ModelError
from toastrack.hosted.model import CHARACTERS_A_TOKEN, HostedModel
from toastrack.hosted.settings import MIXEDBREAD_URL, Hosted, Usage, hosted_engine
from toastrack.models.characters import split_by_characters
from toastrack.models.config import ModelConfig
from toastrack.models.engine_choice import EngineName, RunPrecision
from toastrack.models.files import looks_like_path, model_name
from toastrack.models.model import Model
from toastrack.models.prompts import Prompts, Role, add_prompt
from toastrack.models.tokenizer import Tokenizer
from toastrack.space import EmbeddingSpace
from toastrack.utils import arrays
from toastrack.utils.arguments import (
    check_choice,
    check_count,
    check_positive,
    check_setting,
    check_text,
    checked_texts,
)
from toastrack.utils.forks import after_fork
from toastrack.utils.threads import off_loop
from toastrack.utils.warn import warn_once

DEFAULT_MODEL = "mixedbread-ai/mxbai-embed-large-v1"


class EmbedderSettings(TypedDict, total=False):
    """The arguments of ``Embedder``, for a function that hands them on.

        settings: EmbedderSettings = {"max_tokens": 128, "on_truncate": "ignore"}
        quick = Embedder(**settings)

    ``Embedder.settings()`` returns them; pickling and copying carry nothing else.
    """

    model: str | os.PathLike[str]
    revision: str | None
    engine: EngineName | Hosted
    device: str | None
    precision: Precision
    query_prompt: str | None
    document_prompt: str | None
    dimensions: int | None
    max_tokens: int | None
    on_truncate: OnTruncate


class Embedder:
    """Turns queries and documents into unit vectors, each with the prompt its role needs.

        embedder = Embedder()
        query = embedder.embed_query("why is bread brown?")            # float32, (1024,)
        documents = embedder.embed_documents(["The Maillard ..."])     # float32, (1, 1024)
        print(documents @ query)                                       # the cosine similarities

    Building one is free: the model is found, downloaded and loaded at the first text. One embedder
    serves any number of threads and event loops, and embedders of the same model share it in
    memory. A copy or a pickle carries the settings and no weights.

    Args:
        model: A hub name or a local folder that ``SentenceTransformer.save`` wrote.
        revision: A branch, tag or commit on the hub; None takes what is cached, else the newest.
        engine: What runs the model: "sentence-transformers", or "openvino" on CPUs, for models
            with an OpenVINO or ONNX file. "auto" is the fastest that is installed and can. "hosted"
            is mixedbread's API, and ``Hosted(base_url=)`` any server like OpenAI's.
        device: "cuda", "mps", "cpu", ...; None picks the first of these that is there.
        precision: "auto" is bfloat16 on CUDA, and with openvino where the processor has it; else
            float32. A folder that ``toastrack export --precision int8`` wrote runs in int8 alone.
            Vectors are always float32.
        query_prompt: Replaces the prompt of queries; None takes the model's own.
        document_prompt: Replaces the prompt of documents; None takes the model's own.
        dimensions: Keep only the first n numbers (Matryoshka) and normalise again.
        max_tokens: Read fewer tokens than the model could; specials and prompt counted.
        on_truncate: What happens to a text over the limit: "warn" once a call, "error", "ignore".

    Raises:
        ValueError: An argument has a value that it cannot have.
        ModelError: ``dimensions`` is given for a local folder that does not say how many it has.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        engine: EngineName | Hosted = "auto",
        device: str | None = None,
        precision: Precision = "auto",
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        dimensions: int | None = None,
        max_tokens: int | None = None,
        on_truncate: OnTruncate = "warn",
    ) -> None:
        if not isinstance(engine, Hosted):
            check_choice("engine", engine, get_args(EngineName))
        check_choice("precision", precision, get_args(Precision))
        check_choice("on_truncate", on_truncate, get_args(OnTruncate))
        check_setting("revision", revision, none="the newest", example="'main'")
        check_setting("device", device, none="the best one here", example="'cuda:0' or 'cpu'")
        check_setting("query_prompt", query_prompt, none="the model's own", example="'query: '")
        check_setting("document_prompt", document_prompt, none="the model's own", example="''")
        check_positive("dimensions", dimensions)
        check_positive("max_tokens", max_tokens)
        self.hosted = hosted_engine(
            engine,
            *(["revision"] if revision is not None else []),
            *(["device"] if device is not None else []),
            *(["precision"] if precision != "auto" else []),
        )
        self.model = model_name(model)
        self.revision = revision
        self.engine: EngineName | Hosted = engine
        self.device = device
        self._precision: Precision = precision
        self.on_truncate: OnTruncate = on_truncate
        self._query_prompt = query_prompt
        self._document_prompt = document_prompt
        self._dimensions = dimensions
        self._max_tokens = max_tokens
        if self.hosted is None and looks_like_path(self.model):
            # A relative folder would be another one after a change of directory.
            self.model = str(Path(self.model).expanduser().absolute())
        self._start()
        _embedders.add(self)
        folder = Path(self.model).expanduser()
        if (
            dimensions is not None
            and isinstance(self._model, Model)
            and self._model.files.is_local
            and folder.is_dir()
        ):
            # The size is known already, so a wrong one is an error here and not at the first text.
            self._model.check_dimensions(ModelConfig(folder))

    def _start(self) -> None:
        self._model = self._find_model()
        self._lock = RLock()
        self._loaded: EngineWorker[EmbeddingEngine] | None = None
        self._encoders: dict[Role, Encoder] = {}

    def _find_model(self) -> Model | HostedModel:
        if self.hosted is not None:
            return HostedModel(
                self.model,
                self.hosted,
                query_prompt=self._query_prompt,
                document_prompt=self._document_prompt,
                dimensions=self._dimensions,
                max_tokens=self._max_tokens,
            )
        return Model(
            self.model,
            revision=self.revision,
            engine=cast("EngineName", self.engine),
            device=self.device,
            precision=self._precision,
            query_prompt=self._query_prompt,
            document_prompt=self._document_prompt,
            dimensions=self._dimensions,
            max_tokens=self._max_tokens,
        )

    def __repr__(self) -> str:
        settings = {name: value for name, value in self.settings().items() if value is not None}
        return f"Embedder({', '.join(f'{name}={value!r}' for name, value in settings.items())})"

    def __getstate__(self) -> EmbedderSettings:
        return self.settings()

    def __setstate__(self, settings: EmbedderSettings) -> None:
        self.__init__(**settings)  # type: ignore[misc]

    def settings(self) -> EmbedderSettings:
        """Return the arguments that build this embedder anew: those that it was given."""
        return {
            "model": self.model,
            "revision": self.revision,
            "engine": self.engine,
            "device": self.device,
            "precision": self._precision,
            "query_prompt": self._query_prompt,
            "document_prompt": self._document_prompt,
            "dimensions": self._dimensions,
            "max_tokens": self._max_tokens,
            "on_truncate": self.on_truncate,
        }

    @classmethod
    def from_space(
        cls, space: EmbeddingSpace, *, device: str | None = None, allow_http: bool = False
    ) -> Embedder:
        """Return the embedder that a recorded space names, with the same prompts, size and limit.

            same = Embedder.from_space(store.space)
            assert same.space == store.space

        The model is found by its name and revision; whether its weights are still the recorded
        ones shows when a store is opened with it. One that ran on a server is asked there again.

        Raises:
            ValueError: The server that is recorded is another machine, not asked by https, and
                ``allow_http`` does not allow that.
        """
        engine: EngineName | Hosted = "auto"
        if space.base_url is not None:
            is_usual = space.base_url == MIXEDBREAD_URL
            engine = (
                "hosted" if is_usual else Hosted(base_url=space.base_url, allow_http=allow_http)
            )
        return cls(
            space.model,
            engine=engine,
            device=device,
            revision=space.revision if space.base_url is None else None,
            query_prompt=space.query_prompt,
            document_prompt=space.document_prompt,
            dimensions=space.dimensions,
            max_tokens=space.max_tokens,
        )

    # -- what is embedded -------------------------------------------------------------------

    def embed_query(self, text: str) -> arrays.FloatVector:
        """Embed one search query: float32 of shape ``(dimensions,)``, unit length.

        Queries that come singly from many threads share a batch.

        Warns:
            TruncationWarning: The query is over the limit and was cut.

        Raises:
            TruncationError: It is over the limit and ``on_truncate="error"``.
            ModelError: The model cannot be found, read or run.
            NoAnswerError: Its server does not answer.
            RefusedError: Its server does not take a text.
            MissingExtraError: What runs the model is not installed.
        """
        check_text(text, "embed_query")
        vector: arrays.FloatVector = self._embed([text], "query")[0]
        return vector

    def embed_queries(self, texts: Iterable[str]) -> arrays.FloatMatrix:
        """Embed search queries: float32 of shape ``(n, dimensions)``, unit rows, order kept.

        No texts give an array of shape ``(0, dimensions)``.

        Warns:
            TruncationWarning: Queries are over the limit and were cut; once a call.

        Raises:
            TruncationError: A query is over the limit and ``on_truncate="error"``; names it.
            ModelError: The model cannot be found, read or run.
            NoAnswerError: Its server does not answer.
            RefusedError: Its server does not take a text.
            MissingExtraError: What runs the model is not installed.
        """
        return self._embed(checked_texts(texts, "embed_queries"), "query")

    def embed_documents(self, texts: Iterable[str]) -> arrays.FloatMatrix:
        """Embed texts to be found: float32 of shape ``(n, dimensions)``, unit rows, order kept.

        No texts give an array of shape ``(0, dimensions)``. Long jobs are cut into the engine's
        batches, and waiting queries go first between them.

        Warns:
            TruncationWarning: Texts are over the limit and were cut; once a call.

        Raises:
            TruncationError: A text is over the limit and ``on_truncate="error"``; names it.
            ModelError: The model cannot be found, read or run.
            NoAnswerError: Its server does not answer.
            RefusedError: Its server does not take a text.
            MissingExtraError: What runs the model is not installed.
        """
        return self._embed(checked_texts(texts, "embed_documents"), "document")

    def _stream(self, role: Role, truncation: TruncationCounter) -> EncodingStream:
        """Return a queue to the engine, for code that reads texts while earlier ones are embedded."""
        return EncodingStream(partial(self._encoder, role), truncation)

    def load(self) -> Embedder:
        """Load the model now instead of at the first text, downloading it if it must be.

        Raises:
            ModelError: The model cannot be found, read or run.
            NoAnswerError: Its server does not answer.
            RefusedError: Its server does not take a text.
            MissingExtraError: What runs the model is not installed.
        """
        self._say_guesses()
        self._ready()
        return self

    async def aembed_query(self, text: str) -> arrays.FloatVector:
        """``embed_query``, awaited; the model runs on a thread, never on the event loop.

        Raises:
            TruncationError: It is over the limit and ``on_truncate="error"``.
            ModelError: The model cannot be found, read or run.
            NoAnswerError: Its server does not answer.
            RefusedError: Its server does not take a text.
            MissingExtraError: What runs the model is not installed.
        """
        check_text(text, "aembed_query")
        vector: arrays.FloatVector = (await self._aembed([text], "query"))[0]
        return vector

    async def aembed_queries(self, texts: Iterable[str]) -> arrays.FloatMatrix:
        """``embed_queries``, awaited; the model runs on a thread, never on the event loop.

        Raises:
            TruncationError: A query is over the limit and ``on_truncate="error"``; names it.
            ModelError: The model cannot be found, read or run.
            NoAnswerError: Its server does not answer.
            RefusedError: Its server does not take a text.
            MissingExtraError: What runs the model is not installed.
        """
        return await self._aembed(checked_texts(texts, "aembed_queries"), "query")

    async def aembed_documents(self, texts: Iterable[str]) -> arrays.FloatMatrix:
        """``embed_documents``, awaited; the model runs on a thread, never on the event loop.

        Raises:
            TruncationError: A text is over the limit and ``on_truncate="error"``; names it.
            ModelError: The model cannot be found, read or run.
            NoAnswerError: Its server does not answer.
            RefusedError: Its server does not take a text.
            MissingExtraError: What runs the model is not installed.
        """
        return await self._aembed(checked_texts(texts, "aembed_documents"), "document")

    async def aload(self) -> Embedder:
        """Load the model now, without blocking the event loop; raises what ``load`` does."""
        await off_loop(self._ready)
        self._say_guesses()
        return self

    # -- what is known ----------------------------------------------------------------------

    @property
    def prompts(self) -> Prompts:
        """Both prompts and where each came from; known without the model's weights.

        Its ``query`` and ``document`` are the prompts, ``query_source`` and ``document_source`` say
        whether they are your argument, saved with the model, or in its documentation.

        Raises:
            ModelError: The model is neither here nor in reach, or cannot be read.
        """
        return self._model.prompts

    @property
    def query_prompt(self) -> str:
        """The text put in front of every query.

        Raises:
            ModelError: The model is neither here nor in reach, or cannot be read.
        """
        return self.prompts.query

    @property
    def document_prompt(self) -> str:
        """The text put in front of every document.

        Raises:
            ModelError: The model is neither here nor in reach, or cannot be read.
        """
        return self.prompts.document

    @property
    def max_tokens(self) -> int | Any:  # None is rare enough that few must look for it
        """How many tokens of a text are read, specials and prompt counted.

        None for a hosted model of which nobody says it: its tokenizer cannot be had here.

        Raises:
            ModelError: The model cannot be found or read, or does not say.
            ValueError: ``max_tokens=`` is over what the model reads.
        """
        return self._model.max_tokens

    @property
    def _text_limit(self) -> int:
        """The limit in tokens, else in characters, that decides what of a text is in its vector."""
        return self._model.text_limit

    @property
    def usage(self) -> Usage:
        """How much a hosted model was asked for in this process, by all who share it.

            before = embedder.usage
            embedder.embed_documents(["Rye bread keeps for a week."])
            print(embedder.usage.requests - before.requests)

        Both numbers are 0 for a model that runs here.
        """
        model = self._model
        return model.server.usage if isinstance(model, HostedModel) else Usage(0, 0)

    @property
    def dimensions(self) -> int:
        """How many numbers every vector has.

        Raises:
            ModelError: The model cannot be found or read.
            ValueError: ``dimensions=`` is over what the model makes.
        """
        return self._model.dimensions

    @property
    def is_matryoshka(self) -> bool:
        """Whether the model says that the first numbers of a vector may stand for all of it.

        Read in its files, or known of it: it was trained for that (Matryoshka).

        Raises:
            ModelError: The model cannot be found or read.
        """
        return self._model.is_matryoshka

    @property
    def space(self) -> EmbeddingSpace:
        """The identity of this embedder's vectors; takes the weights, but does not load them.

        Raises:
            ModelError: The model cannot be found or read.
            ValueError: ``dimensions=`` or ``max_tokens=`` is over the model's.

        Warns:
            GuessWarning: A file of the model's is missing that says how it wants to be run.
        """
        self._say_guesses()
        return self._model.space

    @property
    def _known_space(self) -> EmbeddingSpace | None:
        """The space, or None while it would take a download to know it."""
        return self._model.known_space

    @property
    def precision(self) -> RunPrecision:
        """What the model is computed in, "float32", "bfloat16" or "int8"; finds it, does not load it.

        Raises:
            ModelError: The model cannot be found or read, or cannot run in the precision asked for;
                or it runs on a server, which does not say.
            MissingExtraError: What runs the model is not installed.
        """
        if isinstance(self._model, HostedModel):
            raise ModelError(f"{self._model.server} does not say in which precision it computes.")
        files = self._model.files
        return place(files.engine, self.device, files.precision)[1]

    @property
    def running_on(self) -> str:
        """What runs the model, where and in which precision, for people; loads it.

        Raises:
            ModelError: The model cannot be found, read or run.
            NoAnswerError: Its server does not answer.
            RefusedError: Its server does not take a text.
            MissingExtraError: What runs the model is not installed.
        """
        if isinstance(self._model, HostedModel):
            self._ready()
            return f"hosted: {self._model.server}"
        return str(self._engine())

    def count_tokens(self, text: str, role: Role = "document") -> int:
        """Count the tokens of a text as the model would read it: specials and prompt included.

        Nothing is cut, so a count over ``max_tokens`` says that the text does not fit.

            if embedder.count_tokens(text) > embedder.max_tokens:
                chunks = embedder.split(text)

        Args:
            text: The text, without its prompt.
            role: Whose prompt is counted, "query" or "document".

        Raises:
            ModelError: The model cannot be found or read; a hosted model's tokenizer cannot be had.
            MissingExtraError: What reads its tokenizer is not installed.
        """
        check_choice("role", role, get_args(Role))
        check_text(text, "count_tokens")
        return self.tokenizer.count(add_prompt(self.prompts.of(role), text))

    def split(self, text: str, max_tokens: int | None = None, overlap: int = 0) -> list[str]:
        """Split a document into chunks that fit, measured by the model's own tokenizer.

            chunks = embedder.split(text, max_tokens=128, overlap=16)

        Chunks end at paragraphs, sentences or words, whatever is the largest that fits; only white
        space between them is dropped.

        Args:
            text: The document; if it fits it comes back whole, blank text too.
            max_tokens: The limit of a chunk, specials and document prompt counted; None takes all
                that the model reads.
            overlap: How many tokens of one chunk are repeated at the start of the next.

        Raises:
            ValueError: ``max_tokens`` is over the model's, or leaves no room for text and overlap.
            ModelError: The model cannot be found or read; a hosted model's tokenizer cannot be had.
            MissingExtraError: What reads its tokenizer is not installed.
        """
        check_text(text, "split")
        return [chunk for _, chunk in self._split(text, max_tokens, overlap)]

    def _chunks(
        self, text: str, max_tokens: int | None = None, overlap: int = 0, *, markdown: bool = False
    ) -> list[tuple[int, str]]:
        """``split``, with where each chunk begins; Markdown is split at its headings first.

        What cannot be measured in tokens is measured in characters, and that is said once.
        """
        check_count("overlap", overlap)
        model = self._model
        reason = model.why_no_tokenizer if isinstance(model, HostedModel) else None
        if reason is None or max_tokens is not None:
            return self._split(text, max_tokens, overlap, markdown=markdown)
        assert isinstance(model, HostedModel)
        most = model.most_characters
        warn_once(
            self.model,
            f"Texts for {self.model!r} are split at {most:,} characters, which leaves a margin for "
            f"most of them, since they cannot be measured in tokens: {reason}",
            GuessWarning,
        )
        most -= len(self.document_prompt)
        return split_by_characters(
            text, max(1, most), overlap * CHARACTERS_A_TOKEN, markdown=markdown
        )

    def _split(
        self, text: str, max_tokens: int | None, overlap: int, *, markdown: bool = False
    ) -> list[tuple[int, str]]:
        check_positive("max_tokens", max_tokens)
        check_count("overlap", overlap)
        tokenizer = self.tokenizer  # what is missing is said first
        most: int | None = self.max_tokens
        limit = max_tokens or most
        if limit is None:
            raise ModelError(f"Nobody says how many tokens {self.model!r} reads. Give max_tokens=.")
        if most is not None and limit > most:
            raise ValueError(f"max_tokens={limit} is over this embedder's {most}.")
        if max_tokens is None:
            self._check_room(tokenizer, "document")
        return tokenizer.split(
            text,
            max_tokens=limit,
            overlap=overlap,
            prompt=self.document_prompt,
            markdown=markdown,
        )

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer; known without its weights in memory."""
        worker = self._loaded
        return self._model.tokenizer if worker is None else worker.engine.tokenizer

    # -- how it is done ---------------------------------------------------------------------

    def _embed(self, texts: Sequence[str], role: Role) -> arrays.FloatMatrix:
        if not texts:
            return self._nothing()
        self._say_guesses()
        truncation = TruncationCounter(self.on_truncate)
        vectors = self._encoder(role).encode(texts, truncation)
        truncation.warn()
        return vectors

    async def _aembed(self, texts: Sequence[str], role: Role) -> arrays.FloatMatrix:
        if not texts:
            return await off_loop(self._nothing)
        truncation = TruncationCounter(self.on_truncate)
        vectors = await self._acounted(texts, role, truncation)
        truncation.warn()
        return vectors

    async def _acounted(
        self, texts: Sequence[str], role: Role, truncation: TruncationCounter
    ) -> arrays.FloatMatrix:
        """Embed texts whose tokens somebody else counts, and says what was cut."""
        encoder = self._encoders.get(role)
        if encoder is None:
            encoder = await off_loop(self._encoder, role)
            self._say_guesses()
        return await encoder.aencode(texts, truncation)

    def _say_guesses(self) -> None:
        for guess in self._model.guesses:
            warn_once(self.model, guess, GuessWarning)

    def _nothing(self) -> arrays.FloatMatrix:
        """Return no vectors, of the right size; that takes no engine."""
        import numpy as np

        # Where a server would have to be asked, what is wanted will do.
        wanted = self._dimensions if self.hosted is not None else None
        return np.empty((0, wanted or self.dimensions), dtype=np.float32)

    def _encoder(self, role: Role) -> Encoder:
        encoder = self._encoders.get(role)
        if encoder is None:
            model = self._model
            encoder = (
                self._remote_encoder(model, role)
                if isinstance(model, HostedModel)
                else self._local_encoder(model, role)
            )
            self._encoders[role] = encoder
        return encoder

    def _local_encoder(self, model: Model, role: Role) -> RoleEncoder:
        # What is wrong with the settings is said before the weights are loaded.
        prompt, limit, size = model.prompts.of(role), model.max_tokens, model.dimensions
        worker = self._worker()
        self._check_room(worker.engine.tokenizer, role)
        return RoleEncoder(worker, role, prompt=prompt, limit=limit, size=size)

    def _remote_encoder(self, model: HostedModel, role: Role) -> HostedEncoder:
        tokenizer = model.tokenizer if model.is_cut_here else None
        if tokenizer is not None:
            self._check_room(tokenizer, role)
        return HostedEncoder(
            shared_hosted_worker(model.server, role),
            role,
            prompt=model.prompts.of(role),
            tokenizer=tokenizer,
            limit=model.text_limit,
            size=model.dimensions,
        )

    def _ready(self) -> None:
        """Load the model, or ask its server what it makes."""
        if isinstance(self._model, HostedModel):
            _ = self._model.space
        else:
            self._worker()

    def _check_room(self, tokenizer: Tokenizer, role: Role) -> None:
        """Raise ``ModelError`` if no text fits by what the model's own files say."""
        given = self._query_prompt if role == "query" else self._document_prompt
        if given is None and self._max_tokens is None:
            used, limit = tokenizer.count(self.prompts.of(role)), self.max_tokens
            if limit is not None and used >= limit:
                raise ModelError(
                    f"{self.model!r} says that it reads {limit} tokens, and the prompt and the "
                    f"special tokens of a {role} take {used}. Its files belong to two models; get "
                    "the model anew."
                )

    def _worker(self) -> EngineWorker[EmbeddingEngine]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _engine(self) -> EmbeddingEngine:
        return self._worker().engine

    def _load(self) -> EngineWorker[EmbeddingEngine]:
        model = self._model
        if isinstance(model, HostedModel):
            raise ModelError(f"{self.model!r} runs on a server, and nothing of it is loaded here.")
        _ = model.guesses  # a guess that is known to be wrong is an error
        space, config, files = model.space, model.config, model.files
        worker = shared_worker(
            files.folder(),
            identity=" ".join(
                (files.running_digest(), space.tokenizer, space.pooling, config.run_digest())
            ),
            engine=files.engine,
            device=self.device,
            precision=files.precision,
        )
        if worker.engine.dimensions != config.dimensions:
            raise ModelError(
                f"{self.model!r} says that its vectors have {config.dimensions} numbers, and makes "
                f"{worker.engine.dimensions}. Its configuration belongs to another model; get the "
                "model anew."
            )
        return worker


_embedders: WeakSet[Embedder] = WeakSet()


def _start_anew() -> None:
    for embedder in list(_embedders):
        embedder._start()


after_fork(_start_anew)
