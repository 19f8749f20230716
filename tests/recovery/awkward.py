"""A database that is shaped like few, and legal: what backups, proofs and restores stumble over.

Names that need quotes, sequences that count no rows, values of every kind, tables that hold rows
elsewhere or none, large objects, policies forced on owners, and guards against DDL.
"""

LONG = "ä" * 30 + '""'  # 61 bytes with its quote, as SQL spells it

SCHEMA = f"""
create schema "Shop Élan";
set search_path = "Shop Élan", public;
create type "Mood of ""the"" Day" as enum ('calm', 'Upset ''now'' and then');
create domain "Key" as text check (value <> '');
create type span as range (subtype = int4);
create table "Order Items" (
    "Key" "Key" primary key, mood "Mood of ""the"" Day", spans span, parts int[], "{LONG}" text,
    upper text generated always as (upper("{LONG}")) stored,
    no int generated always as identity (increment by -1 start with -1 minvalue -100000)
        unique deferrable);
create table by_mood (mood "Mood of ""the"" Day", within span, primary key (mood, within));
create table nothing ();
create table twice (a int, b text);
create table "a.b" (t int, "t.*" text);
create table parent (id int primary key, note text);
create table child (extra text) inherits (parent);
create table days (day date not null, note text) partition by range (day);
create table "days of 2025" partition of days
    for values from ('2025-01-01') to ('2026-01-01');
create foreign data wrapper nowhere;
create server elsewhere foreign data wrapper nowhere;
create foreign table days_elsewhere partition of days
    for values from ('2020-01-01') to ('2021-01-01') server elsewhere;
create foreign table remote (id int) server elsewhere;
create sequence of_remote owned by remote.id;
create table coded (code text, amount numeric, "Round" int, far numeric);
create sequence of_text owned by coded.code;
create sequence of_numeric owned by coded.amount;
create sequence of_far owned by coded.far;
create sequence "Round ""Robin"" one" maxvalue 3 cycle owned by coded."Round";
create table guarded (id int primary key, who text);
alter table guarded enable row level security, force row level security;
create policy nobody on guarded using (false);
create unlogged table hints (word text primary key);
create materialized view unfilled as select * from twice with no data;
create materialized view filled as select count(*) as "How Many" from twice;
create unique index on filled ("How Many");
create table papers (id int primary key, scan oid);
insert into "Order Items" ("Key", mood, spans, parts, "{LONG}")
    select 'key ' || n, 'calm', span(n, n + 2), array[n, null], repeat('é€', n)
      from generate_series(1, 40) n;
insert into by_mood select 'calm', span(n, n + 1) from generate_series(1, 5) n;
insert into nothing default values;
insert into nothing default values;
insert into twice values (1, 'same'), (1, 'same'), (null, null);
insert into "a.b" values (1, 't');
insert into parent select n, 'own' from generate_series(1, 5) n;
insert into child select n, 'inherited', 'more' from generate_series(6, 9) n;
insert into days select date '2025-03-01' + n, 'day' from generate_series(1, 9) n;
insert into coded values ('A-1', 17.5, 3, 1e30), ('B', 'NaN', 1, 4);
select setval('of_numeric', 17), setval('of_far', 4);
select nextval('"Round ""Robin"" one"');
insert into guarded values (1, 'hidden'), (2, 'hidden');
insert into hints values ('lost');
refresh materialized view filled;
insert into papers
    select n, lo_from_bytea(0, decode(repeat(md5(n::text), 100 * n), 'hex'))
      from generate_series(1, 5) n;
select lo_put(scan, 10000, 'behind a hole') from papers where id = 1;
"""

# values that some type spells, compares or keeps in a way of its own
MORE = """
create type pair as (a int, "B c" text);
create table extremes (
    id int primary key, fixed char(8), code "char", word name, exact numeric,
    bounded numeric(5, -2), f float8, r real, day date, at timestamp, moment timestamptz,
    clock timetz, took interval, bits bit varying, raw bytea, host inet, uid uuid, doc json,
    facts jsonb, path jsonpath, spot point, area polygon, words tsvector, spans int4multirange,
    nested int[][], pairs pair[], at_lsn pg_lsn, ids oid, moneyed money, gone int, "select" int,
    "ﬁ" text collate "C");
alter table extremes drop column gone;
insert into extremes values
    (1, 'ab', 'x', 'word', 'NaN', 12345, 'NaN', '-0', 'infinity', '-infinity', 'infinity',
     '24:00:00-15:59', '-178000000 years', '1', '\\x00ff', '::1/64', gen_random_uuid(),
     '{"a": 1, "a": 2}', '{"a": 1e400}', '$.a[*] ? (@ > 1)', '(1,-0)', '((0,0),(1,1),(1,0))',
     'a:1A fat', '{[1,3),[5,)}', '[0:1][-1:0]={{1,2},{3,null}}', array[(null, '')::pair, null],
     'FFFFFFFF/FFFFFFFF', 4294967295, '-92233720368547758.08', 1, ''),
    (2, '', '', '', 'Infinity', -99, '-Infinity', 'Infinity', '4713-01-01 BC', '294276-12-31',
     '4714-11-24 00:00:00Z BC', '00:00+15:59', '1 mon -1 day 00:00:00.000001', '', '', '0.0.0.0/0',
     null, ' [ 1 ] ', 'null', 'strict $', '(1e308,5e-324)', '((0,0))', '', '{}', '{}', '{}', '0/0',
     0, 0, null, E'\t\\N\r\n'),
    (3, null, null, null, 1e-16383 + 1e131071, null, 5e-324, 1e-45, null, null, null, null, null,
     null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
     null, null, '\\.');
alter table extremes add later int not null default 7;
create table booked (room int, during tsrange,
    exclude using gist (during with &&) where (room > 0));
insert into booked select 1, tsrange(d, d + '1 h')
    from generate_series(timestamp '2025-01-01', '2025-01-05', '1 d') d;
create table tree (id int primary key, parent int references tree deferrable initially deferred);
insert into tree values (1, 2), (2, 1);
create statistics "of Things" (dependencies) on id, later from extremes;
create collation "Näher" (locale = 'C');
create table sorted (word text collate "Näher" primary key);
insert into sorted values ('Zebra'), ('äther'), ('Apfel'), ('ß');
create rule "No Change" as on delete to sorted do instead nothing;
create function noted() returns trigger language plpgsql as 'begin return null; end';
create trigger "Never" before insert on booked for each row execute function noted();
alter table booked disable trigger "Never";
create procedure "Run It"(inout n int) language plpgsql as 'begin n := n + 1; end';
create aggregate "Sum Up"(int) (sfunc = int4pl, stype = int, initcond = '0');
create operator public.=~= (leftarg = text, rightarg = text, function = texteq);
alter table "Order Items" alter "Key" set storage external, alter parts set statistics 500;
"""

# the index needs a search path that nothing but the application has
UNQUALIFIED = """
create function "Shop Élan".shortened(text) returns text immutable
    language sql as 'select left($1, 3)';
create function public.folded(value text) returns text immutable language plpgsql as
    'begin return left(value, 3); end';
create index by_short on "Shop Élan"."Order Items" (public.folded("Key"));
create or replace function public.folded(value text) returns text immutable language plpgsql as
    'begin return shortened(value); end';
"""

GUARD = """
create function public.no_ddl() returns event_trigger language plpgsql as
    $$begin raise exception 'DDL is for the migration tool only'; end$$;
create event trigger guard on ddl_command_start execute function public.no_ddl();
"""

FOR_EVERYBODY = {
    "statement_timeout": "20ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "10ms",
    "idle_session_timeout": "10ms",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "row_security": "on",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "extra_float_digits": "-10",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "quote_all_identifiers": "on",
    "client_encoding": "latin1",
    "search_path": "nowhere",
    "client_min_messages": "debug5",
}
