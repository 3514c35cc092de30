"""Graphs of one operator, to call it as ONNX Runtime does."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kiku_kernels
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import helper


@functools.cache
def library() -> Path:
    """The library that is installed; KIKU_KERNELS_LIBRARY names another."""
    if given := os.environ.get("KIKU_KERNELS_LIBRARY"):
        return Path(given)
    return kiku_kernels.library()


class Operator:
    """One node of the domain `kiku` as a session."""

    def __init__(
        self, name: str, inputs: Sequence[type[np.generic] | None],
        outputs: Sequence[type[np.generic] | None], *, threads: int = 1, **attributes: Any,
    ) -> None:  # fmt: skip
        """All axes are free; None leaves an input or output out."""
        ins = [f"in{i}" if one else "" for i, one in enumerate(inputs)]
        outs = [f"out{i}" if one else "" for i, one in enumerate(outputs)]
        node = helper.make_node(name, ins, outs, domain="kiku", **attributes)
        values = [
            [
                helper.make_tensor_value_info(
                    value, helper.np_dtype_to_tensor_dtype(np.dtype(one)), None
                )
                for value, one in zip(names, kinds, strict=True)
                if one
            ]
            for names, kinds in ((ins, inputs), (outs, outputs))
        ]
        graph = helper.make_graph([node], "one", *values)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("kiku", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # More threads than cores that wait in a loop keep each other from working.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.register_custom_ops_library(str(library()))
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.ins, self.outs = [*filter(None, ins)], [*filter(None, outs)]

    def __call__(self, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        """Run it."""
        return self.session.run(self.outs, dict(zip(self.ins, arrays, strict=True)))


__all__ = ["Operator", "library"]
