"""Questions answered from a baker's handbook, with LangChain.

pip install '.[openvino,langchain]' langchain-text-splitters
python examples/langchain_rag.py ["A QUESTION" [MODEL]]
"""

from __future__ import annotations

import sys
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from toastrack.embedder import DEFAULT_MODEL
from toastrack_langchain import ToastrackEmbeddings

HANDBOOK = Path(__file__).parent / "handbook"
QUESTION = "My bread smells like fruit salad and the middle pulls into slimy strings. Why?"
PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "Answer from these passages alone. Say so if they do not hold the answer."),
        ("human", "{passages}\n\nQuestion: {question}"),
    ]
)


def quote(prompt: PromptValue) -> AIMessage:
    """Stand in for a language model: answer with the first passage of the prompt."""
    passages = str(prompt.to_messages()[-1].content)
    return AIMessage(passages.partition("\n\n[2] ")[0].removeprefix("[1] "))


def numbered(documents: list[Document]) -> str:
    """Write the passages as the prompt wants them."""
    return "\n\n".join(f"[{n}] {found.page_content}" for n, found in enumerate(documents, 1))


def main(question: str = QUESTION, model: str = DEFAULT_MODEL) -> None:
    """Read the handbook, find what bears on the question, answer from it."""
    # It needs no network. For a real answer change this line, for instance to
    #     llm = init_chat_model("openai:gpt-5-mini")     # from langchain.chat_models
    llm: Runnable[PromptValue, AIMessage] = RunnableLambda(quote)

    embeddings = ToastrackEmbeddings(model=model)
    store = InMemoryVectorStore(embeddings)
    pages = [
        Document(
            path.read_text(encoding="utf-8"),
            metadata={"source": path.relative_to(HANDBOOK).as_posix()},
        )
        for path in sorted(HANDBOOK.rglob("*.md"))
    ]
    # Measured in the model's own tokens, so that nothing is cut when it is embedded.
    store.add_documents(embeddings.splitter().split_documents(pages))

    passages = store.as_retriever(search_kwargs={"k": 3}).invoke(question)
    answer = PROMPT | llm | StrOutputParser()
    print("Question:", question)
    print("Sources: ", ", ".join(found.metadata["source"] for found in passages))
    print("Answer:  ", answer.invoke({"passages": numbered(passages), "question": question}))


if __name__ == "__main__":
    main(*sys.argv[1:])
