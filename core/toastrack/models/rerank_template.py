"""What the family mxbai-rerank-v2 is asked: the words around a query and a document, and its answers."""

from __future__ import annotations

from collections.abc import Callable

from toastrack.errors import ModelError
from toastrack.models.config import CONFIG_FILE, ModelConfig
from toastrack.models.json_files import read_json
from toastrack.models.modules import LOGIT_SCORE, read_modules
from toastrack.models.tokenizer import Frame, Tokenizer

# As it was trained, and as its authors publish it: https://github.com/mixedbread-ai/mxbai-rerank
FRAME = Frame(
    before=(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\nquery: "
    ),
    between="\ndocument: ",
    after=(
        "\nYou are a search relevance expert who evaluates how well documents match search "
        "queries. For each query-document pair, carefully analyze the semantic relationship "
        "between them, then provide your binary relevance judgment (0 for not relevant, 1 for "
        "relevant).\nRelevance:<|im_end|>\n<|im_start|>assistant\n"
    ),
)
YES, NO = "1", "0"

_ONLY = (
    "toastrack asks language models only as mxbai-rerank-v2 wants it. Choose one of that family, or "
    "a cross-encoder with one label."
)


def answers(config: ModelConfig, tokenizer: Tokenizer) -> tuple[int, int]:
    """Return the numbers of the tokens whose logits are compared: of "1", and of "0".

    Raises ``ModelError`` if the model's own files name others: it learned to answer otherwise.
    """
    modules = read_modules(config.folder, "reranking")
    place = next(module.path for module in modules if module.kind == LOGIT_SCORE)
    path = config.folder / place / CONFIG_FILE
    values = read_json(path)
    wanted = (tokenizer.token_id(YES), tokenizer.token_id(NO))
    if None in wanted or (values.get("true_token_id"), values.get("false_token_id")) != wanted:
        raise ModelError(
            f"{str(path)!r} compares the tokens {values.get('true_token_id')!r:.20} and "
            f"{values.get('false_token_id')!r:.20}, and in its tokenizer {YES!r} and {NO!r} are "
            f"{wanted[0]} and {wanted[1]}: {_ONLY}"
        )
    return wanted[0], wanted[1]  # type: ignore[return-value]  # neither is None here


def check_template(config: ModelConfig, render: Callable[[str, str], str]) -> None:
    """Raise ``ModelError`` if the model's own template asks in other words.

    ``render`` puts a query and a document into that template. White space at its end is passed
    over: template files lose their last line break easily, and what is sent is not theirs.
    """
    for query, document in (("bread", "Rye keeps."), ("what rises?", "dough,\nwhen warm")):
        rendered = render(query, document)
        if rendered.rstrip() != FRAME.around(query, document).rstrip():
            raise ModelError(
                f"The chat template of {str(config.folder)!r} asks {rendered!r:.200}, and {_ONLY}"
            )
