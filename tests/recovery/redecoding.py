"""A random life of a published database, and what two slots of its server say of it."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg

from pipeline.postgres.redecode.pgoutput import Decoder, Event
from pipeline.postgres.wal.lsn import Lsn
from tests.recovery.history import Source

PUBLICATION = "dbz_publication"
LOST, CONTROL, RENEWED = "lost", "control", "renewed"
SCHEMA = (
    "create table goods (id int primary key, name text, body text, price numeric, at timestamptz)",
    "alter table goods alter body set storage external",
    "create table whole (id int, told text, body text)",
    "alter table whole replica identity full",
    "alter table whole alter body set storage external",
    "create table indexed (id int not null, code text not null, n float8)",
    "create unique index by_code on indexed (code)",
    "alter table indexed replica identity using index by_code",
    (
        "create table parts (id int, region text, n int, primary key (id, region))"
        " partition by list (region)"
    ),
    *(
        f"create table parts_{each} partition of parts for values in ('{each}')"
        for each in ("north", "south")
    ),
    "create table moving (id int primary key, kept text)",
    "create table emptied (id serial primary key)",
    "create table emptied_too (id int primary key references emptied)",
    "create table unpublished (id int primary key, body text)",
    (
        f"create publication {PUBLICATION} for table goods, whole, indexed, parts, moving, emptied,"
        " emptied_too with (publish_via_partition_root = true)"
    ),
)
SESSIONS = 3
WEARING = (
    *(f"create table worn (a int, b_{n} int); drop table worn" for n in range(20)),
    "alter table moving add column late int",
    "insert into moving (id) select min(id) - 1 from moving",
    "alter table moving drop column late",
    *(f"vacuum {name}" for name in ("pg_class", "pg_attribute", "pg_type", "pg_depend")),
)
READ = (
    "select lsn::text, data from pg_logical_slot_{}_binary_changes(%s, %s, null,"
    f" 'proto_version', '1', 'publication_names', '{PUBLICATION}', 'messages', 'true')"
)


def decoded(messages: Iterable[tuple[Any, ...]]) -> list[Event]:
    decoder = Decoder()
    told = (decoder.decode(bytes(data), Lsn.parse(lsn)) for lsn, data in messages)
    return [event for event in told if event is not None]


@dataclass
class Life:
    """What is done, by a seed. Sessions touch rows of their own, so that none waits for another."""

    source: Source
    random: random.Random
    sessions: list[psycopg.Connection[Any]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)
    numbers: int = 0

    def begin(self) -> "Life":
        self.source.run(
            *SCHEMA,
            *(
                f"select pg_create_logical_replication_slot('{name}', 'pgoutput')"
                for name in (LOST, CONTROL)
            ),
        )
        for _ in range(SESSIONS):
            session = self.source.connect()
            session.autocommit = False
            self.sessions.append(session)
        return self

    def go_on(self, acts: int) -> None:
        """Do so many things, and leave open what is."""
        for _ in range(acts):
            self.act(self.random.randrange(SESSIONS))

    def live(self, acts: int) -> None:
        """Do so many things, then end every transaction that is open."""
        self.go_on(acts)
        self.settle()

    def settle(self) -> None:
        for session in self.sessions:
            session.commit()
        for gid in self.prepared:
            self.source.run(f"commit prepared '{gid}'")
        self.prepared.clear()

    def close(self) -> None:
        for session in self.sessions:
            session.close()

    def act(self, number: int) -> None:
        session = self.sessions[number]
        acts: list[Callable[[int], Iterator[str]]] = [
            *([self._goods] * 6),
            *(self._whole, self._indexed, self._parts, self._message, self._savepoint),
            [self._define, self._empty, self._prepare][number],
        ]
        for statement in self.random.choice(acts)(number):
            session.execute(statement.encode())
        if self.random.random() < 0.4:
            (session.commit if self.random.random() < 0.85 else session.rollback)()

    def _id(self, number: int) -> int:
        return self.random.randrange(40) * SESSIONS + number

    def _text(self) -> str:
        """A short text, one that lies in TOAST, or none."""
        word = f"md5('{self.random.random()}')"
        return self.random.choice([word, f"repeat({word}, 200)", "null", "'Ünï \\ ''q'' €'"])

    def _goods(self, number: int) -> Iterator[str]:
        one, other, text = self._id(number), self._id(number), self._text()
        yield self.random.choice(
            [
                (
                    f"insert into goods values ({one}, {text}, {text}, {one}.50, clock_timestamp())"
                    " on conflict do nothing"
                ),
                (
                    f"insert into goods values ({one}, null, repeat('x', 9000), 'NaN', 'infinity')"
                    f" on conflict (id) do update set name = {text}"
                ),
                f"update goods set price = price + 1 where id = {one}",
                f"update goods set body = {text} where id = {one}",
                (
                    f"update goods set id = {other} where id = {one}"
                    f" and not exists (select from goods where id = {other})"
                ),
                f"delete from goods where id = {one}",
                f"insert into unpublished values ({one}, {text}) on conflict do nothing",
                (
                    f"insert into goods select {one} + {1000 * SESSIONS} * n, 'many', null, n,"
                    " now() from generate_series(1, 300) n on conflict do nothing"
                ),
                f"delete from goods where id % {SESSIONS} = {number} and id > 1000",
            ]
        )

    def _whole(self, number: int) -> Iterator[str]:
        one, text = self._id(number), self._text()
        yield f"insert into whole values ({one}, {text}, {text})"
        yield f"update whole set told = {text} where id = {self._id(number)}"
        yield f"delete from whole where id = {self._id(number)}"

    def _indexed(self, number: int) -> Iterator[str]:
        one = self._id(number)
        yield f"insert into indexed values ({one}, 'c{one}', 0.1) on conflict do nothing"
        yield f"update indexed set n = n / 3 where id = {one}"
        self.numbers += 1
        yield f"update indexed set code = 'd{self.numbers}' where code = 'c{self._id(number)}'"

    def _parts(self, number: int) -> Iterator[str]:
        one = self._id(number)
        yield f"insert into parts values ({one}, 'north', 1) on conflict do nothing"
        yield (
            f"update parts set region = 'south', n = n + 1 where id = {one} and region = 'north'"
            f" and not exists (select from parts where id = {one} and region = 'south')"
        )
        yield f"delete from parts where id = {self._id(number)} and region = 'south'"

    def _message(self, number: int) -> Iterator[str]:
        transactional = self.random.choice(["true", "false"])
        yield f"select pg_logical_emit_message({transactional}, 'life', 'of {number}')"

    def _savepoint(self, number: int) -> Iterator[str]:
        one = self._id(number)
        for end in self.random.choices(["release", "rollback to"], k=3):
            yield "savepoint here"
            yield f"insert into whole values ({one}, '{end}', null)"
            yield f"{end} here"

    def _define(self, number: int) -> Iterator[str]:
        """Change a table's definition amid its rows; a temporary one wears the catalogue out."""
        self.numbers += 1
        one = f"insert into moving (id) values ({self.numbers})"
        yield one
        if self.columns and self.random.random() < 0.5:
            yield f"alter table moving drop column if exists {self.columns.pop()}"
        else:
            column = f"c{self.numbers}"
            self.columns.append(column)
            yield f"alter table moving add column {column} int default {number}"
            if self.random.random() < 0.3:
                yield f"alter table moving alter column {column} type text"
        yield f"update moving set kept = 'kept' where id = {self.numbers}"
        yield f"create temporary table worn_{self.numbers} (a int, b int) on commit drop"

    def _empty(self, _number: int) -> Iterator[str]:
        yield "insert into emptied default values"
        if self.random.random() < 0.5:
            yield "truncate emptied restart identity cascade"

    def _prepare(self, number: int) -> Iterator[str]:
        """Leave a transaction that is prepared, and end one that was."""
        self.sessions[number].commit()  # or what is prepared would hold rows that others change
        self.numbers += 1
        if len(self.prepared) > 1:
            how = self.random.choice(["commit", "rollback"])
            self.source.run(f"{how} prepared '{self.prepared.pop(0)}'")
        yield f"insert into whole values ({self.numbers}, 'prepared', null)"
        yield f"prepare transaction 'p{self.numbers}'"
        self.prepared.append(f"p{self.numbers}")


def confirmed(source: Source, slot: str) -> Lsn:
    query = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = "
    return Lsn.parse(source.run(f"{query}'{slot}'"))


def taken(source: Source, slot: str) -> list[Event]:
    """Take everything that a slot has, as its consumer would."""
    with source.connect() as connection:
        return decoded(connection.execute(READ.format("get").encode(), [slot, None]))
