"""Names: what Postgres would change is refused, and every other one is quoted."""

from __future__ import annotations

import pytest

pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")

from toastrack.errors import StoreError
from toastrack_postgres.index_kinds import Indexed
from toastrack_postgres.sql import Statements, check_name


@pytest.mark.parametrize(
    "name", ["a", "A b", 'We"ird; drop table r;--', "x" * 63, "ü" * 31 + "x", "100%", "a.b"]
)
def test_names_that_postgres_keeps(name: str) -> None:
    assert check_name("Table", name) == name


@pytest.mark.parametrize("name", ["", "\0", "a\0b", "x" * 64, "ü" * 32, "🍞" * 16])
def test_names_that_postgres_would_change(name: str) -> None:
    with pytest.raises(StoreError, match="Table"):
        check_name("Table", name)


def test_names_are_quoted_wherever_they_stand() -> None:
    statements = Statements(schema='S"1', table='T"2', extension_schema='E"3')
    for statement in (
        statements.create_table("halfvec", 3),
        statements.found,
        statements.search_settings,
        statements.found_indexes,
        statements.stored_hashes,
        statements.upsert(sources=True),
        statements.update_metadata(sources=True),
        statements.same_rest(sources=True),
        statements.add_source,
        statements.stored_sources,
        statements.has_other_source,
        statements.source_page(named=True),
        statements.delete_stale,
        statements.delete,
        statements.get,
        statements.count(True),
        statements.document_ids,
        statements.search([], exact=True),
        statements.search([], exact=False),
        statements.comment("it's"),
        *(
            statement
            for on in (Indexed("full", 3), Indexed("binary", 3), Indexed("prefix", 2))
            for statement in (
                statements.search_again(on, "halfvec", []),
                statements.create_hnsw_index(
                    on, "halfvec", m=16, ef_construction=64, concurrently=True
                ),
            )
        ),
    ):
        text = statement.as_string(None)
        assert '"S""1"."T""2"' in text
        assert 'T"2' not in text.replace('T""2', "")
    assert '"E""3"."halfvec"' in statements.create_table("halfvec", 3).as_string(None)
    assert 'operator("E""3".<=>)' in statements.search([], exact=True).as_string(None)
    again = statements.search_again(Indexed("prefix", 2), "halfvec", []).as_string(None)
    assert '("E""3"."subvector"(embedding, 1, 2)::"E""3"."halfvec"(2))' in again
