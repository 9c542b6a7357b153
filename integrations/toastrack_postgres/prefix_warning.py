"""What is said of an index on the first numbers of vectors that may not be made for it."""

from __future__ import annotations

from toastrack import Embedder
from toastrack.stores import StoreFlow, compare_with_exact, warn_at_caller
from toastrack_postgres.backend import PostgresBackend
from toastrack_postgres.search_plan import SearchOptions
from toastrack_postgres.session import Session

_K = 10
_SAMPLE = 200
# Exact searches in a large table take long, and some dozens of them tell enough.
_SECONDS = 60.0


async def warn_of_prefix(
    flow: StoreFlow[Session, SearchOptions], backend: PostgresBackend, embedder: Embedder
) -> None:
    """Warn how much of the best rows it finds, unless the model says that it was trained for it."""
    if embedder.is_matryoshka:
        return
    trial = await flow.perform(backend.prefix_trial, _K, reads=True)
    asked = await flow.perform(backend.sample, _SAMPLE, reads=True)
    found = "not known, as there are no rows"
    if asked:
        table = await compare_with_exact(
            flow,
            asked,
            k=_K,
            asked_with="rows",
            exact=SearchOptions(),
            trials=[trial],
            seconds=_SECONDS,
        )
        found = f"{table.rows[1].recall:.1%} of the best {_K}, asked with {table.queries} rows"
    warn_at_caller(
        f"Table {backend.label!r}: what searches by the {trial.index} find is {found}. The model "
        f"{embedder.model!r} does not say that its first numbers were trained to stand for all of a "
        "vector (Matryoshka). A longer prefix= or more oversampling= finds more, and so may "
        "kind='binary'; recall() compares them.",
        UserWarning,
    )
