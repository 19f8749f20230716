"""What a database is beside its rows, as text that a restored copy can be compared with.

Owners, grants, policies, default privileges, settings, extensions, publications, and the roles: a
dump without its globals loses them, and every row is there. Passwords are not looked at.
"""

from typing import Any

from psycopg import Connection

from pipeline.postgres.digests import prepare


def _acl(column: str, kind: str, owner: str) -> str:
    """Privileges in one order; those that nobody changed are the same as none noted."""
    return (
        f"(select string_agg(x::text, ',' order by x::text)"
        f" from unnest(coalesce({column}, acldefault('{kind}', {owner}))) x)"
    )


_USERS = "n.nspname <> 'information_schema' and n.nspname !~ '^pg_'"
# each part gives a name and what is stated of it; identities are spelled by the server
_PARTS = f"""
    select 'role ' || rolname as name,
           concat_ws(' ', rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
                     rolreplication, rolbypassrls, rolconnlimit, rolvaliduntil,
                     (select string_agg(g.rolname || ':' || m.admin_option, ',' order by g.rolname)
                        from pg_auth_members m join pg_roles g on g.oid = m.roleid
                       where m.member = r.oid)) as stated
      from pg_roles r where oid >= 16384 or oid = 10
    union all
    select 'schema ' || nspname,
           concat_ws(' ', nspowner::regrole, {_acl("nspacl", "n", "nspowner")})
      from pg_namespace n where {_USERS}
    union all
    select 'relation ' || format('%I.%I', nspname, relname),
           concat_ws(' ', relkind, relpersistence, relowner::regrole,
                     case when relkind = 'S' then {_acl("relacl", "s", "relowner")}
                          else {_acl("relacl", "r", "relowner")} end,
                     reloptions, relrowsecurity, relforcerowsecurity, relreplident)
      from pg_class c join pg_namespace n on n.oid = relnamespace
     where relkind in ('r', 'p', 'v', 'm', 'S', 'f') and {_USERS}
    union all
    select 'column ' || format('%I.%I.%I', nspname, relname, attname),
           concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attcollation::regcollation,
                     (select string_agg(x::text, ',' order by x::text) from unnest(attacl) x),
                     pg_get_expr(adbin, adrelid), attidentity, attgenerated)
      from pg_attribute a join pg_class c on c.oid = attrelid
      join pg_namespace n on n.oid = relnamespace
      left join pg_attrdef on adrelid = attrelid and adnum = attnum
     where attnum > 0 and not attisdropped and relkind in ('r', 'p') and {_USERS}
    union all
    select 'policy ' || format('%I on %I.%I', polname, nspname, relname),
           concat_ws(' ', polcmd, polpermissive,
                     (select string_agg(case when o = 0 then 'public' else o::regrole::text end,
                                        ',' order by o::regrole::text) from unnest(polroles) o),
                     pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
      from pg_policy join pg_class c on c.oid = polrelid
      join pg_namespace n on n.oid = relnamespace
    union all
    select 'function ' || p.oid::regprocedure,
           concat_ws(' ', proowner::regrole, {_acl("proacl", "f", "proowner")},
                     md5(prosrc), prosecdef, proconfig)
      from pg_proc p join pg_namespace n on n.oid = pronamespace
     where p.oid >= 16384 and {_USERS}
       and not exists (select from pg_depend d where d.deptype = 'e'
                          and d.classid = 'pg_proc'::regclass and d.objid = p.oid)
    union all
    select 'default privileges ' || concat_ws(' ', defaclrole::regrole,
               nullif(defaclnamespace, 0)::regnamespace, defaclobjtype),
           (select string_agg(x::text, ',' order by x::text) from unnest(defaclacl) x)
      from pg_default_acl
    union all
    select 'setting of ' || concat_ws(' ', nullif(setrole, 0)::regrole, datname),
           (select string_agg(x, ',' order by x) from unnest(setconfig) x)
      from pg_db_role_setting left join pg_database d on d.oid = setdatabase
     where setdatabase = 0 or datname = current_database()
    union all
    select 'extension ' || extname, concat_ws(' ', extversion, extnamespace::regnamespace)
      from pg_extension
    union all
    select 'event trigger ' || evtname, concat_ws(' ', evtevent, evtfoid::regproc, evtenabled,
           evttags, evtowner::regrole)
      from pg_event_trigger
    union all
    select 'publication ' || pubname,
           concat_ws(' ', puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot,
                     (select string_agg(format('%I.%I', schemaname, tablename), ','
                                        order by schemaname, tablename)
                        from pg_publication_tables t where t.pubname = p.pubname))
      from pg_publication p
    union all
    select 'trigger ' || format('%I on %I.%I', tgname, nspname, relname),
           concat_ws(' ', tgenabled, pg_get_triggerdef(t.oid))
      from pg_trigger t join pg_class c on c.oid = tgrelid
      join pg_namespace n on n.oid = relnamespace
     where not tgisinternal and {_USERS}
    union all
    select 'constraint ' || format('%I on %I.%I', conname, nspname, relname),
           pg_get_constraintdef(k.oid)
      from pg_constraint k join pg_class c on c.oid = conrelid
      join pg_namespace n on n.oid = relnamespace
     where {_USERS}
    union all
    select 'index ' || format('%I.%I', nspname, relname), pg_get_indexdef(c.oid)
      from pg_class c join pg_namespace n on n.oid = relnamespace where relkind = 'i' and {_USERS}
    union all
    select 'database', concat_ws(' ', pg_encoding_to_char(encoding), datcollate, datctype)
      from pg_database where datname = current_database()
     order by 1
"""


def catalogue(connection: Connection[Any]) -> dict[str, str]:
    """What is stated of each object of the connected database and of each role of its server."""
    with connection.transaction():
        prepare(connection)  # names come out qualified, whatever the search path
        found = connection.execute(_PARTS.encode()).fetchall()
    return {name: stated or "" for name, stated in found}
