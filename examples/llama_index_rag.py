"""Questions answered from a baker's handbook, with LlamaIndex.

pip install '.[openvino,llama-index]'
python examples/llama_index_rag.py ["A QUESTION" [MODEL]]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback

from toastrack.embedder import DEFAULT_MODEL
from toastrack_llama_index import ToastrackEmbedding

HANDBOOK = Path(__file__).parent / "handbook"
QUESTION = "My bread smells like fruit salad and the middle pulls into slimy strings. Why?"
RULE = "---------------------\n"  # LlamaIndex' prompts put the passages between two of these


class Quoting(CustomLLM):
    """Stands in for a language model: answers with the first passage of the prompt."""

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex fits its prompts to."""
        return LLMMetadata(model_name="quoting")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        """Answer a prompt."""
        first = prompt.split(RULE)[1].split("\n\nsource: ")[0]
        return CompletionResponse(text=first.partition("\n\n")[2].strip())

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **options: Any) -> Any:
        """Answer a prompt, in one piece."""
        yield self.complete(prompt, formatted, **options)


def main(question: str = QUESTION, model: str = DEFAULT_MODEL) -> None:
    """Read the handbook, find what bears on the question, answer from it."""
    # It needs no network. For a real answer change this line, for instance to
    #     llm = OpenAI("gpt-5-mini")     # from llama_index.llms.openai
    llm = Quoting()

    embedding = ToastrackEmbedding(model)
    pages = [
        Document(
            text=path.read_text(encoding="utf-8"),
            metadata={"source": path.relative_to(HANDBOOK).as_posix()},
            # For the language model to cite; in the vector it would blur what the text says.
            excluded_embed_metadata_keys=["source"],
        )
        for path in sorted(HANDBOOK.rglob("*.md"))
    ]
    index = VectorStoreIndex.from_documents(
        pages,
        embed_model=embedding,
        # Measured in the model's own tokens, metadata included, so that nothing is cut.
        transformations=[embedding.node_parser()],
    )
    response = index.as_query_engine(llm=llm, similarity_top_k=3).query(question)
    print("Question:", question)
    print("Sources: ", ", ".join(found.metadata["source"] for found in response.source_nodes))
    print("Answer:  ", response)


if __name__ == "__main__":
    main(*sys.argv[1:])
