"""A graph in the making: nodes in memory, tensors straight to the disk."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kiku.graph import messages
from kiku.graph.messages import Message

Weights = Callable[[str], NDArray[np.float32]]
"""Gives the tensor with this name (as in the torch modules' `state_dict`) as a float32 copy."""

OPSET = 21
"""Of the standard operators; the others are ONNX Runtime's own."""

RUNTIME = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

_IR_VERSION = 10
_INLINE_BYTES = 1024
_ALIGNMENT = 4096  # a page: what is aligned so is mapped, not read, when a session is made

Axis = int | str


class GraphWriter:
    """Collects a graph; large tensors are written to the data file as they come."""

    def __init__(self, folder: Path, name: str) -> None:
        """Begin `folder/{name}.onnx` and `folder/{name}.data`."""
        self._graph_path = folder / f"{name}.onnx"
        self._data_path = folder / f"{name}.data"
        self._data: BinaryIO = self._data_path.open("wb")
        self._name = name
        self._nodes: list[Message] = []
        self._tensors: list[Message] = []
        self._known: set[str] = set()
        self._inputs: list[Message] = []
        self._outputs: list[Message] = []
        self._count = 0

    def __enter__(self) -> "GraphWriter":
        """The writer itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the data file, whatever happened."""
        self._data.close()

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[Axis]) -> str:
        """An input of the graph; axes that vary have letters. Gives `name` back."""
        self._inputs.append(messages.value_info(name, dtype, shape))
        return name

    def output(self, value: str, name: str, dtype: type[np.generic], shape: Sequence[Axis]) -> None:
        """Give `value` out under `name`."""
        self._nodes.append(messages.node("Identity", [value], [name]))
        self.output_named(name, dtype, shape)

    def output_named(self, name: str, dtype: type[np.generic], shape: Sequence[Axis]) -> None:
        """Give a value out under the name that it has."""
        self._outputs.append(messages.value_info(name, dtype, shape))

    def constant(self, *values: int) -> str:
        """A small int64 vector; equal ones are kept once."""
        return self.tensor("axes_" + "_".join(map(str, values)), np.array(values, np.int64))

    def tensor(self, name: str, array: NDArray[Any]) -> str:
        """A weight. A name that is known already is not written again. Gives `name` back."""
        if name in self._known:
            return name
        self._known.add(name)
        if array.nbytes <= _INLINE_BYTES:
            self._tensors.append(messages.tensor(name, array))
            return name
        self._data.write(bytes(-self._data.tell() % _ALIGNMENT))
        offset = self._data.tell()
        np.ascontiguousarray(array).tofile(self._data)
        self._tensors.append(messages.stored_tensor(name, array, self._data_path.name, offset))
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
        name = f"{operator}_{self._count}"
        made = messages.node(operator, inputs, outputs, name, domain=domain, attributes=attributes)
        self._nodes.append(made)
        return list(outputs)

    def finish(self) -> None:
        """Write the graph."""
        whole = messages.model(
            self._name,
            nodes=self._nodes,
            tensors=self._tensors,
            inputs=self._inputs,
            outputs=self._outputs,
            operator_sets={"": OPSET, RUNTIME: 1},
            ir_version=_IR_VERSION,
        )
        self._data.flush()
        self._graph_path.write_bytes(whole)
