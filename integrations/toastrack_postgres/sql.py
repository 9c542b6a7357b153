"""The statements about one table: made, filled, asked and indexed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from psycopg import sql

from toastrack.errors import StoreError
from toastrack.stores import renewing_property_locks
from toastrack_postgres.codec import VectorType
from toastrack_postgres.columns import NAMES, Found
from toastrack_postgres.index_kinds import Indexed

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# NAMEDATALEN - 1; Postgres cuts longer names without a word.
# https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS
_MAX_NAME_BYTES = 63

_EVERY_ROW = sql.SQL("true")
_FIELDS = sql.SQL("id, coalesce(text, ''), metadata::text, coalesce(document_id, id), chunk")


def check_name(what: str, name: str) -> str:
    """Return a schema or table name, or raise ``StoreError`` if Postgres would change it."""
    if not name or "\0" in name:
        raise StoreError(f"{what} {name!r} is not a name.")
    size = len(name.encode("utf-8"))
    if size > _MAX_NAME_BYTES:
        raise StoreError(
            f"{what} {name!r} is {size} bytes long; Postgres keeps {_MAX_NAME_BYTES} and would "
            "cut the rest. Choose a shorter one."
        )
    return name


def _identifier(*names: str) -> sql.Identifier:
    """Quote a name for a statement whose ``%`` are placeholders."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))


def _written_out(statement: sql.Composed) -> sql.Composed:
    """Write out what is sent so often that composing it each time would be seen."""
    return sql.Composed([sql.SQL(statement.as_string(None))])


@renewing_property_locks
class Statements:
    """The statements about one table; names are quoted, values are always parameters.

    ``oid`` is the table's, and ``embedding_column`` the number in it, once they are known.
    """

    def __init__(
        self,
        *,
        schema: str,
        table: str,
        extension_schema: str,
        oid: int = 0,
        embedding_column: int = 0,
        columns: Found | None = None,
        where: sql.Composable | None = None,
    ) -> None:
        self.table = _identifier(schema, table)
        self._columns = columns
        self._where = where
        self._made_with: dict[str, Any] = {
            "schema": schema,
            "table": table,
            "extension_schema": extension_schema,
            "oid": oid,
            "embedding_column": embedding_column,
            "columns": columns,
        }
        named = {} if columns is None else columns.names
        self._names: dict[str, sql.Composable] = {
            **{f"at_{name}": _identifier(named.get(name, name)) for name in NAMES},
            "json": sql.SQL("json" if columns and columns.metadata_type == "json" else "jsonb"),
            "table": self.table,
            "schema": _identifier(schema),
            "distance": sql.SQL("operator({}.<=>)").format(_identifier(extension_schema)),
            "hamming": sql.SQL("operator({}.<~>)").format(_identifier(extension_schema)),
        }
        self._extension_schema = extension_schema
        self._schema = schema
        # Under its own name, by which a condition of the user's may call it.
        rows = self._rows()
        self.rows = self.table if columns is None else rows
        self.rows_t = sql.SQL("{} t").format(self.table) if columns is None else rows
        self._names |= {"rows": self.rows, "rows_t": self.rows_t}
        # Who names the table in a statement holds its name until the transaction ends: after this
        # row was read no other table takes its place.
        self._names["found"] = sql.SQL(
            """
            (select to_regclass({name})::oid as oid,
                    col_description({oid}, {column}) as comment
             where not exists (select from {table} where false))
            """
        ).format(
            table=self.table,
            name=sql.Literal(self.table.as_string(None)),
            oid=sql.Literal(oid),
            column=sql.Literal(embedding_column),
        )
        # By a number that stands there, as the server takes longer to plan for one that it must find.
        self._names["indexes"] = sql.SQL(
            """
            array(select i.indexrelid from pg_index i
                  where i.indrelid = {oid} and i.indisvalid order by i.indexrelid)::text
            """
        ).format(oid=sql.Literal(oid))
        self._unfiltered: dict[bool, sql.Composed] = {}

    def _rows(self, chosen: sql.Composable | None = None) -> sql.Composable:
        """The table as ours are, for what is read: what others call otherwise under our names.

        The planner sees through it, so that an index serves as it would without.
        """
        if self._columns is None:
            return self.table
        columns = self._columns
        document: sql.Composable = self._read("document_id", "text")
        if "document_id" not in columns.names and columns.document_field is not None:
            document = sql.SQL("nullif({}->>{}, 'None')").format(
                self._read("metadata", "jsonb"), sql.Literal(columns.document_field)
            )
        return self._sql(
            """
            (select {at_id}::text as id, {document} as document_id, {chunk} as chunk,
                    {text} as text, {metadata} as metadata, {text_hash} as text_hash,
                    {at_embedding} as embedding, {source} as source, {at_id} as own_id,
                    tableoid as part, ctid as place
             from {table} {chosen} where {at_id} is not null and {where}) t
            """,
            document=document,
            chunk=self._read("chunk", "bigint"),
            text=self._read("text", "text"),
            metadata=self._read("metadata", "jsonb"),
            text_hash=self._read("text_hash", "bytea"),
            source=self._read("source", "text"),
            chosen=chosen or sql.SQL(""),
            where=self._where or _EVERY_ROW,
        )

    def _sampled(self, sampled: sql.Composable | None) -> sql.Composable:
        if self._columns is not None:
            return self._rows(sampled)
        return sql.SQL("{} {}").format(self.table, sampled or sql.SQL(""))

    def _read(self, name: str, kind: LiteralString) -> sql.Composable:
        assert self._columns is not None
        there = name in self._columns.names
        column = self._names[f"at_{name}"] if there else sql.SQL("null")
        return sql.SQL("{}::{}").format(column, sql.SQL(kind))

    @property
    def text_column(self) -> str:
        """What the table calls its column of texts."""
        return "text" if self._columns is None else self._columns.names["text"]

    @property
    def embedding_column(self) -> str:
        """What it calls that of its vectors."""
        return "embedding" if self._columns is None else self._columns.names["embedding"]

    def narrowed(self, where: sql.Composable) -> Statements:
        """Return the statements about the rows that pass a condition on the table's own columns."""
        return Statements(**self._made_with, where=where)

    def _sql(self, statement: LiteralString, /, **names: sql.Composable) -> sql.Composed:
        return sql.SQL(statement).format(**self._names, **names)

    def _once(self, statement: LiteralString, /) -> sql.Composed:
        return _written_out(self._sql(statement))

    @property
    def create_schema(self) -> sql.Composed:
        return self._sql("create schema {schema}")

    def create_table(self, kind: str, dimensions: int) -> sql.Composed:
        return self._sql(
            """
            create table {table} (
                id text primary key,
                document_id text,
                chunk int,
                text text,
                metadata jsonb,
                text_hash bytea,
                embedding {kind}({dimensions}),
                source text
            )
            """,
            kind=_identifier(self._extension_schema, kind),
            dimensions=sql.Literal(dimensions),
        )

    @property
    def add_source(self) -> sql.Composed:
        return self._sql("alter table {table} add column if not exists {at_source} text")

    @property
    def create_document_index(self) -> sql.Composed:
        return self._sql("create index on {table} (document_id)")

    @property
    def is_empty(self) -> sql.Composed:
        return self._sql("select not exists (select from {table})")

    def comment(self, text: str) -> sql.Composed:
        return self._sql(
            "comment on column {table}.{at_embedding} is {text}",
            text=sql.Literal(text.replace("%", "%%")),
        )

    @cached_property
    def found(self) -> sql.Composed:
        """What the name stands for at this moment: (oid, comment on the column embedding)."""
        return self._once("select found.oid, found.comment from {found} found")

    @cached_property
    def search_settings(self) -> sql.Composed:
        """What the index reads at least; answers with ``found``, which saves a statement.

        And with the indexes that are valid, so that one is noticed that came or went.

        https://github.com/pgvector/pgvector#query-options, #iterative-index-scans
        """
        return self._once(
            """
            select found.oid, found.comment, {indexes},
                   set_config('hnsw.ef_search', %s, true),
                   set_config('hnsw.iterative_scan', %s, true)
            from {found} found
            """
        )

    @cached_property
    def found_indexes(self) -> sql.Composed:
        """As ``search_settings``, without settings."""
        return self._once("select found.oid, found.comment, {indexes} from {found} found")

    @cached_property
    def found_to_fill(self) -> sql.Composed:
        """As ``found``, whether new rows may be copied into it, and by whom: (oid, comment, may copy, pid).

        COPY does not know rules and is refused under row-level security. Into the parts of a
        partitioned table it writes in an order of its own, so that two writers could wait for each
        other. And with an index of the vectors a row takes long, and one statement for many could
        run into a timeout.
        """
        return self._once(
            """
            select found.oid, found.comment, (
                select c.relkind = 'r' and not c.relhasrules and not row_security_active(c.oid)
                   and not exists (
                       select from pg_index i join pg_class x on x.oid = i.indexrelid
                       join pg_am m on m.oid = x.relam
                       where i.indrelid = c.oid and m.amname in ('hnsw', 'ivfflat'))
                from pg_class c where c.oid = found.oid),
                pg_backend_pid()
            from {found} found
            """
        )

    def copy(self, *, sources: bool) -> sql.Composed:
        """Copy rows that are new; ``sources`` says that there is a column for them."""
        return self._sql(
            """
            copy {table} (id, document_id, chunk, text, metadata, text_hash, embedding {source})
            from stdin (format binary)
            """,
            source=sql.SQL(", source" if sources else ""),
        )

    @property
    def stored_hashes(self) -> sql.Composed:
        """The rows that are there: (position, text_hash), null for one without a vector.

        One more, at -1, has ``found``, to save a round trip: (-1, null, oid, comment).
        """
        return self._sql(
            """
            select u.position::int - 1, t.text_hash, null::oid, null::text
            from unnest(%(ids)b::text[]) with ordinality u (id, position)
            -- By the index on the ids: a join reads all of a smaller table, the vectors, too.
            cross join lateral (
                select case when embedding is not null then text_hash end as text_hash
                from {rows} where id = u.id limit 1
            ) t
            union all select -1, null, found.oid, found.comment from {found} found
            """
        )

    def same_rest(self, *, sources: bool) -> sql.Composed:
        """Positions of those whose document, chunk, metadata and source are stored already.

        One more, at -1, has ``found``: (-1, oid, comment).
        """
        return self._sql(
            """
            select u.position::int - 1, null::oid, null::text
            from unnest(%(ids)b::text[], %(documents)b::text[], %(chunks)b::int[],
                        %(metadata)b::text[], %(sources)b::text[])
                 with ordinality u (id, document_id, chunk, metadata, source, position)
            cross join lateral (
                select document_id, chunk, metadata {source} from {rows} where id = u.id limit 1
            ) t
            where t.document_id is not distinct from u.document_id
              and t.chunk is not distinct from u.chunk
              and t.metadata::text is not distinct from u.metadata::jsonb::text
              and {same_source}
            union all select -1, found.oid, found.comment from {found} found
            """,
            source=sql.SQL(", source" if sources else ""),
            same_source=sql.SQL(
                "t.source is not distinct from coalesce(u.source, t.source)"
                if sources
                else "u.source is null"
            ),
        )

    @property
    def lock(self) -> sql.Composed:
        # Writers that lock rows in different orders deadlock, so all are locked first, by id.
        return self._sql(
            """
            select from {rows}
            where id = any(%(ids)b::text[]) or document_id = any(%(documents)b::text[])
               or document_id is null and id = any(%(documents)b::text[])
            order by id collate "C" for update
            """
        )

    def upsert(self, *, sources: bool) -> sql.Composed:
        """Insert rows or update them as a whole; ``sources`` says that there is that column."""
        return self._sql(
            """
            insert into {table} as t
                ({at_id}, {at_document_id}, {at_chunk}, {at_text}, {at_metadata}, {at_text_hash},
                 {at_embedding} {source})
            select u.id, u.document_id, u.chunk, u.text, u.metadata::{json}, u.text_hash,
                   u.embedding {new_source}
            from unnest(%(ids)b::text[], %(documents)b::text[], %(chunks)b::int[],
                        %(texts)b::text[], %(metadata)b::text[], %(hashes)b::bytea[], %(vectors)b,
                        %(sources)b::text[])
                 u (id, document_id, chunk, text, metadata, text_hash, embedding, source)
            order by u.id collate "C"
            on conflict ({at_id}) do update set
                {at_document_id} = excluded.{at_document_id}, {at_chunk} = excluded.{at_chunk},
                {at_text} = excluded.{at_text}, {at_metadata} = excluded.{at_metadata},
                {at_text_hash} = excluded.{at_text_hash},
                {at_embedding} = excluded.{at_embedding} {set_source}
            """,
            source=self._sql(", {at_source}" if sources else ""),
            new_source=sql.SQL(", u.source" if sources else ""),
            set_source=self._set_source(
                self._sql("excluded.{at_source}"), self._sql("excluded.{at_document_id}")
            )
            if sources
            else sql.SQL(""),
        )

    def update_metadata(self, *, sources: bool) -> sql.Composed:
        """Update all but text and vector; ``sources`` says that there is a column for them."""
        return self._sql(
            """
            with locked as (
                select u.* from unnest(%(ids)b::text[], %(documents)b::text[], %(chunks)b::int[],
                                       %(metadata)b::text[], %(hashes)b::bytea[],
                                       %(sources)b::text[])
                              u (id, document_id, chunk, metadata, text_hash, source)
                -- A row that got another text since it was compared is not ours to describe.
                join {rows_t} on t.id = u.id and t.text_hash is not distinct from u.text_hash
                order by u.id collate "C" for update of t
            )
            update {table} t
            set {at_document_id} = u.document_id, {at_chunk} = u.chunk,
                {at_metadata} = u.metadata::{json} {set_source}
            from locked u where t.{at_id} = u.id
            """,
            set_source=self._set_source(sql.SQL("u.source"), sql.SQL("u.document_id"))
            if sources
            else sql.SQL(""),
        )

    def _set_source(self, source: sql.Composable, document: sql.Composable) -> sql.Composable:
        """Keep the source of a row that says nothing of it, while it is of the same document."""
        return self._sql(
            ", {at_source} = coalesce({source}, case when "
            "coalesce(t.{at_document_id}, t.{at_id}) = {document} then t.{at_source} end)",
            source=source,
            document=document,
        )

    @property
    def stored_sources(self) -> sql.Composed:
        """Documents that have a source, with that and the number of their rows."""
        return self._sql(
            """
            select coalesce(document_id, id), max(source), count(*) from {rows}
            where document_id = any(%(documents)b::text[])
               or document_id is null and id = any(%(documents)b::text[])
            group by 1 having max(source) is not null
            """
        )

    @property
    def has_other_source(self) -> sql.Composed:
        return self._sql(
            "select exists (select from {rows} where source <> all(%(sources)b::text[]))"
        )

    def source_page(self, *, named: bool) -> sql.Composed:
        """The next documents of some sources, or of those without one."""
        return self._sql(
            """
            select coalesce(document_id, id) collate "C" from {rows}
            where %(after)s::text is null or coalesce(document_id, id) collate "C" > %(after)s
            group by 1 having {condition} order by 1 limit %(limit)s
            """,
            condition=sql.SQL(
                "bool_or(source = any(%(sources)b::text[]))" if named else "max(source) is null"
            ),
        )

    @property
    def delete_stale(self) -> sql.Composed:
        """Delete the rows of documents that are not among the ids kept."""
        return self._sql(
            """
            with stale as (
                select id from {rows}
                where (document_id = any(%(documents)b::text[])
                       or document_id is null and id = any(%(documents)b::text[]))
                  and id <> all(%(keep)b::text[])
                order by id collate "C" for update
            )
            delete from {table} t using stale where t.{at_id} = stale.id
            """
        )

    @property
    def delete(self) -> sql.Composed:
        return self._sql(
            """
            with doomed as (
                select id from {rows}
                where id = any(%(ids)b::text[])
                   or document_id = any(%(documents)b::text[])
                   or document_id is null and id = any(%(documents)b::text[])
                order by id collate "C" for update
            )
            delete from {table} t using doomed where t.{at_id} = doomed.id
            """
        )

    @property
    def get(self) -> sql.Composed:
        return self._sql(
            "select {fields} from {rows} where {among}", fields=_FIELDS, among=self._among
        )

    @property
    def chunks(self) -> sql.Composed:
        """The rows of documents between two chunk numbers."""
        return self._sql(
            """
            select {fields} from {rows}
            join unnest(%(documents)b::text[], %(firsts)b::bigint[], %(lasts)b::bigint[])
                 span (document, first, last)
            on document_id = span.document and chunk between span.first and span.last
            """,
            fields=_FIELDS,
        )

    def read(self, kind: str | None) -> sql.Composed:
        """The rows of some ids, with their hash and, of a kind, their vector."""
        return self._sql(
            "select {fields}, text_hash, {vector} from {rows} where {among}",
            fields=_FIELDS,
            vector=self._sent(kind),
            among=self._among,
        )

    def read_page(self, kind: str | None, condition: sql.Composable) -> sql.Composed:
        """The next rows that match, in the order of an index on the ids."""
        if self._columns is not None:
            return self._page_of_others(self._columns, kind, condition)
        return self._sql(
            """
            select {fields}, text_hash, {vector} from {table}
            where (%(toastrack_after)s::text is null or id > %(toastrack_after)s) and {condition}
            order by id limit %(toastrack_limit)s
            """,
            fields=_FIELDS,
            vector=self._sent(kind),
            condition=condition,
        )

    def _page_of_others(
        self, columns: Found, kind: str | None, condition: sql.Composable
    ) -> sql.Composed:
        """The same where an id may stand twice; behind it, by what more is asked for."""
        return self._sql(
            """
            select {fields}, array[id, part::text, place::text], text_hash, {vector} from {rows}
            where (%(toastrack_after)s::text[] is null
                   or (own_id, part, place) > ((%(toastrack_after)s::text[])[1]::{id_type},
                                               (%(toastrack_after)s::text[])[2]::oid,
                                               (%(toastrack_after)s::text[])[3]::tid))
              and {condition}
            order by own_id, part, place limit %(toastrack_limit)s
            """,
            fields=_FIELDS,
            vector=self._sent(kind),
            id_type=sql.SQL(columns.id_type if columns.casts_id else "text"),
            condition=condition,
        )

    @property
    def _among(self) -> sql.Composable:
        """The rows of some ids; by the type of their column, so that its index serves."""
        if self._columns is None or not self._columns.casts_id:
            return sql.SQL("id = any(%(ids)b::text[])")
        kind = sql.SQL(self._columns.id_type)
        return sql.SQL("own_id = any(%(ids)b::text[]::{}[])").format(kind)

    @property
    def dimensions(self) -> sql.Composed:
        """How many numbers the vectors have where their column does not say; one row each size."""
        function = _identifier(self._extension_schema, "vector_dims")
        return self._sql(
            "select {function}(embedding) from {rows} where embedding is not null limit 1",
            function=function,
        )

    def sample(self, kind: str) -> sql.Composed:
        """Rows with a vector, the same ones each time: (id, vector)."""
        return self._sql(
            """
            select id, {vector} from {rows} where embedding is not null
            order by hashtextextended(id::text, 0), id limit %s
            """,
            vector=self._sent(kind),
        )

    def read_sample(self, kind: str, share: float | None) -> sql.Composed:
        """Some rows with a vector, by chance, with their hash: of a share of the pages, in percent."""
        sampled = None
        if share is not None:
            sampled = sql.SQL("tablesample system ({})").format(sql.Literal(share))
        return self._sql(
            """
            select {fields}, text_hash, {vector} from {chosen}
            where embedding is not null order by random() limit %s
            """,
            fields=_FIELDS,
            vector=self._sent(kind),
            chosen=self._sampled(sampled),
        )

    def _sent(self, kind: str | None) -> sql.Composable:
        # As bytes, because the caller's connection may load vectors as it likes.
        if kind is None:
            return sql.SQL("null")
        return sql.SQL("{}(embedding)").format(_identifier(self._extension_schema, f"{kind}_send"))

    def count(self, documents: bool, condition: sql.Composable = _EVERY_ROW) -> sql.Composed:
        what = "distinct coalesce(document_id, id)" if documents else "*"
        return self._sql(
            "select count({what}) from {rows} where {condition}",
            what=sql.SQL(what),
            condition=condition,
        )

    def delete_matching(self, condition: sql.Composable) -> sql.Composed:
        """Delete what matches; of rows that others change meanwhile it looks at what they become."""
        return self._sql(
            """
            with doomed as (
                select id from {rows} where {condition} order by id collate "C" for update
            )
            delete from {table} t using doomed where t.{at_id} = doomed.id
            """,
            condition=condition,
        )

    @property
    def document_ids(self) -> sql.Composed:
        return self._sql(
            """
            select distinct coalesce(document_id, id) collate "C" as document from {rows}
            where %(after)s::text is null or coalesce(document_id, id) collate "C" > %(after)s
            order by document limit %(limit)s
            """
        )

    @property
    def distance(self) -> sql.Composable:
        """The operator of the cosine distance."""
        return self._names["distance"]

    def search(self, conditions: Sequence[sql.Composable], *, exact: bool) -> sql.Composed:
        """The nearest rows: (id, text, metadata, document, chunk, cosine similarity).

        An index can only follow the bare distance, so adding zero makes the search exact
        whatever the planner thinks of it.
        """
        if not conditions and exact in self._unfiltered:
            return self._unfiltered[exact]
        search = self._sql(
            """
            select id, coalesce(text, ''), metadata::text, coalesce(document_id, id), chunk,
                   1 - (embedding {distance} %(toastrack_query)b)
            from {rows} where {conditions}
            order by {order} limit %(toastrack_k)s
            """,
            conditions=sql.SQL(" and ").join([sql.SQL("embedding is not null"), *conditions]),
            order=self._sql(
                "(embedding {distance} %(toastrack_query)b) + 0"
                if exact
                else "embedding {distance} %(toastrack_query)b"
            ),
        )
        if not conditions:
            search = self._unfiltered[exact] = _written_out(search)
        return search

    def search_again(
        self, on: Indexed, storage: VectorType, conditions: Sequence[sql.Composable]
    ) -> sql.Composed:
        """The nearest rows by an index of less than the vectors, compared again by the vectors.

        As ``search``, and behind that how many were compared.
        """
        query = self._sql("%(toastrack_query)b")
        return self._sql(
            """
            with near as materialized (
                select id, text, metadata, document_id, chunk, embedding
                from {rows} where {conditions}
                order by {indexed} {operator} {query} limit %(toastrack_candidates)s
            )
            select id, coalesce(text, ''), metadata::text, coalesce(document_id, id), chunk,
                   1 - (embedding {distance} %(toastrack_query)b), (select count(*) from near)
            from near order by embedding {distance} %(toastrack_query)b limit %(toastrack_k)s
            """,
            conditions=sql.SQL(" and ").join([sql.SQL("embedding is not null"), *conditions]),
            indexed=self._indexed(on, storage, sql.SQL("embedding")),
            query=self._indexed(on, storage, query),
            operator=self._sql("{hamming}" if on.kind == "binary" else "{distance}"),
        )

    def _indexed(self, on: Indexed, storage: VectorType, vector: sql.Composable) -> sql.Composable:
        """What an index is on, of a vector."""
        if on.kind == "full":
            return vector
        size = sql.Literal(on.size)
        if on.kind == "binary":
            function = _identifier(self._extension_schema, "binary_quantize")
            return self._sql(
                "({function}({vector})::bit({size}))", function=function, vector=vector, size=size
            )
        return self._sql(
            "({function}({vector}, 1, {size})::{type}({size}))",
            function=_identifier(self._extension_schema, "subvector"),
            type=_identifier(self._extension_schema, storage),
            vector=vector,
            size=size,
        )

    @property
    def count_vectors(self) -> sql.Composed:
        return self._sql("select count(*) from {rows} where embedding is not null")

    def create_hnsw_index(
        self,
        on: Indexed,
        storage: VectorType,
        *,
        m: int,
        ef_construction: int,
        concurrently: bool,
        partition: tuple[str, str] | None = None,
    ) -> sql.Composed:
        return self._sql(
            "create index {concurrently} on {what} using hnsw ({indexed} {operators}) "
            "with (m = {m}, ef_construction = {ef_construction})",
            concurrently=sql.SQL("concurrently" if concurrently else ""),
            what=self.table if partition is None else _identifier(*partition),
            indexed=self._indexed(on, storage, self._names["at_embedding"]),
            operators=_identifier(self._extension_schema, on.operators(storage)),
            m=sql.Literal(m),
            ef_construction=sql.Literal(ef_construction),
        )

    def has_field(self) -> sql.Composed:
        return self._sql("select exists (select from {table} where jsonb_exists(metadata, %s))")

    def create_filter_index(
        self, name: str, what: sql.Composable, *, concurrently: bool
    ) -> sql.Composed:
        return self._sql(
            "create index {concurrently} {name} on {table} using {what}",
            concurrently=sql.SQL("concurrently" if concurrently else ""),
            name=_identifier(name),
            what=what,
        )

    def describe_index(self, name: str, text: str) -> sql.Composed:
        return self._sql(
            "comment on index {index} is {text}",
            index=_identifier(self._schema, name),
            text=sql.Literal(text.replace("%", "%%")),
        )

    def create_text_index(self, language: str, most: int, *, concurrently: bool) -> sql.Composed:
        """An index of the words at the beginning of the texts, so many characters of each."""
        return self._sql(
            "create index {concurrently} on {table} "
            "using gin (to_tsvector({language}::regconfig, left({at_text}, {most})))",
            concurrently=sql.SQL("concurrently" if concurrently else ""),
            language=sql.Literal(language.replace("%", "%%")),
            most=sql.Literal(most),
        )

    @property
    def analyze(self) -> sql.Composed:
        return self._sql("analyze {table}")

    def drop_index(
        self, name: str, schema: str | None = None, *, concurrently: bool = False
    ) -> sql.Composed:
        return self._sql(
            "drop index {concurrently} {index}",
            concurrently=sql.SQL("concurrently" if concurrently else ""),
            index=_identifier(schema or self._schema, name),
        )
