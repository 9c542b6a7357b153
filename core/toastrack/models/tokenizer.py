"""Count, cut and split texts by the model's own tokenizer."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from toastrack.errors import ModelError, ToastrackError, needs_extra
from toastrack.models.prompts import add_prompt
from toastrack.utils.text import check_unicode

if TYPE_CHECKING:
    import tokenizers
    from semantic_text_splitter import MarkdownSplitter, TextSplitter


@dataclass(frozen=True)
class Tokens:
    """What the model reads at once: ids after the cut, and how many there were before it.

    Of a query with its document ``types`` says for each id which of the two it belongs to.
    """

    ids: Sequence[int]
    uncut: int
    types: Sequence[int] = ()


@dataclass(frozen=True)
class Frame:
    """The words around a query and a text, for a model that is asked about both in one text."""

    before: str
    between: str
    after: str

    def around(self, query: str, text: str) -> str:
        """Return the whole of what the model reads."""
        return f"{self.before}{query}{self.between}{text}{self.after}"


_FILE = Path("tokenizer.json")

# Splitters that are kept; with one limit there is one, rarely one for a token less, and in Markdown
# one for each size of the headings in front, which are counted in steps.
_SPLITTERS = 4
_STEP = 16
# Texts whose ids are kept from a split: two windows of a store, and some.
_KEPT = 2_048
# As mixedbread's own package does: https://github.com/mixedbread-ai/mxbai-rerank
_QUERY_SHARE = (3, 4)


class _Split:
    """The ids of texts that were split, until they are embedded: no text is tokenised twice."""

    def __init__(self) -> None:
        self._ids: dict[str, array[int]] = {}
        self._lock = Lock()

    def keep(self, text: str, ids: Sequence[int]) -> None:
        """Keep the ids of a text, prompt included; the oldest make room."""
        with self._lock:
            self._ids[text] = array("I", ids)
            if len(self._ids) > _KEPT:
                del self._ids[next(iter(self._ids))]

    def take(self, texts: Sequence[str], max_tokens: int) -> dict[str, Tokens]:
        """Hand out, and forget, the ids of those texts that are known and fit."""
        found: dict[str, Tokens] = {}
        if not self._ids:
            return found
        with self._lock:
            for text in texts:
                ids = self._ids.pop(text, None)
                if ids is not None and len(ids) <= max_tokens:
                    found[text] = Tokens(ids.tolist(), len(ids))
        return found


class Tokenizer:
    """Wraps a ``tokenizers.Tokenizer``; never changes the one it was given.

    Limits and counts include the special tokens that the model adds. ``source`` is what errors
    name, and ``extra`` brings the packages it needs.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, *, source: Path = _FILE, extra: str = "local"
    ) -> None:
        self._source = source
        self._extra = extra
        self._uncut = _copy(backend)
        self._uncut.no_truncation()
        self._uncut.no_padding()
        self._specials: int = self._uncut.num_special_tokens_to_add(False)
        self._pair_specials: int = self._uncut.num_special_tokens_to_add(True)
        self._cutting: dict[tuple[int, str], tokenizers.Tokenizer] = {}
        self._splitters: dict[tuple[int, int, bool], TextSplitter | MarkdownSplitter] = {}
        self._split = _Split()

    @classmethod
    def from_folder(
        cls, folder: Path, *, lower_case: bool = False, extra: str = "local"
    ) -> Tokenizer:
        """Load the tokenizer of a model's folder, without torch where it ships ``tokenizer.json``.

        ``lower_case`` puts a lower-caser in front of it, as the model's configuration can ask for.
        """
        with needs_extra(extra, "tokenizers"):
            import tokenizers
        path = folder / "tokenizer.json"
        if path.is_file():
            with _faults(f"{str(path)!r} is not a tokenizer"):
                backend = tokenizers.Tokenizer.from_file(str(path))
                if lower_case:
                    own = [backend.normalizer] if backend.normalizer else []
                    backend.normalizer = tokenizers.normalizers.Sequence(
                        [tokenizers.normalizers.Lowercase(), *own]
                    )
                return cls(backend, source=path, extra=extra)
        with needs_extra("local", "transformers"):
            from transformers import AutoTokenizer
        with _faults(f"{str(folder)!r} has no tokenizer that can be read"):
            # Without its own answer transformers would ask on the terminal whether to run code.
            slow = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        fast = getattr(slow, "backend_tokenizer", None)
        if fast is None:
            raise ModelError(f"{str(folder)!r} has no fast tokenizer: tokenizer.json is missing.")
        return cls(fast, source=folder)

    def encode(self, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
        """Turn texts into ids, cut at ``max_tokens``."""
        split = self._split.take(texts, max_tokens)
        cutting = self._cut_at(max_tokens)
        encodings = iter(self._encode(cutting, [text for text in texts if text not in split]))
        result = []
        for text in texts:
            if text in split:
                result.append(split[text])
                continue
            encoding = next(encodings)
            ids = encoding.ids  # each look makes a new list
            uncut = len(ids) + sum(len(rest) - self._specials for rest in encoding.overflowing)
            result.append(Tokens(ids, uncut))
        return result

    def encode_pairs(self, query: str, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
        """Turn a query with each of the texts into ids, cut at ``max_tokens``.

        The texts are cut, and before that a query over three quarters of the room, so that there is
        something of both. ``uncut`` counts all of both.
        """
        kept, lost = self._cut_query(query, self.room_for_pairs(max_tokens))
        (alone,) = self._encode(self._uncut, [kept], specials=False)
        fixed = len(alone.ids) + self._pair_specials
        cutting = self._cut_at(max_tokens, "only_second")
        result = []
        for encoding in self._encode(cutting, [(kept, text) for text in texts]):
            ids = encoding.ids  # each look makes a new list
            uncut = len(ids) + sum(len(rest) - fixed for rest in encoding.overflowing) + lost
            result.append(Tokens(ids, uncut, encoding.type_ids))
        return result

    def encode_framed(
        self, frame: Frame, query: str, texts: Sequence[str], max_tokens: int
    ) -> list[Tokens]:
        """Turn a query with each of the texts into ids, the frame around them, nothing added.

        Cut as in ``encode_pairs``, and never in the frame: the model answers behind its end.
        """
        kept, lost = self._cut_query(query, self.room_in_frame(frame, max_tokens))
        (end,) = self._encode(self._uncut, [frame.after], specials=False)
        wholes = [frame.around(kept, text) for text in texts]
        result = []
        for encoding in self._encode(self._uncut, wholes, specials=False):
            ids = encoding.ids
            uncut = len(ids) + lost
            if len(ids) > max_tokens:
                ids = ids[: max_tokens - len(end.ids)] + end.ids
            result.append(Tokens(ids, uncut))
        return result

    def room_for_pairs(self, max_tokens: int) -> int:
        """Return how many tokens of query and text fit, beside the special ones."""
        return max_tokens - self._pair_specials

    def room_in_frame(self, frame: Frame, max_tokens: int) -> int:
        """Return how many tokens of query and text fit, beside the frame's."""
        (empty,) = self._encode(self._uncut, [frame.around("", "")], specials=False)
        return max_tokens - len(empty.ids)

    def token_id(self, token: str) -> int | None:
        """Return the number of a token; None if there is no such token."""
        number: int | None = self._uncut.token_to_id(token)
        return number

    def _cut_query(self, query: str, room: int) -> tuple[str, int]:
        """Return as much of a query as may stand before a text, and how many tokens that leaves out."""
        most = max(1, room * _QUERY_SHARE[0] // _QUERY_SHARE[1])
        with _faults(f"{str(self._source)!r} cannot read a text", reading=True):
            check_unicode(query, "the query")
            encoding = self._uncut.encode(query, add_special_tokens=False)
        if len(encoding.ids) <= most:
            return query, 0
        # Cut between characters, as the pair is made of texts.
        return query[: encoding.offsets[most - 1][1]], len(encoding.ids) - most

    def count(self, text: str) -> int:
        """Count the tokens of a text, specials included, nothing cut."""
        return len(self._encode(self._uncut, [text])[0].ids)

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, specials included, nothing cut."""
        return list(self._encode(self._uncut, [text])[0].ids)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """``count`` of each of the texts."""
        return [len(encoding.ids) for encoding in self._encode(self._uncut, texts)]

    def cut(self, text: str, max_tokens: int) -> str:
        """Return as much of a text as fits, cut between characters."""
        with _faults(f"{str(self._source)!r} cannot read a text", reading=True):
            encoding = self._cut_at(max_tokens).encode(text)
        return text[: max((end for _, end in encoding.offsets), default=0)]

    def split(
        self, text: str, *, max_tokens: int, overlap: int, prompt: str, markdown: bool = False
    ) -> list[tuple[int, str]]:
        """Split a text into chunks that each fit ``max_tokens`` with specials and prompt.

        Each comes with where it begins, in characters. A text that fits comes back as it is; blank
        text too. Chunks end at paragraphs, sentences or words, in Markdown at headings, whatever is
        the largest that fits; only white space between chunks is dropped.
        """
        used = self.count(prompt)
        room = max_tokens - used
        if room < 1:
            raise ValueError(
                f"max_tokens={max_tokens} leaves no room for text: the prompt and the special "
                f"tokens take {used}."
            )
        if not 0 <= overlap < room:
            raise ValueError(f"overlap={overlap} must be at least 0 and below the chunk's {room}.")
        if not text.strip():
            return [(0, text)]
        whole = add_prompt(prompt, text)
        if len(ids := self._encode(self._uncut, [whole])[0].ids) <= max_tokens:
            self._split.keep(whole, ids)
            return [(0, text)]
        while room > overlap:
            chunks = self._splitter(room, overlap, markdown).chunk_indices(text)
            if markdown:
                chunks = self._with_headings(text, chunks, room, overlap)
            prompted = [add_prompt(prompt, chunk) for _, chunk in chunks]
            found = [encoding.ids for encoding in self._encode(self._uncut, prompted)]
            longest = max(map(len, found))
            if longest <= max_tokens:
                for chunk, ids in zip(prompted, found, strict=True):
                    self._split.keep(chunk, ids)
                return chunks
            # Prompt and text can merge into other tokens than both alone: ask for less.
            room -= longest - max_tokens
        raise ValueError(f"max_tokens={max_tokens} is too small to split this text.")

    def _with_headings(
        self, text: str, chunks: list[tuple[int, str]], room: int, overlap: int
    ) -> list[tuple[int, str]]:
        """Put headings that fill a chunk of their own before the chunk that they belong to.

        Alone they say next to nothing, and so are near to any question. What follows them is split
        anew, to make room.
        """
        joined: list[tuple[int, str]] = []
        for start, chunk in chunks:
            above, heading = joined[-1] if joined else (0, "")
            taken = -(-len(self._ids(heading)) // _STEP) * _STEP if _is_heading(heading) else room
            if 2 * taken > room or room - taken <= overlap:
                joined.append((start, chunk))
                continue
            (offset, first), *others = (
                [(0, chunk)]
                if _is_heading(chunk)
                else self._splitter(room - taken, overlap, markdown=True).chunk_indices(chunk)
            )
            joined[-1] = above, text[above : start + offset + len(first)]
            joined += [(start + offset, part) for offset, part in others]
        return joined

    def _ids(self, text: str) -> Sequence[int]:
        return self._encode(self._uncut, [text], specials=False)[0].ids

    def _encode(
        self,
        tokenizer: tokenizers.Tokenizer,
        texts: Sequence[str | tuple[str, str]],
        *,
        specials: bool = True,
    ) -> list[tokenizers.Encoding]:
        """Encode texts or pairs; a text that is not valid Unicode is named by its position."""
        with _faults(f"{str(self._source)!r} cannot read a text", reading=True):
            try:
                return list(tokenizer.encode_batch_fast(list(texts), add_special_tokens=specials))
            except (UnicodeEncodeError, TypeError):
                for position, text in enumerate(texts):
                    check_unicode(text if isinstance(text, str) else text[1], f"text {position}")
                raise

    def _splitter(self, room: int, overlap: int, markdown: bool) -> TextSplitter | MarkdownSplitter:
        # Each holds a tokenizer of its own; to make one takes as long as to split ten long texts.
        splitter = self._splitters.get((room, overlap, markdown))
        if splitter is None:
            with needs_extra(self._extra, "semantic_text_splitter"):
                from semantic_text_splitter import MarkdownSplitter, TextSplitter
            if len(self._splitters) >= _SPLITTERS:
                self._splitters.clear()
            kind = MarkdownSplitter if markdown else TextSplitter
            splitter = kind.from_huggingface_tokenizer(self._uncut, room, overlap)
            self._splitters[room, overlap, markdown] = splitter
        return splitter

    def _cut_at(self, max_tokens: int, strategy: str = "longest_first") -> tokenizers.Tokenizer:
        # Switching truncation on a shared tokenizer breaks whoever is using it in another thread.
        cutting = self._cutting.get((max_tokens, strategy))
        if cutting is None:
            cutting = _copy(self._uncut)
            cutting.enable_truncation(max_tokens, strategy=strategy)
            self._cutting[max_tokens, strategy] = cutting
        return cutting


def check_token_ids(highest: int, known: int, folder: Path) -> None:
    """Refuse the number of a token that the model has no vector for.

    OpenVINO reads past the end of its table, and a GPU is of no use to the process afterwards.
    """
    if highest >= known:
        raise ModelError(
            f"The tokenizer of {str(folder)!r} gives token {highest:,} to a model that knows "
            f"{known:,}. Its files belong to two models; get the model anew."
        )


@contextmanager
def _faults(what: str, *, reading: bool = False) -> Iterator[None]:
    """Say which file is at fault for what the library raises.

    While a text is read, only what has no kind of its own is the file's fault.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ToastrackError) or (reading and type(error) is not Exception):
            raise
        raise ModelError(f"{what}: {error}. Get the model anew.") from None
    except BaseException as error:
        # Rust's way to say that something was taken for granted; no subclass of Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"{what}: {error}. Get the model anew.") from None


def _is_heading(chunk: str) -> bool:
    """Tell whether there is nothing but headings in a chunk of Markdown."""
    lines = [line.strip() for line in chunk.splitlines() if line.strip()]
    return bool(lines) and all(
        line.startswith("#") or set(following) in ({"="}, {"-"}) or set(line) in ({"="}, {"-"})
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
    )


def _copy(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    return type(tokenizer).from_str(tokenizer.to_str())
