"""A search service whose workers share one model, which runs in a process of its own.

    toastrack serve &
    export DATABASE='postgresql://me@localhost/shop'
    uvicorn --app-dir examples shared_model:app --workers 2

No worker loads a model, or even torch: they ask the server that MODEL_SERVER names, by the key in
TOASTRACK_API_KEY where it wants one. What a program filled with the same model opens here as it is.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, TypedDict

from fastapi import FastAPI, Query, Request

from toastrack import DEFAULT_MODEL, Embedder, Hosted, Match, Record
from toastrack_postgres import AsyncPostgresStore


class State(TypedDict):
    """What a worker has one of."""

    store: AsyncPostgresStore


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    """Open the store once in each worker."""
    server = Hosted(base_url=os.environ.get("MODEL_SERVER", "http://127.0.0.1:8080/v1"))
    embedder = Embedder(os.environ.get("MODEL", DEFAULT_MODEL), engine=server)
    async with AsyncPostgresStore(os.environ["DATABASE"], "notes", embedder=embedder) as store:
        yield {"store": store}


app = FastAPI(lifespan=lifespan)


@app.get("/search")
async def search(
    request: Request,
    q: Annotated[str, Query(min_length=1)],
    k: Annotated[int, Query(ge=1, le=100)] = 5,
) -> list[Match]:
    """Return the best notes for a question."""
    store: AsyncPostgresStore = request.state.store
    return await store.search(q, k)


@app.post("/notes")
async def add(request: Request, notes: list[Record]) -> dict[str, int]:
    """Store notes; only what is new or changed is embedded."""
    store: AsyncPostgresStore = request.state.store
    report = await store.upsert(notes)
    return {"embedded": report.embedded, "unchanged": report.unchanged}
