"""What is asked of the server itself: its catalogue, its settings and its locks."""

EXTENSION = """
    select e.extversion, n.nspname
    from pg_extension e join pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'vector'
"""

CREATE_EXTENSION = "create extension if not exists vector"

VECTOR_TYPES = """
    select t.typname, t.oid, t.typarray
    from pg_type t join pg_namespace n on n.oid = t.typnamespace
    where n.nspname = %s and t.typname in ('vector', 'halfvec')
"""

# By their names as this session writes them.
EXTENSION_TYPES = """
    select t.typname, t.oid::int8, t.typarray::int8, format_type(t.oid, null)
    from pg_type t join pg_extension e on e.extnamespace = t.typnamespace
    where e.extname = 'vector' and t.typname in ('vector', 'halfvec')
"""

CURRENT_SCHEMA = "select current_schema()"

# The table that the name means in this session, or the one in the schema given.
FIND_TABLE = """
    select n.nspname, c.oid, c.relkind
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relname = %(table)s and c.relkind in ('r', 'p', 'v', 'm', 'f')
      and case when %(schema)s::text is null then pg_table_is_visible(c.oid)
          else n.nspname = %(schema)s end
"""

TABLE_COLUMNS = """
    select a.attname, format_type(t.oid, null), t.typname, a.atttypmod,
           col_description(a.attrelid, a.attnum), a.attnum,
           a.attnotnull and not a.atthasdef and a.attidentity = ''
    from pg_attribute a join pg_type t on t.oid = a.atttypid
    where a.attrelid = %s and a.attnum > 0 and not a.attisdropped
"""

# Of a partitioned table all parts'.
PAGES = """
    select (pg_relation_size(%(oid)s::oid::regclass) + coalesce(sum(pg_relation_size(relid)), 0))::int8
           / current_setting('block_size')::int8
    from pg_partition_tree(%(oid)s::oid::regclass)
    where relid <> %(oid)s::oid
"""

# Only who owns a table may comment on its columns.
MAY_ALTER = "select pg_has_role(c.relowner, 'usage') from pg_class c where c.oid = %s"

HAS_UNIQUE_ID = """
    select exists (
        select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where i.indrelid = %s and i.indisunique and i.indisvalid and i.indnkeyatts = 1
          and i.indpred is null and i.indexprs is null and a.attname = %s
    ), exists (select from pg_partitioned_table where partrelid = %s)
"""

# Any index that can answer an ORDER BY on the column, or on what is made of it:
# (name, is valid, is being built, method, operator class, options, column or expression).
VECTOR_INDEXES = """
    select c.relname, i.indisvalid,
           exists (select from pg_stat_progress_create_index p where p.index_relid = c.oid),
           m.amname, o.opcname, coalesce(c.reloptions, '{}'),
           case when i.indpred is null
                then case when i.indkey[0] = 0 then pg_get_expr(i.indexprs, i.indrelid)
                          else 'embedding' end end
    from pg_index i
    join pg_class c on c.oid = i.indexrelid
    join pg_am m on m.oid = c.relam
    join pg_opclass o on o.oid = i.indclass[0]
    left join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = %s and m.amname in ('hnsw', 'ivfflat')
      and (i.indkey[0] = 0 or a.attname = %s)
    order by c.oid
"""

# Postgres builds no index of a partitioned table concurrently, but one of each of its parts.
PARTITIONS = """
    select c.oid, n.nspname, c.relname
    from pg_partition_tree(%(oid)s::oid::regclass) t
    join pg_class c on c.oid = t.relid join pg_namespace n on n.oid = c.relnamespace
    where t.isleaf and t.relid <> %(oid)s::oid
    order by c.oid
"""

# Each with a line of ours in the comment on its embedding column, and whether we made it.
TABLES_WITH_SPACE = """
    select n.nspname, c.relname,
           exists (select from pg_attribute h where h.attrelid = c.oid and h.attname = 'text_hash'
                   and not h.attisdropped)
    from pg_attribute a
    join pg_class c on c.oid = a.attrelid
    join pg_namespace n on n.oid = c.relnamespace
    where a.attname = %s and not a.attisdropped and c.relkind in ('r', 'p')
      and col_description(a.attrelid, a.attnum) ~ '(^|\\n)toastrack [{]'
    order by n.nspname, c.relname
"""

DESCRIPTION = """
    select current_setting('server_version'), (select extversion from pg_extension where extname = 'vector'),
           pg_total_relation_size(%s)
"""

# What can serve a filter: (name, is valid, is on all of the metadata, what we wrote beside it).
FILTER_INDEXES = """
    select c.relname, i.indisvalid, m.amname = 'gin' and a.attname = 'metadata',
           obj_description(c.oid, 'pg_class')
    from pg_index i
    join pg_class c on c.oid = i.indexrelid
    join pg_am m on m.oid = c.relam
    left join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = %s and i.indpred is null and m.amname in ('btree', 'gin')
"""

TRY_BUILD_LOCK = "select pg_try_advisory_xact_lock(hashtextextended('toastrack index', %s))"
TRY_SESSION_BUILD_LOCK = "select pg_try_advisory_lock(hashtextextended('toastrack index', %s))"
SESSION_BUILD_UNLOCK = "select pg_advisory_unlock(hashtextextended('toastrack index', %s))"

# A timeout that suits queries would cancel the build: local to the transaction, or for the
# session where the build cannot run in one.
INDEX_BUILD_SETTINGS = """
    select current_setting('statement_timeout'), current_setting('maintenance_work_mem'),
           set_config('statement_timeout', '0', %(local)s),
           set_config('maintenance_work_mem',
                      case when %(memory)s::text is null
                             or %(at_least)s and pg_size_bytes(%(memory)s)
                                < pg_size_bytes(current_setting('maintenance_work_mem'))
                           then current_setting('maintenance_work_mem') else %(memory)s end,
                      %(local)s)
"""
# A server of ours goes by its name, and listens on a socket in its folder alone.
IS_OWN_SERVER = """
    select current_setting('cluster_name') = %(cluster_name)s
           and current_setting('listen_addresses') = %(listen_addresses)s
"""
CHECK_MEMORY = "select set_config('maintenance_work_mem', %s, true)"
RESTORE_SETTINGS = """
    select set_config('statement_timeout', %s, %s), set_config('maintenance_work_mem', %s, %s)
"""

# The share of the table's blocks that are in the index: https://github.com/pgvector/pgvector#indexing-progress
INDEX_PROGRESS = """
    select blocks_done::float8 / nullif(blocks_total, 0) from pg_stat_progress_create_index
    where relid = %s and phase like 'building index%%'
"""

# In the order given, so that two writers cannot wait for each other.
LOCK_BUCKETS = """
    select pg_advisory_xact_lock(hashtextextended('toastrack documents', %(oid)s) # bucket)
    from unnest(%(buckets)s::bigint[]) bucket
"""

# Only one session at a time creates or records: "create ... if not exists" itself can race.
CREATION_LOCK = "select pg_advisory_xact_lock(hashtextextended('toastrack', 0))"
