"""Saved slots are outside bytes: whatever stands in them, a StreamError or a slot that works."""

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from kiku.arrays import arrays_of
from kiku.engine import SlotEngine, saved_slot
from kiku.errors import StreamError
from tests.engine.engines import WITH_KV8, make_engine, said, sound, step

Arrays = dict[str, NDArray[Any]]

POSITIONS = (-1, 2**63 - 1, -(2**63), 2**42, 2**42 + 1, 2**40, 0, 1, 3, 2**31, 10**6)
FLOATS = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 0.0)
DTYPES = (
    "float32",
    "float64",
    "float16",
    "int64",
    "int32",
    "int16",
    "uint64",
    "bool",
    "uint8",
    "int8",
)


@pytest.fixture(params=WITH_KV8)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


BY_THE_HALL = pytest.mark.parametrize("kind", ["onnx"])
"""What is refused before a backend sees it, is so for all kinds alike."""


@cache
def engine_of(kind: str) -> SlotEngine:
    return make_engine(kind, slots=2)


@cache
def saved_of(kind: str, num_frames: int = 30) -> bytes:
    engine = make_engine(kind)
    engine.open()
    said(engine, 0, sound(num_frames))
    return engine.save(0)


@cache
def expected(kind: str) -> tuple[list[int], list[int]]:
    """What the neighbour says, and what the slot says, where nothing was put into it."""
    engine = make_engine(kind)
    engine.open()
    neighbour = said(engine, 0, sound(10, 3))
    engine.close(0)
    engine.open()
    return neighbour, said(engine, 0, sound(8, 4))


def unpacked(saved: bytes) -> tuple[Arrays, dict[str, str]]:
    size = int.from_bytes(saved[:8], "little")
    return dict(load_arrays(saved)), json.loads(saved[8 : 8 + size])["__metadata__"]


def check(kind: str, saved: bytes) -> bool:
    """A StreamError, and nothing has changed, or a slot that works; the neighbour is unharmed."""
    engine = engine_of(kind)
    engine.close(0)
    engine.close(1)
    engine.open()
    engine.open()
    neighbour, own = expected(kind)
    got = said(engine, 1, sound(10, 3)[:3])
    done = said(engine, 0, sound(8, 4)[:4])
    before = engine.save(0)
    try:
        engine.restore(0, saved)
    except StreamError:
        assert engine.save(0) == before
        assert done + said(engine, 0, sound(8, 4)[4:]) == own
        worked = False
    else:
        engine.restore(0, engine.save(0))
        tokens = step(engine, [0, 1], np.stack([sound(4), sound(10, 3)[3:7]]))
        got += tokens[1].tolist()
        assert ((tokens >= 0) & (tokens < 19)).all()
        mark = engine.mark(0)
        said(engine, 0, sound(12, 2))
        engine.go_back(0, mark)
        out, left = engine.redecode(0, 6, most=4)
        assert len(out.tokens) + left <= 6
        while left:
            _, left = engine.redecode(0, 6, most=4)
        assert engine.truncate(0, 200) == 0
        said(engine, 0, sound(3))
        engine.close(0)
        engine.open()
        assert said(engine, 0, sound(8, 4)) == own
        worked = True
    got += said(engine, 1, sound(10, 3)[len(got) :])
    assert got == neighbour
    return worked


def test_what_was_saved_works(kind: str) -> None:
    arrays, metadata = unpacked(saved_of(kind))
    assert check(kind, save_arrays(arrays, metadata))
    assert check(kind, saved_of(kind, 0))


@pytest.mark.filterwarnings("ignore:.*(overflow|invalid value):RuntimeWarning")
@settings(max_examples=40)
@given(kind=st.sampled_from(WITH_KV8), data=st.data())
def test_tensors_of_any_kind_are_refused_or_work(kind: str, data: st.DataObject) -> None:
    arrays, metadata = unpacked(saved_of(kind, data.draw(st.sampled_from([0, 5, 30]))))
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(arrays)))
        arrays[name] = changed(arrays[name], data)
    check(kind, save_arrays(arrays, metadata))


def changed(array: NDArray[Any], data: st.DataObject) -> NDArray[Any]:
    how = data.draw(st.sampled_from(["dtype", "shape", "value", "value", "value", "cut"]))
    if how == "dtype":
        with np.errstate(all="ignore"):
            return array.astype(data.draw(st.sampled_from(DTYPES)))
    if how == "shape":
        shapes = [(*array.shape, 1), (1, *array.shape), (array.size,), array.shape[::-1]]
        return array.reshape(data.draw(st.sampled_from(shapes)))
    if how == "cut":
        return array[: data.draw(st.integers(0, 3))].copy() if array.ndim else array.reshape(1)
    array = array.copy()
    if array.dtype == np.bool_:
        array[...] = ~array
    elif array.size:
        values = st.sampled_from(FLOATS if array.dtype.kind == "f" else of_type(array.dtype))
        array.reshape(-1)[data.draw(st.integers(0, array.size - 1))] = data.draw(values)
    return array


def of_type(dtype: np.dtype[Any]) -> list[int]:
    """Positions that can and cannot be, as far as an integer of this type holds them."""
    limits = np.iinfo(dtype)
    held = [position for position in POSITIONS if limits.min <= position <= limits.max]
    return [*held, int(limits.min), int(limits.max)]


def test_a_position_that_cannot_be_is_refused(kind: str) -> None:
    arrays, metadata = unpacked(saved_of(kind))
    counts = [n for n, a in arrays.items() if a.dtype == np.int64 and a.size == 1 and n != "token"]
    assert len(counts) >= 2
    for name in counts:
        for value in (-1, 2**63 - 1, -(2**63), 2**42 + 1, 2**62):
            wrong = {**arrays, name: np.full_like(arrays[name], value)}
            with pytest.raises(StreamError):
                restore(kind, save_arrays(wrong, metadata))
        assert not check(kind, save_arrays(wrong, metadata))


def test_numbers_that_are_not_finite_are_refused(kind: str) -> None:
    arrays, metadata = unpacked(saved_of(kind))
    floats = [name for name, array in arrays.items() if array.dtype.kind == "f" and array.size]
    assert len(floats) > 6
    for name in floats:
        for value in (np.nan, np.inf):
            array = arrays[name].copy()
            array.reshape(-1)[-1] = value
            with pytest.raises(StreamError, match="not finite"):
                restore(kind, save_arrays({**arrays, name: array}, metadata))


def restore(kind: str, saved: bytes) -> None:
    engine = engine_of(kind)
    engine.close(0)
    engine.open()
    engine.restore(0, saved)


@BY_THE_HALL
@pytest.mark.parametrize("value", [-2, 17, 2**40, -(2**63)])
def test_codes_that_there_are_not_are_refused(kind: str, value: int) -> None:
    arrays, metadata = unpacked(saved_of(kind))
    history = arrays["history"].copy()
    history[3, 2] = value
    assert not check(kind, save_arrays({**arrays, "history": history}, metadata))


@BY_THE_HALL
@pytest.mark.parametrize("value", [-1, 20, 2**63 - 1])
def test_text_that_there_is_not_is_refused(kind: str, value: int) -> None:
    arrays, metadata = unpacked(saved_of(kind))
    history = arrays["history"].copy()
    history[3, 0] = value
    assert not check(kind, save_arrays({**arrays, "history": history}, metadata))
    token = np.array([value])
    assert not check(kind, save_arrays({**arrays, "token": token}, metadata))


@BY_THE_HALL
def test_columns_of_another_shape_are_refused(kind: str) -> None:
    arrays, metadata = unpacked(saved_of(kind))
    history = arrays["history"]
    for wrong in (
        history[:, :-1], np.repeat(history, 5, 0), history[0], history.astype(np.int32),
        np.zeros((0, 4), np.int64), np.zeros((2**20, 0), np.int64), history[None],
    ):  # fmt: skip
        with pytest.raises(StreamError, match="shape"):
            restore(kind, save_arrays({**arrays, "history": np.ascontiguousarray(wrong)}, metadata))
    for wrong in (np.zeros(0, np.int64), np.zeros(2, np.int64), np.zeros(1, np.float64)):
        with pytest.raises(StreamError, match="shape"):
            restore(kind, save_arrays({**arrays, "token": wrong}, metadata))


def test_missing_and_extra_names_are_refused(kind: str) -> None:
    arrays, metadata = unpacked(saved_of(kind))
    for name in arrays:
        rest = {n: a for n, a in arrays.items() if n != name}
        with pytest.raises(StreamError, match="damaged"):
            restore(kind, save_arrays(rest, metadata))
        renamed = {f"{n}x" if n == name else n: a for n, a in arrays.items()}
        with pytest.raises(StreamError, match="damaged"):
            restore(kind, save_arrays(renamed, metadata))
    for name in (
        "x",
        "backend.x",
        "backend.decoder.x",
        "backend.codec.x",
        "backend.99",
        "backend.",
    ):
        with pytest.raises(StreamError, match="damaged"):
            restore(kind, save_arrays({**arrays, name: np.zeros(3, np.int64)}, metadata))
    assert not check(kind, save_arrays({**arrays, "backend.x": np.zeros(3)}, metadata))
    del arrays["history"]
    assert not check(kind, save_arrays(arrays, metadata))
    with pytest.raises(StreamError, match="damaged"):
        restore(kind, save_arrays({}, metadata))


def test_another_signature_is_refused(kind: str) -> None:
    arrays, metadata = unpacked(saved_of(kind))
    assert metadata == {"kiku": engine_of(kind).backend.signature}
    for wrong in ({"kiku": "x" * 10_000}, {"kiku": ""}, {"other": "x"}, {}, None):
        with pytest.raises(StreamError, match="another model or engine") as caught:
            restore(kind, save_arrays(arrays, wrong))
        assert len(str(caught.value)) < 400
    for other in WITH_KV8:
        if {other, kind} == {"onnx", "plain"}:
            continue  # a slot goes from one to the other (see test_kernels)
        if other != kind:
            with pytest.raises(StreamError, match="another model or engine"):
                restore(kind, saved_of(other))


def header(saved: bytes) -> dict[str, Any]:
    return json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])


def with_header(saved: bytes, text: str) -> bytes:
    body = saved[8 + int.from_bytes(saved[:8], "little") :]
    raw = text.encode()
    return len(raw).to_bytes(8, "little") + raw + body


@BY_THE_HALL
@pytest.mark.parametrize("metadata", [None, [], "x", 3, {"kiku": None}, {"kiku": 3}, {"kiku": {}}])
def test_metadata_of_any_kind_is_refused(kind: str, metadata: object) -> None:
    saved = saved_of(kind)
    wrong = {**header(saved), "__metadata__": metadata}
    with pytest.raises(StreamError):
        restore(kind, with_header(saved, json.dumps(wrong)))


@pytest.mark.parametrize(
    "dtype", ["BF16", "F8_E4M3", "F8_E5M2", "F4", "C64", "F64", "U64", "I8", "BOOL", "XX", ""]
)
def test_dtypes_of_any_kind_are_refused(kind: str, dtype: str) -> None:
    saved = saved_of(kind)
    for name in header(saved):
        if name != "__metadata__":
            wrong = header(saved)
            wrong[name]["dtype"] = dtype
            if wrong != header(saved):
                with pytest.raises(StreamError):
                    restore(kind, with_header(saved, json.dumps(wrong)))


@BY_THE_HALL
@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", "null", "[" * 100_000, '{"a":' * 100_000, '{"__metadata__":' + "{" * 9000,
        '{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4000000000000]}}',
        '{"a": {"dtype": "F32", "shape": [0, 1000000000000000], "data_offsets": [0, 0]}}',
        '{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}}',
    ],
)  # fmt: skip
def test_headers_of_any_kind_are_refused(kind: str, text: str) -> None:
    with pytest.raises(StreamError):
        restore(kind, with_header(saved_of(kind), text))
    meta = json.dumps({"__metadata__": {"kiku": engine_of(kind).backend.signature}})
    with pytest.raises(StreamError):
        restore(kind, with_header(saved_of(kind), meta[:-1] + "," + text[1:]))


@BY_THE_HALL
@pytest.mark.parametrize(
    "saved", [b"", b"\0" * 7, b"\0" * 8, b"\xff" * 64, b"\2" + b"\0" * 7 + b"{}"]
)
def test_bytes_that_are_no_file_are_refused(kind: str, saved: bytes) -> None:
    assert not check(kind, saved)


@settings(max_examples=30)
@given(
    kind=st.sampled_from(WITH_KV8), at=st.integers(0, 2**20), byte=st.integers(0, 255),
    cut=st.one_of(st.none(), st.integers(0, 2**20)),
)  # fmt: skip
def test_bytes_that_are_changed_are_refused_or_work(
    kind: str, at: int, byte: int, cut: int | None
) -> None:
    saved = bytearray(saved_of(kind))
    size = 8 + int.from_bytes(saved[:8], "little")
    saved[at % (size if at % 3 else len(saved))] = byte  # mostly in the header
    with np.errstate(all="ignore"):
        check(kind, bytes(saved if cut is None else saved[: cut % len(saved)]))


def test_a_saved_slot_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be 200 MB large."""
    saved, num_calls = saved_of("onnx"), list[int]()

    def counted(data: bytes) -> Any:
        num_calls.append(len(data))
        return arrays_of(data)

    monkeypatch.setattr(saved_slot, "arrays_of", counted)
    engine = make_engine("onnx")
    slot, _ = engine.open()
    engine.restore(slot, saved)
    assert num_calls == [len(saved)]
