"""Passages of a baker's handbook from a store of toastrack's, in a query engine of LlamaIndex.

pip install '.[local,llama-index,qdrant]'
python examples/llama_index_retriever.py ["A QUESTION" [MODEL]]
"""

from __future__ import annotations

import sys
from pathlib import Path

from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from qdrant_client import QdrantClient

from toastrack import DEFAULT_MODEL, Embedder, ingest
from toastrack_llama_index import ToastrackRetriever
from toastrack_qdrant import QdrantStore

HANDBOOK = Path(__file__).parent / "handbook"
QUESTION = "My bread smells like fruit salad and the middle pulls into slimy strings. Why?"


def main(question: str = QUESTION, model: str = DEFAULT_MODEL) -> None:
    """Fill a store with the handbook, find what bears on the question, ask for an answer."""
    # It needs no network. For a real answer change this line, for instance to
    #     llm = OpenAI("gpt-5-mini")     # from llama_index.llms.openai
    llm = MockLLM(max_tokens=4)

    with QdrantStore(QdrantClient(":memory:"), "handbook", embedder=Embedder(model)) as store:
        ingest(HANDBOOK, store)
        # rerank=Reranker() would read the best 50 again and choose among them.
        retriever = ToastrackRetriever(store, similarity_top_k=3)
        response = RetrieverQueryEngine.from_args(retriever, llm=llm).query(question)
    print("Question:", question)
    for found in response.source_nodes:
        print(f"{found.score:.3f}  {found.node.node_id}")
    print("Answer:  ", response)


if __name__ == "__main__":
    main(*sys.argv[1:])
