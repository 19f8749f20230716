"""Whether updates and deletes of published tables pass, and name their row."""

from collections.abc import Iterator
from random import Random

from psycopg import sql

from checks.check import Observation, check
from checks.subjects import SourceServer
from fixtures.faults import server
from fixtures.scratch import Damage, Scratch

_DEFAULT, _INDEX, _FULL = "d", "i", "f"
# changes are written to partitions, whatever the publication calls them; and the server takes no
# index as an identity that is not valid, or is checked only when a transaction commits
_IDENTITIES = """
    with published as (
        select c.oid, c.relkind from pg_publication_tables p
          join pg_namespace n on n.nspname = p.schemaname
          join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
         where p.pubname = %s),
    leaves as (
        select oid from published where relkind <> 'p' union
        select relid from published, pg_partition_tree(oid) where relkind = 'p' and isleaf)
    select concat_ws('.', n.nspname, c.relname) as name, c.relreplident as identity,
           coalesce(bool_or(i.indisprimary), false) as keyed,
           coalesce(bool_or(i.indisreplident), false) as indexed
      from leaves join pg_class c using (oid) join pg_namespace n on n.oid = c.relnamespace
      left join pg_index i on i.indrelid = c.oid and i.indisvalid and i.indimmediate
     group by 1, 2 order by 1
"""


@check(
    "cdc.published-rows-have-an-identity",
    on=SourceServer,
    severity="blocker",
    advice="Its updates and deletes end in an error, in the application: give the table a primary "
    "key, or `alter table … replica identity using index …` or `full`.",
)
def published_rows_have_an_identity(source: SourceServer) -> Iterator[Observation]:
    """Each published table and partition has a replica identity that the server can use."""
    name = source.config.cdc.publication
    yield Observation(name, None)  # one without tables is another check's finding
    for row in source.rows(_IDENTITIES, name):
        yield Observation(row.pop("name"), _lacking(**row))


def _lacking(identity: str, *, keyed: bool, indexed: bool) -> str | None:
    if identity == _FULL:
        return None
    if identity == _DEFAULT:
        lacks = "its replica identity is its primary key, and it has none that the server can use"
        return None if keyed else lacks
    if identity == _INDEX:
        return None if indexed else "the index that is its replica identity is gone"
    return "its replica identity is nothing: updates and deletes are refused"


@published_rows_have_an_identity.detects
def identity_removed(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A migration that rebuilt the primary key and forgot the rest."""
    server.execute(scratch, "alter table shop.orders replica identity nothing")
    return Damage("shop.orders", "its replica identity is nothing", says="identity is nothing")


@published_rows_have_an_identity.detects
def identity_index_dropped(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """An index that no query used; the table goes on to name it as its identity."""
    server.execute(
        scratch,
        "create unique index orders_own on shop.orders (id)",
        "alter table shop.orders replica identity using index orders_own",
        "drop index shop.orders_own",
    )
    return Damage("shop.orders", "its index was dropped", says="the index that is")


@published_rows_have_an_identity.detects
def key_dropped(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A primary key that was dropped for a load."""
    server.execute(scratch, "alter table shop.orders drop constraint orders_pkey")
    return Damage("shop.orders", "its primary key was dropped", says="it has none")


@published_rows_have_an_identity.detects
def key_made_deferrable(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A primary key that swaps may break for a moment: the server takes it for no identity."""
    server.execute(
        scratch,
        "alter table shop.orders drop constraint orders_pkey",
        "alter table shop.orders add primary key (id) deferrable",
    )
    return Damage("shop.orders", "its key is deferrable", says="none that the server can use")


@published_rows_have_an_identity.detects
def partition_without_one(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A partition that was attached with an identity of its own, published as its root."""
    number = rng.randrange(100)
    name = sql.Identifier(scratch.config.cdc.publication)
    partition = sql.Identifier("shop", f"visits_{number}")
    add = sql.SQL("alter publication {} add table shop.visits")
    via = sql.SQL("alter publication {} set (publish_via_partition_root)")
    nothing = sql.SQL("alter table {} replica identity nothing")
    server.execute(
        scratch,
        "create table shop.visits (id bigint primary key) partition by hash (id)",
        sql.SQL(
            "create table {} partition of shop.visits for values with (modulus 1, remainder 0)"
        ).format(partition),
        *(change.format(name) for change in (add, via)),
        nothing.format(partition),
    )
    return Damage(f"shop.visits_{number}", "its identity is nothing", says="identity is nothing")
