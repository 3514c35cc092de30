"""A graph in the making: nodes in memory, tensors straight to the disk."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from enum import Enum
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

KERNELS = "kiku"
"""The domain of the operators in `kiku-kernels`."""

IR_VERSION = 10
"""Of the files."""
_INLINE_BYTES = 1024
_ALIGNMENT = 4096  # a page: what is aligned so is mapped, not read, when a session is made

Axis = int | str


class Variant(Enum):
    """One of the two graphs over the same weights."""

    PLAIN = ""
    """With ONNX Runtime's operators only."""
    OWN = ".kernels"
    """With those of `kiku-kernels`. The value stands in the file's name."""


def graph_file(name: str, variant: Variant) -> str:
    """The file of a network's graph, "decoder.kernels.onnx"."""
    return f"{name}{variant.value}.onnx"


class _Parts:
    """What one graph is made of."""

    def __init__(self) -> None:
        self.nodes: list[Message] = []
        self.tensors: dict[str, Message] = {}
        self.inputs: list[Message] = []
        self.outputs: list[Message] = []


class GraphWriter:
    """Collects two graphs that compute the same, with and without the operators of `kiku-kernels`.

    What is added goes into both, but for what is added within `only`. Large tensors are written to
    the one data file as they come.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Begin `folder/{name}.onnx`, `folder/{name}.kernels.onnx` and `folder/{name}.data`."""
        self._graph_paths = {one: folder / graph_file(name, one) for one in Variant}
        self._data_path = folder / f"{name}.data"
        self._data: BinaryIO = self._data_path.open("wb")
        self._name = name
        self._graphs = {one: _Parts() for one in Variant}
        self._chosen = tuple(self._graphs.values())
        self._known: dict[str, Message] = {}
        self._places: dict[str, int] = {}  # of those that lie in the data file
        self._count = 0

    def __enter__(self) -> "GraphWriter":
        """The writer itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the data file, whatever happened."""
        self._data.close()

    @contextmanager
    def only(self, variant: Variant) -> Generator[None]:
        """What is added within goes into this graph alone; names made there mean nothing in the
        other."""
        before = self._chosen
        self._chosen = (self._graphs[variant],)
        try:
            yield
        finally:
            self._chosen = before

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[Axis]) -> str:
        """An input of the graph; axes that vary have letters. Gives `name` back."""
        for parts in self._chosen:
            parts.inputs.append(messages.value_info(name, dtype, shape))
        return name

    def output(self, value: str, name: str, dtype: type[np.generic], shape: Sequence[Axis]) -> None:
        """Give `value` out under `name`."""
        for parts in self._chosen:
            parts.nodes.append(messages.node("Identity", [value], [name]))
        self.output_named(name, dtype, shape)

    def output_named(self, name: str, dtype: type[np.generic], shape: Sequence[Axis]) -> None:
        """Give a value out under the name that it has."""
        for parts in self._chosen:
            parts.outputs.append(messages.value_info(name, dtype, shape))

    def constant(self, *values: int) -> str:
        """A small int64 vector; equal ones are kept once."""
        return self.tensor("axes_" + "_".join(map(str, values)), np.array(values, np.int64))

    def tensor(self, name: str, array: NDArray[Any]) -> str:
        """A weight. A name that is known already is not written again. Gives `name` back."""
        if name not in self._known:
            self._known[name] = self._stored(name, array)
        for parts in self._chosen:
            parts.tensors[name] = self._known[name]
        return name

    def parts_of(self, name: str, array: NDArray[Any]) -> list[str]:
        """array[0], array[1], ... of a weight that was added as `name`, as weights of their own.
        Where each of them is whole pages they share its place in the data file."""
        place = self._places.get(name)
        parts = [f"{name}.{i}" for i in range(len(array))]
        for i, (part, values) in enumerate(zip(parts, array, strict=True)):
            if place is not None and values.nbytes % _ALIGNMENT == 0:
                at = place + i * values.nbytes
                stored = messages.stored_tensor(part, values, self._data_path.name, at)
                self._known.setdefault(part, stored)
            self.tensor(part, values)
        return parts

    def _stored(self, name: str, array: NDArray[Any]) -> Message:
        if array.nbytes <= _INLINE_BYTES:
            return messages.tensor(name, array)
        self._data.write(bytes(-self._data.tell() % _ALIGNMENT))
        offset = self._places[name] = self._data.tell()
        np.ascontiguousarray(array).tofile(self._data)
        return messages.stored_tensor(name, array, self._data_path.name, offset)

    def value(self, name: str) -> str:
        """A new name that begins so, for what both variants compute in ways of their own."""
        self._count += 1
        return f"{name}_{self._count}"

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
        for parts in self._chosen:
            parts.nodes.append(made)
        return list(outputs)

    def finish(self) -> None:
        """Write both graphs."""
        self._data.flush()
        for variant, path in self._graph_paths.items():
            path.write_bytes(self.graph(variant))

    def graph(self, variant: Variant) -> bytes:
        """One of the graphs as it is now. Large tensors are in the data file, not in it."""
        parts = self._graphs[variant]
        sets = {"": OPSET, RUNTIME: 1}
        return messages.model(
            self._name,
            nodes=parts.nodes,
            tensors=list(parts.tensors.values()),
            inputs=parts.inputs,
            outputs=parts.outputs,
            operator_sets=sets if variant is Variant.PLAIN else {**sets, KERNELS: 1},
            ir_version=IR_VERSION,
        )
