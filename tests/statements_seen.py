"""By which statements rows came into a table ``docs``, as the table itself notes."""

from __future__ import annotations

from typing import Any


def watch(connection: Any, schema: str) -> None:
    """Let the table note by which statements rows come into it."""
    connection.execute(
        f"""
        create table {schema}.seen (statement text);
        grant insert on {schema}.seen to public;
        create function {schema}.note() returns trigger language plpgsql as $$
        begin
            insert into {schema}.seen select split_part(ltrim(current_query(), E' \\n'), ' ', 1);
            return null;
        end $$;
        create trigger note after insert on {schema}.docs
            for each statement execute function {schema}.note()
        """
    )


def seen(connection: Any, schema: str) -> set[str]:
    """The statements since it was last asked, but for those that were rolled back."""
    rows = connection.execute(f"delete from {schema}.seen returning statement").fetchall()
    return {statement for (statement,) in rows}
