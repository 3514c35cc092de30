"""What we write is what the package `onnx` writes, byte by byte."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kiku.graph import messages


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"axis": -1, "epsilon": 1e-5},
        {"mode": "edge", "perm": [0, 2, 1]},
        {"scales": (0.5, 2.0), "names": ["a", "ö"], "last": 2**40},
    ],
)
@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_nodes(attributes: dict[str, Any], domain: str) -> None:
    theirs = helper.make_node("Op", ["x", ""], ["y", "z"], "Op_1", domain=domain, **attributes)
    ours = messages.node("Op", ["x", ""], ["y", "z"], "Op_1", domain=domain, attributes=attributes)
    assert ours.SerializeToString() == theirs.SerializeToString()


def test_a_node_without_name_and_domain() -> None:
    theirs = helper.make_node("Identity", ["x"], ["y"])
    assert messages.node("Identity", ["x"], ["y"]).SerializeToString() == theirs.SerializeToString()


def test_an_attribute_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="attribute axis"):
        messages.node("Op", [], [], attributes={"axis": None})


@pytest.mark.parametrize("shape", [(), (1, 750), ("N", 3, "T")])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int32, np.uint8, np.bool_])
def test_inputs(dtype: type[np.generic], shape: tuple[int | str, ...]) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    theirs = helper.make_tensor_value_info("x", kind, shape)
    assert messages.value_info("x", dtype, shape).SerializeToString() == theirs.SerializeToString()


@pytest.mark.parametrize(
    "array",
    [
        np.float32(1.5).reshape(()),
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.array([True, False]),
        np.zeros((0, 3), np.uint8),
    ],
)
def test_tensors(array: NDArray[Any]) -> None:
    theirs = numpy_helper.from_array(np.asarray(array, order="C"), "w")
    assert messages.tensor("w", array).SerializeToString() == theirs.SerializeToString()


def test_tensors_in_another_file() -> None:
    theirs = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(2, 3))
    theirs.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.data"), ("offset", "4096"), ("length", "24")):
        theirs.external_data.add(key=key, value=value)
    ours = messages.stored_tensor("w", np.zeros((2, 3), np.float32), "w.data", 4096)
    assert ours.SerializeToString() == theirs.SerializeToString()


def test_the_whole_file() -> None:
    array = np.ones(3, np.float32)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"], "Add_1", domain="")],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, "w")],
    )
    sets = {"": 21, "com.microsoft": 1}
    theirs = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*one) for one in sets.items()],
        ir_version=10,
        producer_name="kiku",
    )
    ours = messages.model(
        "one",
        nodes=[messages.node("Add", ["x", "w"], ["y"], "Add_1", domain="")],
        tensors=[messages.tensor("w", array)],
        inputs=[messages.value_info("x", np.float32, ["N", 3])],
        outputs=[messages.value_info("y", np.float32, ["N", 3])],
        operator_sets=sets,
        ir_version=10,
    )
    assert ours == theirs.SerializeToString()


def test_onnx_itself_is_not_needed() -> None:
    program = "import sys; sys.modules['onnx'] = None; import kiku.graph.writer, kiku.graph"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
