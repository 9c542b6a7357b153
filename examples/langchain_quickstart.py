"""LangChain in ten lines: put documents in, ask.

pip install '.[openvino,langchain]'
python examples/langchain_quickstart.py [MODEL]
"""

import sys

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from toastrack.embedder import DEFAULT_MODEL
from toastrack_langchain import ToastrackEmbeddings

embeddings = ToastrackEmbeddings(model=sys.argv[1] if sys.argv[1:] else DEFAULT_MODEL)
store = InMemoryVectorStore(embeddings)  # or any other vector store of LangChain
store.add_documents(
    [
        Document("Rye bread keeps for a week.", metadata={"flour": "rye"}),
        Document("A baguette is stale by the evening.", metadata={"flour": "wheat"}),
    ]
)
for document, score in store.similarity_search_with_score("which bread stays fresh?", k=2):
    print(f"{score:.2f}  {document.page_content}")
