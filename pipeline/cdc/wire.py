"""Keys and values of records as the converters of Connect write them: Avro, or JSON.

Which one wrote a record is told by its bytes, not by the configuration: a topic keeps records of
before the converter was changed, and key and value have one each.
"""

import base64
import binascii
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import fastavro

from pipeline.cdc.forms import Shape
from pipeline.registry.client import SchemaMissing

MAGIC = 0
PREFIX = 5
"""Confluent's wire format: a zero, and the id of the schema in four bytes."""
Json = Any
_ALIASES = {
    **dict.fromkeys(("int8", "int16", "int32", "int64", "long"), "int"),
    **dict.fromkeys(("float32",), "float"),
    **dict.fromkeys(("float64",), "double"),
    **dict.fromkeys(("record",), "struct"),
    "enum": "string",
    "fixed": "bytes",
}


class Undecodable(Exception):
    """No converter that is known here wrote this: the message says what it is instead."""


@dataclass(frozen=True)
class Message:
    """A decoded key or value. Without a schema `fields` is empty, and values are JSON's own."""

    name: str
    fields: Mapping[str, Shape]
    values: Mapping[str, Any]
    bare: bool = False
    number: int | None = None
    """Of its schema in the registry."""


@dataclass(frozen=True)
class _Avro:
    number: int
    name: str
    fields: Mapping[str, Shape]
    parsed: Any
    struct: bool


class Decoder:
    """Decodes keys and values; schemas are fetched once each."""

    def __init__(self, schema: Callable[[int], str]) -> None:
        self._schema = schema
        self._known: dict[int, _Avro | str] = {}

    def message(self, raw: bytes) -> Message:
        """Decode; a value that is no struct is given under the name ''."""
        if raw[:1] == b"\0":
            return self._avro(raw)
        return _json(raw)

    def is_event(self, raw: bytes) -> bool:
        """Whether a record's value is a change event; Undecodable when it is nothing known.

        An Avro value is told by its schema, and not decoded: its fields matter to nobody here.
        """
        if raw[:1] == b"\0":
            return {"op", "source"} <= set(self._of_id(raw).fields)
        found = _json(raw)
        return {"op", "source"} <= set(found.values)

    def _avro(self, raw: bytes) -> Message:
        schema, body = self._of_id(raw), io.BytesIO(raw[PREFIX:])
        try:
            found: Any = fastavro.schemaless_reader(body, schema.parsed, None)
        except (EOFError, ValueError, IndexError, TypeError, OverflowError, MemoryError) as error:
            raise Undecodable(f"its schema does not fit: {error!r}") from error
        if body.read(1):
            raise Undecodable("it is longer than its schema says")
        values = found if schema.struct else {"": found}
        return Message(schema.name, schema.fields, values, number=schema.number)

    def _of_id(self, raw: bytes) -> _Avro:
        if len(raw) < PREFIX:
            raise Undecodable("it is neither Avro in Confluent's format nor JSON")
        number = int.from_bytes(raw[1:PREFIX], "big")
        if number not in self._known:
            self._known[number] = self._fetched(number)
        known = self._known[number]
        if isinstance(known, str):
            raise Undecodable(known)
        return known

    def _fetched(self, number: int) -> _Avro | str:
        """Ask for a schema once, also for one that is not there: its records may be millions."""
        try:
            return _avro(number, self._schema(number))
        except SchemaMissing:
            return f"the registry has no schema {number}"
        except Undecodable as error:
            return str(error)


def _avro(number: int, text: str) -> _Avro:
    try:
        schema = _without_logical(json.loads(text))
        parsed = fastavro.parse_schema(schema)
    except (ValueError, fastavro.schema.SchemaParseException) as error:
        raise Undecodable(f"schema {number} is not Avro: {text[:60]!r}") from error
    named: dict[str, Json] = {}
    if not isinstance(schema, dict) or schema.get("type") != "record":
        return _Avro(number, "", {"": _avro_shape(schema, named)}, parsed, struct=False)
    name = schema.get("connect.name") or ".".join(
        filter(None, (schema.get("namespace"), schema["name"]))
    )
    fields = {one["name"]: _avro_shape(one["type"], named) for one in schema["fields"]}
    return _Avro(number, name, fields, parsed, struct=True)


def _without_logical(schema: Json) -> Json:
    """Leave the conversion of dates and decimals to us: Python's dates end at the year 9999."""
    if isinstance(schema, list):
        return [_without_logical(one) for one in schema]
    if isinstance(schema, dict):
        return {k: _without_logical(v) for k, v in schema.items() if k != "logicalType"}
    return schema


def _avro_shape(schema: Json, named: dict[str, Json]) -> Shape:
    if isinstance(schema, list):  # a value that may be null
        kinds = [one for one in schema if one != "null"]
        return _avro_shape(kinds[0], named) if kinds else Shape("null")
    if isinstance(schema, str):
        known = named.get(schema.rpartition(".")[2])
        return known or Shape(_ALIASES.get(schema, schema))
    kind = schema["type"]
    if isinstance(kind, dict | list):
        return _avro_shape(kind, named)
    parameters = schema.get("connect.parameters") or {}
    shape = Shape(
        _ALIASES.get(kind, kind),
        schema.get("connect.name") or "",
        _scale(schema.get("scale", parameters.get("scale"))),
        _avro_shape(schema["items"], named) if kind == "array" else None,
        tuple((one["name"], _avro_shape(one["type"], named)) for one in schema.get("fields", ())),
    )
    if "name" in schema:
        named[schema["name"]] = shape
    return shape


def _scale(text: object) -> int | None:
    return int(str(text)) if text is not None else None


def _json(raw: bytes) -> Message:
    try:
        found = json.loads(raw, parse_float=Decimal)
    except ValueError as error:
        raise Undecodable("it is neither Avro in Confluent's format nor JSON") from error
    if not isinstance(found, dict):
        return Message("", {}, {"": found}, bare=True)
    schema = found.get("schema")
    if set(found) != {"schema", "payload"} or not isinstance(schema, dict):
        return Message("", {}, found, bare=True)
    try:
        return _with_schema(schema, found["payload"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Undecodable(f"its schema does not fit: {error!r}") from error


def _with_schema(schema: Json, payload: Json) -> Message:
    if schema["type"] != "struct":
        shape = _json_shape(schema)
        return Message(schema.get("name") or "", {"": shape}, {"": native(shape, payload)})
    fields = {one["field"]: _json_shape(one) for one in schema["fields"]}
    values = {name: native(shape, payload[name]) for name, shape in fields.items()}
    return Message(schema.get("name") or "", fields, values)


def _json_shape(schema: Json) -> Shape:
    kind, parameters = schema["type"], schema.get("parameters") or {}
    items = _json_shape(schema["items"]) if kind == "array" else None
    scale = _scale(parameters.get("scale"))
    fields = tuple((one["field"], _json_shape(one)) for one in schema.get("fields", ()))
    return Shape(_ALIASES.get(kind, kind), schema.get("name") or "", scale, items, fields)


def native(shape: Shape, value: Json) -> Json:
    """Give a value of JSON the type that Avro would give it: bytes are base64 there."""
    if value is None:
        return None
    if shape.type == "array" and shape.items is not None:
        return [native(shape.items, one) for one in value]
    if shape.name.endswith("VariableScaleDecimal"):
        return {"scale": value["scale"], "value": _binary(value["value"])}
    if shape.fields:
        return {name: native(of, value[name]) for name, of in shape.fields}
    if shape.type == "bytes" and isinstance(value, str):
        return _binary(value)
    return value


def _binary(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{text!r} is not base64") from error
