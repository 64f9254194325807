"""Compiles the layout of one message in one version into a Python function that reads it.

The function is flat: nested arrays are nested loops, neighbouring fields of fixed size (and the first byte of a compact
length that follows them) are one `unpack_from`. Read `reader_source` of a small API to see what comes out.

Bounds, since the bytes are a stranger's: a length is checked against the bytes that are left before anything is made of
it; all arrays and tagged fields of one message share a budget of elements, so that neither memory nor time is more than
a small multiple of it; a frame that is too short raises IndexError or struct.error inside, MalformedMessage outside.
Unknown tagged fields are skipped, as KIP-482 demands. Bytes after the message are ignored, as Kafka does.
"""

from __future__ import annotations

import struct
from contextlib import AbstractContextManager, nullcontext

from zafka.transport.kafka.layout import Api, Field, Layout, default_of
from zafka.transport.kafka.source import FIXED, Source
from zafka.transport.kafka.types import MalformedMessage, Reader

# Elements of arrays and tagged fields in one message. A request is a stranger's; an answer with the metadata of a large
# cluster may be long.
REQUEST_ELEMENTS_MAX = 100_000
RESPONSE_ELEMENTS_MAX = 4_000_000


def compile_reader(api: Api, version: int, layout: Layout, *, elements_max: int) -> Reader:
    reader: Reader = reader_source(api, version, layout, elements_max=elements_max).function("read")
    return reader


def reader_source(api: Api, version: int, layout: Layout, *, elements_max: int) -> Source:
    source = Source(
        api,
        version,
        unpack_from=struct.unpack_from,
        uvarint=read_uvarint,
        long_uvarint=long_uvarint,
        skip_tags=skip_tags,
        MalformedMessage=MalformedMessage,
        StructError=struct.error,
    )
    with source.block("def read(buf, pos):"):
        source.line("limit = len(buf)")
        source.line(f"budget = {elements_max}")
        with source.block("try:"):
            result = _StructReader(source, version, flexible=version >= api.flexible, depth=0).read(
                layout.struct, layout.fields
            )
            source.line(f"return {result}")
        with source.block("except (IndexError, StructError):"):
            source.line(f"raise MalformedMessage('{source.name} ends too early', limit) from None")
        with source.block("except UnicodeDecodeError:"):
            source.line(f"raise MalformedMessage('a string in {source.name} is not UTF-8', pos) from None")
    return source


class _StructReader:
    """Writes the code that reads one struct. Local names are `<field>_<depth>`; `n` is the length at hand."""

    def __init__(self, source: Source, version: int, *, flexible: bool, depth: int) -> None:
        self.source = source
        self.version = version
        self.flexible = flexible
        self.depth = depth
        self.letters = ""  # of the fixed-size fields that wait to be read together
        self.targets: list[str] = []

    def read(self, struct_name: str, fields: tuple[Field, ...]) -> str:
        """Emit the code for all fields; return the expression that makes the message."""
        present = [field for field in fields if field.exists_in(self.version)]
        for field in present:
            if field.tag is None:
                self.read_field(field)
        if self.flexible:
            self.read_tags([field for field in present if field.tag is not None])
        self.flush()
        arguments = [self.local(field) if field in present else default_of(field) for field in fields]
        return f"{self.source.message_class(struct_name)}({', '.join(arguments)})"

    def local(self, field: Field) -> str:
        return f"{field.name}_{self.depth}"

    def fixed(self, letter: str, target: str) -> None:
        self.letters += letter
        self.targets.append(target)

    def flush(self) -> None:
        if self.targets:
            size = struct.calcsize(">" + self.letters)
            if self.letters == "B":
                self.source.line(f"{self.targets[0]} = buf[pos]")
            else:
                unpack = self.source.struct_method(self.letters, "unpack_from")
                self.source.line(
                    f"{', '.join(self.targets)}{',' if len(self.targets) == 1 else ''} = {unpack}(buf, pos)"
                )
            self.source.line(f"pos += {size}")
        self.letters, self.targets = "", []

    def read_length(self, legacy_letter: str) -> None:
        """Leaves in `n` the length, -1 for null."""
        self.fixed("B" if self.flexible else legacy_letter, "n")
        self.flush()
        if self.flexible:
            with self.source.block("if n > 127:"):
                self.source.line("n, pos = long_uvarint(buf, pos, n)")
            self.source.line("n -= 1")

    def read_field(self, field: Field) -> None:
        if field.array:
            self.read_array(field)
        elif field.type in FIXED:
            self.fixed(FIXED[field.type], self.local(field))
        elif field.type == "struct":
            self.read_struct(field, self.local(field))
        else:
            self.read_length("h" if field.type == "string" else "i")
            with self.non_null(field, self.local(field)):
                self.read_bytes(field, self.local(field))

    def read_bytes(self, field: Field, target: str) -> None:
        """`n` bytes, as string, bytes or a slice of the frame."""
        emit = self.source.line
        emit("end = pos + n")
        with self.source.block("if end > limit:"):
            emit(f"raise MalformedMessage('{self.source.name} ends within {field.name}', limit)")
        value = {"string": "str(buf[pos:end], 'utf-8')", "bytes": "bytes(buf[pos:end])", "records": "buf[pos:end]"}
        emit(f"{target} = {value[field.type]}")
        emit("pos = end")

    def non_null(self, field: Field, target: str) -> AbstractContextManager[None]:
        """Context: what to do if `n` says that the value is not null."""
        if field.is_nullable_in(self.version):
            with self.source.block("if n < 0:"):
                self.source.line(f"{target} = None")
            return self.source.block("else:")
        with self.source.block("if n < 0:"):
            self.source.line(f"raise MalformedMessage('{field.name} in {self.source.name} is null', pos)")
        return nullcontext()

    def read_array(self, field: Field) -> None:
        target = self.local(field)
        self.read_length("i")
        with self.non_null(field, target):
            emit = self.source.line
            size_min = _size_min(field, self.version, flexible=self.flexible)
            with self.source.block(f"if n * {size_min} > limit - pos:" if size_min > 1 else "if n > limit - pos:"):
                emit(f"raise MalformedMessage('{self.source.name} ends within {field.name}', limit)")
            emit("budget -= n")
            with self.source.block("if budget < 0:"):
                emit(f"raise MalformedMessage('too many elements in {self.source.name}', pos)")
            if field.type in ("int8", "int16", "int32", "int64"):
                emit(f"{target} = list(unpack_from(f'>{{n}}{FIXED[field.type]}', buf, pos))")
                emit(f"pos += n * {size_min}" if size_min > 1 else "pos += n")
                return
            emit(f"{target} = []")
            with self.source.block("for _ in range(n):"):
                emit(f"{target}.append({self.read_element(field)})")

    def read_element(self, field: Field) -> str:
        inner = _StructReader(self.source, self.version, flexible=self.flexible, depth=self.depth + 1)
        if field.type == "struct":
            return inner.read(field.struct, field.fields)
        element = f"{field.name}_{inner.depth}"
        if field.type in FIXED:
            inner.fixed(FIXED[field.type], element)
            inner.flush()
        else:
            inner.read_length("h" if field.type == "string" else "i")
            with inner.non_null(_without_null(field), element):
                inner.read_bytes(field, element)
        return element

    def read_struct(self, field: Field, target: str) -> None:
        """A struct outside of an array; one that may be null stands behind a byte that says whether it is."""
        inner = _StructReader(self.source, self.version, flexible=self.flexible, depth=self.depth + 1)
        if field.nullable is None:
            self.flush()
            self.source.line(f"{target} = {inner.read(field.struct, field.fields)}")
            return
        self.fixed("b", "n")
        self.flush()
        with self.non_null(field, target):
            self.source.line(f"{target} = {inner.read(field.struct, field.fields)}")

    def read_tags(self, tagged: list[Field]) -> None:
        emit = self.source.line
        self.fixed("B", "n")
        self.flush()
        for field in tagged:
            emit(f"{self.local(field)} = {default_of(field)}")
        with self.source.block("if n:"):
            if not tagged:
                emit("pos, budget = skip_tags(buf, pos, n, budget)")
                return
            tag, end = f"_tag_{self.depth}", f"_tag_end_{self.depth}"
            with self.source.block("if n > 127:"):
                emit("n, pos = long_uvarint(buf, pos, n)")
            emit("budget -= n")
            with self.source.block("if budget < 0:"):
                emit(f"raise MalformedMessage('too many tagged fields in {self.source.name}', pos)")
            with self.source.block("for _ in range(n):"):
                emit(f"{tag}, pos = uvarint(buf, pos)")
                emit(f"{end}, pos = uvarint(buf, pos)")
                emit(f"{end} += pos")
                for number, field in enumerate(tagged):
                    with self.source.block(f"{'el' if number else ''}if {tag} == {field.tag}:"):
                        self.read_field(field)
                        self.flush()
                with self.source.block("else:"):
                    emit(f"pos = {end}")
                with self.source.block(f"if pos != {end} or pos > limit:"):
                    emit(f"raise MalformedMessage('wrong size of a tagged field in {self.source.name}', pos)")


def _without_null(field: Field) -> Field:
    """Elements of arrays are never null, if the array itself may be."""
    return Field(field.name, field.type, field.versions)


def _size_min(field: Field, version: int, *, flexible: bool) -> int:
    """The fewest bytes that one element of this array takes; at least one."""
    if field.type != "struct":
        return _value_size_min(field.type, flexible=flexible)
    sizes = [
        (1 if flexible else 4) if inner.array else _value_size_min(inner.type, flexible=flexible)
        for inner in field.fields
        if inner.exists_in(version) and inner.tag is None
    ]
    size = sum(sizes) + flexible
    assert size > 0, f"elements of {field.name} take no bytes"
    return size


def _value_size_min(kind: str, *, flexible: bool) -> int:
    if kind in FIXED:
        return struct.calcsize(">" + FIXED[kind])
    return 1 if flexible else 2 if kind == "string" else 4


# -- called by the compiled functions -----------------------------------------------------------------


def read_uvarint(buf: memoryview, pos: int) -> tuple[int, int]:
    first = buf[pos]
    return (first, pos + 1) if first < 128 else long_uvarint(buf, pos + 1, first)


def long_uvarint(buf: memoryview, pos: int, first: int) -> tuple[int, int]:
    """The rest of a varint whose first byte, with its high bit set, was read. At most 5 bytes, as in Kafka."""
    value = first & 0x7F
    for shift in (7, 14, 21, 28):
        byte = buf[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 128:
            return value, pos
    raise MalformedMessage("varint is longer than 5 bytes", pos)


def skip_tags(buf: memoryview, pos: int, first: int, budget: int) -> tuple[int, int]:
    """Pass over a section of tagged fields of which none is known; `first` is the first byte of their number."""
    count = first
    if count > 127:
        count, pos = long_uvarint(buf, pos, count)
    if count > budget:
        raise MalformedMessage("too many tagged fields", pos)
    for _ in range(count):
        _, pos = read_uvarint(buf, pos)
        size, pos = read_uvarint(buf, pos)
        pos += size
        if pos > len(buf):
            raise MalformedMessage("message ends within a tagged field", len(buf))
    return pos, budget - count
