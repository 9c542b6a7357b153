"""Passages of a baker's handbook from a store of toastrack's, in a chain of LangChain.

pip install '.[local,langchain,qdrant]'
python examples/langchain_retriever.py ["A QUESTION" [MODEL]]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from qdrant_client import QdrantClient

from toastrack import DEFAULT_MODEL, Embedder, ingest
from toastrack_langchain import ToastrackRetriever
from toastrack_qdrant import QdrantStore

HANDBOOK = Path(__file__).parent / "handbook"
QUESTION = "My bread smells like fruit salad and the middle pulls into slimy strings. Why?"
PROMPT = ChatPromptTemplate.from_template(
    "Answer from these passages alone.\n\n{passages}\n\nQuestion: {question}"
)


def written_out(found: dict[str, Any]) -> dict[str, str]:
    """Write the passages as the prompt wants them."""
    passages: list[Document] = found["passages"]
    text = "\n\n".join(f"[{n}] {passage.page_content}" for n, passage in enumerate(passages, 1))
    return {"passages": text, "question": found["question"]}


def main(question: str = QUESTION, model: str = DEFAULT_MODEL) -> None:
    """Fill a store with the handbook, find what bears on the question, ask for an answer."""
    # It needs no network. For a real answer change this line, for instance to
    #     llm = init_chat_model("openai:gpt-5-mini")     # from langchain.chat_models
    llm = FakeListChatModel(responses=["(what a language model makes of them)"])

    with QdrantStore(QdrantClient(":memory:"), "handbook", embedder=Embedder(model)) as store:
        ingest(HANDBOOK, store)
        # rerank=Reranker() would read the best 50 again and choose among them.
        retriever = ToastrackRetriever(store=store, k=3)
        found = RunnableParallel(passages=retriever, question=RunnablePassthrough())
        answered = RunnableLambda(written_out) | PROMPT | llm | StrOutputParser()
        result = found.assign(answer=answered).invoke(question)
    print("Question:", question)
    for passage in result["passages"]:
        print(f"{passage.metadata['relevance_score']:.3f}  {passage.id}")
    print("Answer:  ", result["answer"])


if __name__ == "__main__":
    main(*sys.argv[1:])
