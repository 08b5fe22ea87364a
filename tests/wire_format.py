"""Protobuf fields by hand, for files that no exporter writes. Tests alone use it."""


def varint(value: int) -> bytes:
    """A number of seven bits a byte, lowest first."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, content: bytes | str | int) -> bytes:
    """A field of a message. Put behind a message, it is one more field of that message."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    raw = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def in_graph(*fields: bytes) -> bytes:
    """Further fields of the model's graph: protobuf merges a graph that comes twice."""
    return field(7, b"".join(fields))


def node(operator: str, domain: str, *attributes: bytes) -> bytes:
    """A field of a graph, or of a function: one node, "n"."""
    fields = [field(3, "n"), field(4, operator), field(7, domain)]
    return b"".join([*fields, *(field(5, attribute) for attribute in attributes)])


def tensor(*fields: bytes) -> bytes:
    """A float32 tensor "w" of one value, with further fields."""
    return b"".join([field(1, 1), field(2, 1), field(8, "w"), *fields])


LOCATION = field(13, field(1, "location") + field(2, "weights.bin"))
"""A tensor's values are in that file."""
