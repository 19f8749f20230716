"""Names as Debezium makes them: of topics, and of what its messages hold."""

import re
from collections.abc import Iterable, Mapping

_NOT_IN_A_TOPIC = re.compile(r"[^A-Za-z0-9._-]")
_PART = re.compile(r'"((?:[^"]|"")+)"|[^".]+')
_QUOTED = re.compile(rf"(?:{_PART.pattern})\.(?:{_PART.pattern})")
_NOT_IN_AVRO = re.compile(r"[^A-Za-z0-9_]")
NAMING = "SchemaTopicNamingStrategy"
KEEP_TOPICS = {
    *("ExtractNewRecordState", "ExtractChangedRecordState", "Filter", "HeaderToValue"),
    *("PartitionRouting", "ReselectColumns", "TimezoneConverter", "DropHeaders", "HeaderFrom"),
    *("InsertHeader", "SetSchemaMetadata", "Cast", "ExtractField", "Flatten", "HoistField"),
    *("InsertField", "MaskField", "ReplaceField", "TimestampConverter", "ValueToKey"),
}
"""Transforms of Kafka and Debezium, without their package, that leave a record in its topic."""


def topic_of(prefix: str, table: str) -> str:
    """Name the topic of `schema.table`: what Kafka has no place for in a name is an underscore."""
    return _units(_NOT_IN_A_TOPIC, f"{prefix}.{table}")


def renames(told: Mapping[str, str]) -> str | None:
    """Which setting may give topics other names than PREFIX.SCHEMA.TABLE, or None."""
    if told.get("topic.naming.strategy", NAMING).rpartition(".")[2] != NAMING:
        return "topic.naming.strategy"
    if told.get("topic.delimiter", ".") != ".":
        return "topic.delimiter"
    for alias in filter(None, (each.strip() for each in told.get("transforms", "").split(","))):
        kind = told.get(f"transforms.{alias}.type", "").rpartition(".")[2]
        if kind.partition("$")[0] not in KEEP_TOPICS:
            return f"transform {alias} ({kind})"
    return None


def unquoted(table: str) -> str:
    """Give `schema.table` as it is, also where it is spelt with SQL's quotes."""
    if _QUOTED.fullmatch(table) is None:
        return table
    return _PART.sub(lambda part: part[1].replace('""', '"') if part[1] else part[0], table)


def field_names(column: str) -> Iterable[str]:
    """Every name that a column may have in a message, by field.name.adjustment.mode."""
    avro = _units(_NOT_IN_AVRO, column)
    yield column
    yield f"_{avro}" if avro[:1].isdigit() else avro
    yield re.sub(r"[^A-Za-z0-9]", lambda c: f"_u{ord(c[0]):04x}", column)


def is_key_of(name: str, schema: str, table: str, topic: str) -> bool:
    """Whether a key whose schema has that name can be one of the table's.

    Its name is the topic's with `.Key` behind it, adjusted by schema.name.adjustment.mode, or that
    of the topic where a transform (ByLogicalTableRouter) brought it.
    """
    told = _plain(name.removesuffix(".Key"))
    return told.endswith(_plain(f".{schema}.{table}")) or told == _plain(topic)


def same_name(one: str, other: str) -> bool:
    """Whether two names of schemas differ in schema.name.adjustment.mode at most."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    """Reduce a name to what every adjustment keeps of it."""
    unescaped = re.sub(r"_u([0-9a-f]{4})", lambda c: chr(int(c[1], 16)), name)
    return re.sub(r"[^A-Za-z0-9]", "_", unescaped)


def _units(pattern: re.Pattern[str], name: str) -> str:
    """Replace by UTF-16 units, as Java counts: one beyond U+FFFF becomes two underscores."""
    return pattern.sub(lambda found: "_" * (len(found[0].encode("utf-16-le")) // 2), name)
