"""A graph in the making: nodes in memory, tensors straight to the disk."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Weights = Callable[[str], NDArray[np.float32]]
"""Gives the tensor with this name (as in the torch modules' `state_dict`) as a float32 copy."""

OPSET = 21
"""Of the standard operators; the others are ONNX Runtime's own."""

RUNTIME = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

_IR_VERSION = 10
_INLINE_BYTES = 1024
_ALIGNMENT = 4096  # a page: what is aligned so is mapped, not read, when a session is made

_TYPES: dict[Any, int] = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.uint8): TensorProto.UINT8,
    np.dtype(np.bool_): TensorProto.BOOL,
}

Axis = int | str


class GraphWriter:
    """Collects a graph; large tensors are written to the data file as they come."""

    def __init__(self, folder: Path, name: str) -> None:
        """Begin `folder/{name}.onnx` and `folder/{name}.data`."""
        self._graph_path = folder / f"{name}.onnx"
        self._data_path = folder / f"{name}.data"
        self._data: BinaryIO = self._data_path.open("wb")
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: list[onnx.TensorProto] = []
        self._known: set[str] = set()
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    def __enter__(self) -> "GraphWriter":
        """The writer itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the data file, whatever happened."""
        self._data.close()

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[Axis]) -> str:
        """An input of the graph; axes that vary have letters. Gives `name` back."""
        kind = _TYPES[np.dtype(dtype)]
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, value: str, name: str, dtype: type[np.generic], shape: Sequence[Axis]) -> None:
        """Give `value` out under `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self.output_named(name, dtype, shape)

    def output_named(self, name: str, dtype: type[np.generic], shape: Sequence[Axis]) -> None:
        """Give a value out under the name that it has."""
        kind = _TYPES[np.dtype(dtype)]
        self._outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def constant(self, *values: int) -> str:
        """A small int64 vector; equal ones are kept once."""
        return self.tensor("axes_" + "_".join(map(str, values)), np.array(values, np.int64))

    def tensor(self, name: str, array: NDArray[Any]) -> str:
        """A weight. A name that is known already is not written again. Gives `name` back."""
        if name in self._known:
            return name
        self._known.add(name)
        if array.nbytes <= _INLINE_BYTES:
            self._tensors.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
            return name
        self._data.write(bytes(-self._data.tell() % _ALIGNMENT))
        offset = self._data.tell()
        np.ascontiguousarray(array).tofile(self._data)
        stored = TensorProto(
            name=name, data_type=_TYPES[array.dtype], dims=array.shape,
            data_location=TensorProto.EXTERNAL,
        )  # fmt: skip
        place = {"location": self._data_path.name, "offset": offset, "length": array.nbytes}
        for key, value in place.items():
            stored.external_data.add(key=key, value=str(value))
        self._tensors.append(stored)
        return name

    def node(
        self, operator: str, inputs: Sequence[str], *, domain: str = "", **attributes: Any
    ) -> str:
        """A node with one output; gives the output's name."""
        return self.nodes(operator, inputs, 1, domain=domain, **attributes)[0]

    def nodes(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: int | Sequence[str],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """A node with several outputs, or with named ones ("" leaves one out); gives their
        names."""
        self._count += 1
        if isinstance(outputs, int):
            outputs = [f"{operator}_{self._count}_{i}" for i in range(outputs)]
        made = helper.make_node(
            operator, list(inputs), list(outputs), f"{operator}_{self._count}", domain=domain,
            **attributes,
        )  # fmt: skip
        self._nodes.append(made)
        return list(outputs)

    def finish(self) -> None:
        """Write the graph."""
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, self._tensors
        )
        operators = [helper.make_opsetid("", OPSET), helper.make_opsetid(RUNTIME, 1)]
        model = helper.make_model(
            graph, opset_imports=operators, ir_version=_IR_VERSION, producer_name="kiku"
        )
        self._data.flush()
        self._graph_path.write_bytes(model.SerializeToString())
