"""LlamaIndex in ten lines: put documents in, ask.

pip install '.[openvino,llama-index]'
python examples/llama_index_quickstart.py [MODEL]
"""

import sys

from llama_index.core import Document, VectorStoreIndex

from toastrack_llama_index import ToastrackEmbedding

embedding = ToastrackEmbedding(*sys.argv[1:])
index = VectorStoreIndex.from_documents(  # or over any other vector store of LlamaIndex
    [
        Document(text="Rye bread keeps for a week.", metadata={"flour": "rye"}),
        Document(text="A baguette is stale by the evening.", metadata={"flour": "wheat"}),
    ],
    embed_model=embedding,
    transformations=[embedding.node_parser()],
)
for found in index.as_retriever(similarity_top_k=2).retrieve("which bread stays fresh?"):
    print(f"{found.score:.2f}  {found.text}")
