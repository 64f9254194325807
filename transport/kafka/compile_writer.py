"""Compiles the layout of one message in one version into a Python function that writes it.

The function is flat, like a reader: neighbouring fields of fixed size are one `pack`, an empty section of tagged fields
is a pad byte of it. It returns chunks: everything between two `records` is joined into one `bytes`, `records` are the
caller's own buffers. A field that the version lacks is left out, whatever its value.
"""

from __future__ import annotations

import struct

from zafka.transport.kafka.layout import Api, Field, Layout, default_of
from zafka.transport.kafka.source import FIXED, Source
from zafka.transport.kafka.types import Writer


def compile_writer(api: Api, version: int, layout: Layout) -> Writer:
    writer: Writer = writer_source(api, version, layout).function("write")
    return writer


def writer_source(api: Api, version: int, layout: Layout) -> Source:
    source = Source(api, version, pack=struct.pack, uvarint=encode_uvarint, join=b"".join, add_tag=add_tag)
    with source.block("def write(message):"):
        source.line("chunks = []")
        source.line("parts = []")
        writer = _FieldsWriter(source, version, parts="parts", depth=0, flexible=version >= api.flexible)
        writer.write_struct("message", layout.fields)
        writer.flush()
        source.line("chunks.append(join(parts))")
        source.line("return chunks")
    return source


class _FieldsWriter:
    """Writes the code that appends fields to one list of parts."""

    def __init__(self, source: Source, version: int, *, parts: str, depth: int, flexible: bool) -> None:
        self.source = source
        self.version = version
        self.parts = parts
        self.depth = depth
        self.flexible = flexible
        self.letters = ""  # of the fixed-size values that wait to be packed together
        self.values: list[str] = []

    def write_struct(self, value: str, fields: tuple[Field, ...]) -> None:
        present = [field for field in fields if field.exists_in(self.version)]
        for field in present:
            if field.tag is None:
                self.write_field(field, f"{value}.{field.name}")
        if self.flexible:
            self.write_tags(value, sorted((f for f in present if f.tag is not None), key=lambda field: field.tag or 0))

    def fixed(self, letters: str, *values: str) -> None:
        self.letters += letters
        self.values += values

    def flush(self) -> None:
        if self.values:
            pack = self.source.struct_method(self.letters, "pack")
            self.append(f"{pack}({', '.join(self.values)})")
        elif self.letters:
            self.append(repr(bytes(len(self.letters))))  # pad bytes only
        self.letters, self.values = "", []

    def append(self, expression: str) -> None:
        self.source.line(f"{self.parts}.append({expression})")

    def write_field(self, field: Field, value: str) -> None:
        if field.array:
            self.write_array(field, value)
        elif field.type in FIXED:
            self.fixed(FIXED[field.type], value)
        elif field.type == "struct" and field.nullable is not None:
            self.write_nullable_struct(field, value)
        elif field.type == "struct":
            self.write_struct(value, field.fields)
        elif field.is_nullable_in(self.version):
            self.flush()
            local = f"{field.name}_{self.depth}"
            self.source.line(f"{local} = {value}")
            with self.source.block(f"if {local} is None:"):
                self.append(repr(self.null("h" if field.type == "string" else "i")))
            with self.source.block("else:"):
                self.write_bytes(field, local)
        else:
            self.write_bytes(field, value)

    def write_nullable_struct(self, field: Field, value: str) -> None:
        """A struct outside of an array that may be null has a byte before it: 1, or -1 for null."""
        self.flush()
        with self.source.block(f"if {value} is None:"):
            self.append(repr(b"\xff"))
        with self.source.block("else:"):
            self.fixed("b", "1")
            self.write_struct(value, field.fields)
            self.flush()

    def null(self, letter: str) -> bytes:
        return b"\0" if self.flexible else struct.pack(">" + letter, -1)

    def write_length(self, letter: str, length: str) -> None:
        """`length` is an expression. A legacy length is packed with what stands before it."""
        if not self.flexible:
            self.fixed(letter, length)
            return
        self.flush()
        self.append(f"uvarint({length} + 1)")

    def write_bytes(self, field: Field, value: str) -> None:
        if field.type == "string":
            local = f"{field.name}_{self.depth}"
            self.source.line(f"{local} = {value}.encode()")
            value = local
        self.write_length("h" if field.type == "string" else "i", f"len({value})")
        self.flush()
        if field.type != "records":
            self.append(value)
            return
        with self.source.block(f"if {value}:"):
            self.source.line(f"chunks.append(join({self.parts}))")
            self.source.line(f"chunks.append({value})")
            self.source.line(f"{self.parts}.clear()")

    def write_array(self, field: Field, value: str) -> None:
        local = f"{field.name}_{self.depth}"
        if not field.is_nullable_in(self.version):
            self.source.line(f"{local} = {value}")
            self.write_elements(field, local)
            return
        self.flush()
        self.source.line(f"{local} = {value}")
        with self.source.block(f"if {local} is None:"):
            self.append(repr(self.null("i")))
        with self.source.block("else:"):
            self.write_elements(field, local)

    def write_elements(self, field: Field, local: str) -> None:
        self.write_length("i", f"len({local})")
        self.flush()
        if field.type in ("int8", "int16", "int32", "int64"):
            with self.source.block(f"if {local}:"):
                self.append(f"pack(f'>{{len({local})}}{FIXED[field.type]}', *{local})")
            return
        element = f"each_{self.depth + 1}"
        with self.source.block(f"for {element} in {local}:"):
            self.depth += 1
            if field.type == "struct":
                self.write_struct(element, field.fields)
            elif field.type in FIXED:
                self.fixed(FIXED[field.type], element)
            else:
                self.write_bytes(field, element)
            self.flush()
            self.depth -= 1

    def write_tags(self, value: str, tagged: list[Field]) -> None:
        if not tagged:
            self.fixed("x")
            return
        self.flush()
        set_by_field = {field: self.is_set(field, f"{value}.{field.name}") for field in tagged}
        with self.source.block(f"if {' or '.join(set_by_field.values())}:"):
            sections = f"_tags_{self.depth}"
            self.source.line(f"{sections} = []")
            for field, is_set in set_by_field.items():
                with self.source.block(f"if {is_set}:"):
                    content = f"_tag_{self.depth}"
                    self.source.line(f"{content} = []")
                    inner = _FieldsWriter(self.source, self.version, parts=content, depth=self.depth + 1, flexible=True)
                    inner.write_field(field, f"{value}.{field.name}")
                    inner.flush()
                    self.source.line(f"add_tag({sections}, {field.tag}, {content})")
            self.append(f"uvarint(len({sections}))")
            self.source.line(f"{self.parts} += {sections}")
        with self.source.block("else:"):
            self.append(repr(b"\0"))

    def is_set(self, field: Field, value: str) -> str:
        """A condition: the field differs from its default, so it has to be written."""
        default = default_of(field)
        if default in ("None", "[]", "0", "False", "''"):
            return f"{value} is not None" if default == "None" else value
        return f"{value} != {default}"


# -- called by the compiled functions -----------------------------------------------------------------


def encode_uvarint(value: int) -> bytes:
    if value < 128:
        return _ONE_BYTE[value]
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_ONE_BYTE = tuple(bytes((value,)) for value in range(128))


def add_tag(sections: list[bytes], tag: int, content: list[bytes]) -> None:
    data = b"".join(content)
    sections.append(encode_uvarint(tag) + encode_uvarint(len(data)) + data)
