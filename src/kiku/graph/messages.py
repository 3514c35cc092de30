"""The few messages of an ONNX file that a graph of ours is made of, as protobuf writes them.

The package `onnx` has them all, and 30 MB of other things that nobody needs at run time. Names and
numbers of the fields are those of `onnx.proto`, which only ever grows. Tests read what is written
with `onnx` itself, byte by byte.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

Message = Any
"""What protobuf makes; it knows its fields only when it runs."""

_FIELDS: dict[str, str] = {
    "Entry": "key 1 string, value 2 string",
    "Tensor": (
        "dims 1 int64*, data_type 2 int32, name 8 string, raw_data 9 bytes, "
        "external_data 13 Entry*, data_location 14 int32"
    ),
    "Attribute": (
        "name 1 string, f 2 float, i 3 int64, s 4 bytes, floats 7 float*, ints 8 int64*, "
        "strings 9 bytes*, type 20 int32"
    ),
    "Node": (
        "input 1 string*, output 2 string*, name 3 string, op_type 4 string, "
        "attribute 5 Attribute*, domain 7 string"
    ),
    "Dimension": "dim_value 1 int64, dim_param 2 string",
    "Shape": "dim 1 Dimension*",
    "TensorType": "elem_type 1 int32, shape 2 Shape",
    "Type": "tensor_type 1 TensorType",
    "ValueInfo": "name 1 string, type 2 Type",
    "Graph": (
        "node 1 Node*, name 2 string, initializer 5 Tensor*, input 11 ValueInfo*, "
        "output 12 ValueInfo*"
    ),
    "OperatorSet": "domain 1 string, version 2 int64",
    "Model": (
        "ir_version 1 int64, producer_name 2 string, graph 7 Graph, opset_import 8 OperatorSet*"
    ),
}
"""By message: name, number and kind of each field; a star means several."""

_DATA_TYPES: dict[np.dtype[Any], int] = {
    np.dtype(np.float32): 1,
    np.dtype(np.uint8): 2,
    np.dtype(np.int8): 3,
    np.dtype(np.int32): 6,
    np.dtype(np.int64): 7,
    np.dtype(np.bool_): 9,
    np.dtype(np.float16): 10,
}
_EXTERNAL = 1
_FLOAT, _INT, _STRING, _FLOATS, _INTS, _STRINGS = 1, 2, 3, 6, 7, 8
"""`AttributeProto.type`."""


def _classes() -> dict[str, Any]:
    """The classes of the messages above."""
    file = descriptor_pb2.FileDescriptorProto(name="kiku_onnx.proto", package="kiku")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field in fields.split(", "):
            field_name, number, kind = field.split()
            several = kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL
            made = message.field.add(name=field_name, number=int(number), label=several)
            kind = kind.rstrip("*")
            if kind in _FIELDS:
                made.type, made.type_name = kinds.TYPE_MESSAGE, f".kiku.{kind}"
            else:
                made.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # pyright: ignore[reportUnknownMemberType]
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"kiku.{name}"))
        for name in _FIELDS
    }


_CLASSES = _classes()


def value_info(name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> Message:
    """An input or output; axes that vary have letters."""
    info = _CLASSES["ValueInfo"](name=name)
    info.type.tensor_type.elem_type = _DATA_TYPES[np.dtype(dtype)]
    info.type.tensor_type.shape.SetInParent()
    for axis in shape:
        if isinstance(axis, int):
            info.type.tensor_type.shape.dim.add(dim_value=axis)
        else:
            info.type.tensor_type.shape.dim.add(dim_param=axis)
    return info


def tensor(name: str, array: NDArray[Any]) -> Message:
    """A weight that stands in the graph itself."""
    data = np.asarray(array, order="C").tobytes()
    kind = _DATA_TYPES[array.dtype]
    return _CLASSES["Tensor"](name=name, data_type=kind, dims=array.shape, raw_data=data)


def stored_tensor(name: str, array: NDArray[Any], file: str, offset: int) -> Message:
    """A weight whose bytes lie in another file."""
    made = _CLASSES["Tensor"](
        name=name, data_type=_DATA_TYPES[array.dtype], dims=array.shape, data_location=_EXTERNAL
    )
    for key, value in (("location", file), ("offset", offset), ("length", array.nbytes)):
        made.external_data.add(key=key, value=str(value))
    return made


def stored_places(model: bytes) -> list[tuple[int, int]]:
    """Offset and length of every weight of a file whose bytes lie in another one."""
    places = [
        {entry.key: int(entry.value) for entry in tensor.external_data if entry.key != "location"}
        for tensor in _CLASSES["Model"].FromString(model).graph.initializer
        if tensor.data_location == _EXTERNAL
    ]
    return [(place["offset"], place["length"]) for place in places]


def node(
    operator: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    name: str = "",
    *,
    domain: str | None = None,
    attributes: dict[str, Any] | None = None,
) -> Message:
    """An operator at work; attributes are numbers, texts, or sequences of one of these."""
    made = _CLASSES["Node"](input=inputs, output=outputs, op_type=operator)
    if name:
        made.name = name
    if domain is not None:
        made.domain = domain
    for key, value in sorted((attributes or {}).items()):
        made.attribute.append(_attribute(key, value))
    return made


def _attribute(name: str, value: Any) -> Message:
    made = _CLASSES["Attribute"](name=name)
    several = not isinstance(value, str) and isinstance(value, Sequence)
    values: list[Any] = list(value) if several else [value]  # pyright: ignore[reportUnknownArgumentType]
    if all(isinstance(one, str) for one in values):
        values = [one.encode() for one in values]
        field, kind = ("strings", _STRINGS) if several else ("s", _STRING)
    elif all(isinstance(one, int) for one in values):
        field, kind = ("ints", _INTS) if several else ("i", _INT)
    elif all(isinstance(one, int | float) for one in values):
        field, kind = ("floats", _FLOATS) if several else ("f", _FLOAT)
    else:
        raise TypeError(f"attribute {name} is {value!r}: give numbers or texts")
    made.type = kind
    if several:
        getattr(made, field).extend(values)
    else:
        setattr(made, field, values[0])
    return made


def model(
    name: str,
    *,
    nodes: Sequence[Message],
    tensors: Sequence[Message],
    inputs: Sequence[Message],
    outputs: Sequence[Message],
    operator_sets: dict[str, int],
    ir_version: int,
) -> bytes:
    """The whole file."""
    graph = _CLASSES["Graph"](
        node=nodes, name=name, initializer=tensors, input=inputs, output=outputs
    )
    made = _CLASSES["Model"](ir_version=ir_version, producer_name="kiku", graph=graph)
    for domain, version in operator_sets.items():
        made.opset_import.add(domain=domain, version=version)
    return made.SerializeToString()
