"""What a database is beside its rows, as text that a restored copy can be compared with.

Owners, grants, policies, default privileges, settings, extensions, publications, and the roles: a
dump without its globals loses them, and every row is there. Passwords are not looked at.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from psycopg import Connection

from pipeline.postgres.base.digests import prepare


def _acl(column: str, kind: str, owner: str) -> str:
    """Privileges in one order; those that nobody changed are the same as none noted."""
    return (
        f"(select string_agg(x::text, ',' order by x::text)"
        f" from unnest(coalesce({column}, acldefault('{kind}', {owner}))) x)"
    )


def _is_own(kind: str, oid: str) -> str:
    """Not a member of an extension: CREATE EXTENSION makes those, of its own version, no dump."""
    return (
        f"not exists (select from pg_depend where deptype = 'e'"
        f" and classid = '{kind}'::regclass and objid = {oid})"
    )


FOR_ALL_ROLES = "setting of all roles"
"""ALTER ROLE ALL: none of PostgreSQL's programs dumps it."""
_USERS = "n.nspname <> 'information_schema' and n.nspname !~ '^pg_'"
_OF_OWN = f"{_USERS} and {_is_own('pg_class', 'c.oid')}"
# no dump has an index that is not valid; what a partition's key is called hangs on what came first
# each part gives a name, what is stated of it, and the table that it belongs to, if any; identities
# are spelled by the server
_PARTS = f"""
    select 'role ' || rolname as name,
           concat_ws(' ', rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
                     rolreplication, rolbypassrls, rolconnlimit, rolvaliduntil,
                     (select string_agg(g.rolname || ':' || m.admin_option, ',' order by g.rolname)
                        from pg_auth_members m join pg_roles g on g.oid = m.roleid
                       where m.member = r.oid)) as stated,
           0::oid as relid
      from pg_roles r where oid >= 16384 or oid = 10
    union all
    select 'schema ' || nspname,
           concat_ws(' ', nspowner::regrole, {_acl("nspacl", "n", "nspowner")}), 0
      from pg_namespace n where {_USERS} and {_is_own("pg_namespace", "n.oid")}
    union all
    select 'relation ' || format('%I.%I', nspname, relname),
           concat_ws(' ', relkind, relpersistence, relowner::regrole,
                     case when relkind = 'S' then {_acl("relacl", "s", "relowner")}
                          else {_acl("relacl", "r", "relowner")} end,
                     reloptions, relrowsecurity, relforcerowsecurity, relreplident),
           coalesce((select refobjid from pg_depend d
                      where relkind = 'S' and d.classid = 'pg_class'::regclass and d.objid = c.oid
                        and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')), c.oid)
      from pg_class c join pg_namespace n on n.oid = relnamespace
     where relkind in ('r', 'p', 'v', 'm', 'S', 'f') and {_OF_OWN}
    union all
    select 'column ' || format('%I.%I.%I', nspname, relname, attname),
           concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attcollation::regcollation,
                     (select string_agg(x::text, ',' order by x::text) from unnest(attacl) x),
                     attidentity, attgenerated), c.oid
      from pg_attribute a join pg_class c on c.oid = attrelid
      join pg_namespace n on n.oid = relnamespace
     where attnum > 0 and not attisdropped and relkind in ('r', 'p') and {_OF_OWN}
    union all
    select 'default of ' || format('%I.%I.%I', nspname, relname, attname),
           pg_get_expr(adbin, adrelid), c.oid
      from pg_attrdef join pg_class c on c.oid = adrelid
      join pg_attribute on attrelid = adrelid and attnum = adnum
      join pg_namespace n on n.oid = relnamespace
     where relkind in ('r', 'p') and {_OF_OWN}
    union all
    select 'policy ' || format('%I on %I.%I', polname, nspname, relname),
           concat_ws(' ', polcmd, polpermissive,
                     (select string_agg(case when o = 0 then 'public' else o::regrole::text end,
                                        ',' order by o::regrole::text) from unnest(polroles) o),
                     pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)), c.oid
      from pg_policy join pg_class c on c.oid = polrelid
      join pg_namespace n on n.oid = relnamespace where {_OF_OWN}
    union all
    select 'function ' || p.oid::regprocedure,
           concat_ws(' ', proowner::regrole, {_acl("proacl", "f", "proowner")},
                     md5(prosrc), prosecdef, proconfig), 0
      from pg_proc p join pg_namespace n on n.oid = pronamespace
     where p.oid >= 16384 and {_USERS} and {_is_own("pg_proc", "p.oid")}
       -- a range type makes its own, which nobody's ALTER ... OWNER reaches
       and not exists (select from pg_depend where deptype = 'i'
                          and classid = 'pg_proc'::regclass and objid = p.oid)
    union all
    select 'default privileges ' || concat_ws(' ', defaclrole::regrole,
               nullif(defaclnamespace, 0)::regnamespace, defaclobjtype),
           (select string_agg(x::text, ',' order by x::text) from unnest(defaclacl) x), 0
      from pg_default_acl
    union all
    select case when setrole = 0 and setdatabase = 0 then '{FOR_ALL_ROLES}'
                else 'setting of ' || concat_ws(' ', nullif(setrole, 0)::regrole, datname) end,
           (select string_agg(x, ',' order by x) from unnest(setconfig) x), 0
      from pg_db_role_setting left join pg_database d on d.oid = setdatabase
     where setdatabase = 0 or datname = current_database()
    union all
    select 'extension ' || extname, concat_ws(' ', extversion, extnamespace::regnamespace), 0
      from pg_extension
    union all
    select 'event trigger ' || evtname, concat_ws(' ', evtevent, evtfoid::regproc, evtenabled,
           evttags, evtowner::regrole), 0
      from pg_event_trigger e where {_is_own("pg_event_trigger", "e.oid")}
    union all
    select 'publication ' || pubname,
           concat_ws(' ', puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot,
                     (select string_agg(format('%I.%I', schemaname, tablename), ','
                                        order by schemaname, tablename)
                        from pg_publication_tables t where t.pubname = p.pubname)), 0
      from pg_publication p
    union all
    select 'publication ' || pubname || format(' of %I.%I', schemaname, tablename),
           concat_ws(' where ', attnames, rowfilter), c.oid
      from pg_publication_tables join pg_namespace n on nspname = schemaname
      join pg_class c on relnamespace = n.oid and relname = tablename
    union all
    select 'trigger ' || format('%I on %I.%I', tgname, nspname, relname),
           concat_ws(' ', tgenabled, pg_get_triggerdef(t.oid)), c.oid
      from pg_trigger t join pg_class c on c.oid = tgrelid
      join pg_namespace n on n.oid = relnamespace
     where not tgisinternal and {_OF_OWN}
    union all
    select 'constraint ' || format('%I on %I.%I', conname, nspname, relname),
           pg_get_constraintdef(k.oid), c.oid
      from pg_constraint k join pg_class c on c.oid = conrelid
      join pg_namespace n on n.oid = relnamespace
     where conparentid = 0 and {_OF_OWN}
    union all
    select 'index ' || format('%I.%I', nspname, relname), pg_get_indexdef(c.oid), indrelid
      from pg_class c join pg_namespace n on n.oid = relnamespace
      join pg_index on indexrelid = c.oid
     where relkind = 'i' and indisvalid and {_USERS} and {_is_own("pg_class", "indrelid")}
    union all
    select 'database', concat_ws(' ', pg_encoding_to_char(encoding), datcollate, datctype), 0
      from pg_database where datname = current_database()
    union all
    select 'locale provider', concat_ws(' ', d ->> 'datlocprovider',
               coalesce(d ->> 'datlocale', d ->> 'daticulocale'), d ->> 'daticurules'), 0
      from (select to_jsonb(b) as d from pg_database b where datname = current_database()) named
     order by 1
"""


# what pg_restore does not make: it is another server's own, or for whoever makes the database
_NOT_IN_A_DUMP = ("role ", "setting of ", "extension ", "database", "locale provider")


def catalogue(connection: Connection[Any], only: Collection[int] | None = None) -> dict[str, str]:
    """What is stated of each object of the connected database and of each role of its server.

    With `only`, oids of tables, what belongs to those.
    """
    with connection.transaction(force_rollback=True):  # the caller's search path stays its own
        prepare(connection)  # names come out qualified, whatever the search path
        found = connection.execute(_PARTS.encode()).fetchall()
    return {name: stated or "" for name, stated, table in found if only is None or table in only}


# what of these is stated has expressions in it, or is one
_EXPRESSIONS = ("constraint ", "default of ", "index ", "policy ", "publication ", "trigger ")
_CAST = (
    r'::(?:"(?:[^"]|"")*"|[\w.])+(?: varying| precision)?(?:\([\d,]+\))?'
    r"(?: with(?:out)? time zone)?(?:\[\])*"
)
_SPELLING = re.compile(rf"""('(?:[^']|'')*'|"(?:[^"]|"")*")|{_CAST}|[()\s]""")


def same(name: str, stated: str, found: str) -> bool:
    """Whether both say the same; casts, parentheses and blanks of an expression do not count.

    What PostgreSQL writes of `a IN ('x')` or of `a BETWEEN 1 AND 5 AND b` it writes otherwise once
    that was loaded. So an expression that differs in nothing else is taken for the same.
    """
    if name.startswith(_EXPRESSIONS):
        return _SPELLING.sub(r"\1", stated) == _SPELLING.sub(r"\1", found)
    return stated == found


def differences(noted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each name of which now something else is stated, or nothing, and in words what."""
    for name, stated in noted.items():
        if name not in found:
            yield name, "it did not come back"
        elif not same(name, stated, found[name]):
            yield name, f"expected {stated!r}, found {found[name]!r}"


def unlike(connection: Connection[Any], facts: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What a dump should have brought and is not as noted; and what is not a dump's to bring.

    Another major version may spell the same in other words: there nothing is held against it.
    """
    here, there = f" {connection.info.dbname}", f" {facts['database']}"
    found = catalogue(connection)
    found |= {  # of this database, whatever it is called
        name.removesuffix(here) + there: stated
        for name, stated in found.items()
        if name.startswith("setting of ") and name.endswith(here)
    }
    same_major = facts["server_version_num"] // 10000 == connection.info.server_version // 10000
    wrong, other = list[str](), list[str]()
    for name, told in differences(facts["catalogue"], found):
        (other if name.startswith(_NOT_IN_A_DUMP) or not same_major else wrong).append(
            f"{name}: {told}"
        )
    return wrong, other
