"""Which keys were captured from the real Debezium: types, values and modes; see capture.py."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "captured.json"
PREPARE = """
    CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION hstore;
    CREATE TYPE mood AS ENUM ('sad', 'so so', 'hap,py');
    CREATE DOMAIN amount AS numeric(12, 2) CHECK (value > 0);
    CREATE DOMAIN code AS char(5); CREATE DOMAIN inner_code AS code;
    CREATE TYPE pair AS (a int, b text);"""
COLUMNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bool": ("bool", ("true", "false")),
    "int2": ("int2", ("-32768", "7")),
    "int4": ("int4", ("-2147483648", "7")),
    "int8": ("int8", ("-9223372036854775808", "9007199254740993")),
    "oid": ("oid", ("4294967295", "7")),
    "numeric_20_0": ("numeric(20, 0)", ("12345678901234567890", "-1", "0", "100")),
    "numeric_12_2": ("numeric(12, 2)", ("1.50", "-0.01", "1000000000", "255.99")),
    "numeric": ("numeric", ("1.50", "1e30", "-0.000001", "12345678901234567890.123", "100")),
    "numeric_nan": ("numeric", ("'NaN'",)),
    "numeric_infinity": ("numeric", ("'Infinity'", "'-Infinity'")),
    "float4": ("float4", ("0.1", "16777217", "1e30", "'-0'", "'NaN'", "'-Infinity'")),
    "float8": ("float8", ("0.1", "1e300", "123456789.123456789", "'-0'", "'NaN'", "'Infinity'")),
    "money": ("money", ("'12.34'", "'0.05'")),
    "text": ("text", ("'Zoë ''\"\\ {}'", "''", "E'tab\\tline\\n'", "'1234'", "'😀'")),
    "varchar": ("varchar(20)", ("'ä '", "'b'")),
    "char5": ("char(5)", ("'ab'", "'abcde'", "' x'")),
    "name": ("name", ("'n'",)),
    "one_char": ('"char"', ("'c'",)),
    "citext": ("citext", ("'Straße'", "'ABC'")),
    "mood": ("mood", ("'so so'", "'hap,py'")),
    "amount": ("amount", ("12.50", "0.01")),
    "code": ("inner_code", ("'ab'", "'vwxyz'")),
    "bytea": ("bytea", ("'\\x00ff10'", "'\\x'", "'\\x616263'", "'\\xfbefff'")),
    "uuid": ("uuid", ("'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",)),
    "inet": ("inet", ("'10.0.0.1'", "'10.0.0.1/8'", "'2001:DB8::1/64'")),
    "cidr": ("cidr", ("'10.0.0.0/8'", "'10.1.2.3/32'")),
    "macaddr": ("macaddr", ("'08-00-2B-01-02-03'",)),
    "macaddr8": ("macaddr8", ("'08-00-2B-01-02-03-04-05'",)),
    "bit1": ("bit(1)", ("B'1'", "B'0'")),
    "bit12": ("bit(12)", ("B'000000000001'", "B'110000000001'", "B'100000000000'")),
    "varbit": ("varbit", ("B'1'", "B'0001'", "B'11000000000101'")),
    "date": (
        "date",
        ("'2026-03-01'", "'1969-12-31'", "'0001-01-01'", "'1500-03-01'", "'12026-01-01'"),
    ),
    "date_bc": ("date", ("'0044-03-15 BC'", "'4713-01-01 BC'")),
    "date_infinity": ("date", ("'infinity'", "'-infinity'")),
    "time": ("time", ("'00:00'", "'23:59:59.999999'", "'04:05:06.5'")),
    "time_24": ("time", ("'24:00'",)),
    "time3": ("time(3)", ("'04:05:06.789'",)),
    "timetz": ("timetz", ("'04:05:06.789123+02'", "'23:30-08:15'")),
    "timestamp": (
        "timestamp",
        (
            "'2026-03-01 00:00:00.123456'",
            "'1960-01-01 12:00:00.000001'",
            "'1500-03-01'",
            "'12026-01-01'",
        ),
    ),
    "timestamp3": ("timestamp(3)", ("'2026-03-01 00:00:00.123'", "'1960-01-01 00:00:00.001'")),
    "timestamp_bc": ("timestamp", ("'0044-03-15 01:02:03.000004 BC'",)),
    "timestamp_infinity": ("timestamp", ("'infinity'", "'-infinity'")),
    "timestamp3_infinity": ("timestamp(3)", ("'infinity'", "'-infinity'")),
    "timestamptz": (
        "timestamptz",
        ("'2026-03-01 00:00:00.123456+05:30'", "'2026-06-30 22:00:00.5Z'", "'1890-01-01 00:00Z'"),
    ),
    "timestamptz0": ("timestamptz(0)", ("'2026-03-01 00:00:00Z'",)),
    "timestamptz_far": ("timestamptz", ("'12026-01-01 00:00Z'", "'1500-03-01 00:00Z'")),
    "timestamptz_bc": ("timestamptz", ("'0044-03-15 01:02:03Z BC'",)),
    "timestamptz_infinity": ("timestamptz", ("'infinity'", "'-infinity'")),
    "interval": (
        "interval",
        ("'1 year 2 months 3 days 04:05:06.789'", "'-1 day -00:00:00.5'", "'1 month'", "'0'"),
    ),
    "int4range": ("int4range", ("'[1,5]'", "'empty'", "'(,3)'")),
    "numrange": ("numrange", ("'[1.50,2.0]'",)),
    "daterange": ("daterange", ("'[2026-01-01,2026-02-01)'", "'[-infinity,infinity]'")),
    "tsrange": ("tsrange", ("'[2026-01-01 00:00,2026-02-01 12:00:00.5)'",)),
    "tstzrange": ("tstzrange", ("'[2026-01-01 00:00+02,2026-02-01 00:00+02)'",)),
    "jsonb": ("jsonb", ("""'{"b": 1.50, "a": [1, null, "ä"]}'""", "'3'", """'"x"'""")),
    "hstore": ("hstore", ('\'a=>1, "b c"=>NULL, d=>"q\\"q"\'', "''")),
    "ltree": ("ltree", ("'Top.Science'",)),
    "tsvector": ("tsvector", ("'fat:1 cat:2A'",)),
    "int4_array": ("int4[]", ("'{1,NULL,3}'", "'{}'")),
    "text_array": ("text[]", ("""'{"a,b",NULL,"NULL","q\\"q"}'""",)),
    "numeric_array": ("numeric(10,2)[]", ("'{1.50,2}'",)),
    "timestamptz_array": ("timestamptz[]", ("'{2026-01-01 00:00+02}'",)),
    "date_array": ("date[]", ("'{2026-01-01}'",)),
    "uuid_array": ("uuid[]", ("'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'",)),
    "pair": ("pair", ("ROW(1, 'x')",)),
    "pg_lsn": ("pg_lsn", ("'16/B374D848'",)),
    "last": ("int", ()),
}
ALONE = (
    *("money", "numeric", "numeric_nan", "numeric_infinity", "amount", "code", "numeric_array"),
    *("pair", "pg_lsn", "varbit", "date_bc", "date_infinity", "time_24", "timestamp_bc"),
    *("timestamp_infinity", "timestamp3_infinity", "timestamptz_bc", "timestamptz_infinity"),
    *("uuid_array", "date_array", "hstore"),
)
"""Types and values that Debezium may fail at: under a connector each."""
MODES = {
    "defaults": {"decimal.handling.mode": "precise"},
    "double": {
        "decimal.handling.mode": "double",
        "time.precision.mode": "adaptive_time_microseconds",
        "interval.handling.mode": "string",
        "binary.handling.mode": "base64",
        "hstore.handling.mode": "map",
    },
    "string": {
        "decimal.handling.mode": "string",
        "time.precision.mode": "connect",
        "interval.handling.mode": "string",
        "binary.handling.mode": "base64-url-safe",
    },
    "isostring": {
        "decimal.handling.mode": "precise",
        "time.precision.mode": "isostring",
        "binary.handling.mode": "hex",
        "include.unknown.datatypes": "true",
    },
    "nanoseconds": {"time.precision.mode": "nanoseconds"},
    "microseconds": {"time.precision.mode": "microseconds"},
}


@cache
def captures() -> dict[str, Any]:
    """What capture.py wrote, by converter and modes: keys of Avro in hexadecimal digits."""
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def raw_keys(capture: str, place: str) -> list[bytes]:
    """Give the keys of one table as they were in the topic."""
    keys = captures()[capture]["keys"][place]
    return [bytes.fromhex(key) if capture.startswith("avro") else key.encode() for key in keys]
