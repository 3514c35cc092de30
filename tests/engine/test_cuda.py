"""What is the GPU backend's own: one launch a step, what is read ahead, keys in fewer bits, memory
that does not suffice. All of it on the processor with graphs off, unless the tests have a device
(see `device_of_tests`)."""

import gc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from kiku.codec import MimiEncoder
from kiku.decoding import Picker
from kiku.engine import SlotEngine, cuda
from kiku.engine.cuda import CudaBackend, GpuOptions, cuda_engine
from kiku.engine.gpu import attention, fetching, launches, memory
from kiku.engine.gpu import slots as slot_memory
from kiku.engine.gpu.capture import RECORDING, Graphs
from kiku.engine.gpu.memory import Room
from kiku.engine.gpu.rings import FLOAT8, Rings, ring_bytes, to_float8
from kiku.engine.gpu.room import COPIES
from kiku.engine.gpu.trays import Tray
from kiku.errors import ConfigError, StreamError
from tests import tiny
from tests.engine import engines
from tests.engine.engines import device_of_tests, make_engine, said, sound, step


def make(slots: int = 1, **options: Any) -> tuple[SlotEngine, CudaBackend]:
    engine = cuda_engine(
        tiny.codec(), tiny.lm(), slots=slots, device=device_of_tests(), keep_logits=False,
        options=GpuOptions(**options),
    )  # fmt: skip
    assert isinstance(engine.backend, CudaBackend)
    return engine, engine.backend


def test_the_device_is_that_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one gets networks of its own: those of other engines stay where they are."""
    for device, copied in (("cpu", False), ("cpu:0", True)):
        monkeypatch.setenv("KIKU_TEST_DEVICE", device)
        _, backend = make()
        assert backend.launches._device == torch.device(device)
        backend = make_engine("cuda").backend
        assert isinstance(backend, CudaBackend)
        assert backend.launches._device == torch.device(device)
        network = backend.launches._network
        assert (network.lm is not engines._lm(0)) is copied
        assert (network.codec is not engines._codec(0)) is copied


def launches_of(engine: SlotEngine, backend: CudaBackend, slots: Sequence[int], T: int) -> int:
    before = backend.num_launches
    step(engine, slots, np.stack([sound(T, seed) for seed in slots]))
    return backend.num_launches - before


def test_a_frame_of_every_slot_is_one_launch() -> None:
    engine, backend = make(slots=3)
    for _ in range(3):
        engine.open()
    assert [launches_of(engine, backend, [0, 1, 2], 1) for _ in range(12)] == [1] * 12
    mark = engine.mark(1)
    assert launches_of(engine, backend, [1], 1) == 1
    engine.go_back(1, mark)
    assert [launches_of(engine, backend, [2, 1], 1) for _ in range(3)] == [1] * 3


def test_after_blocks_too() -> None:
    engine, backend = make()
    engine.open()
    for T in (4, 16, 7, 2):
        launches_of(engine, backend, [0], T)
        assert launches_of(engine, backend, [0], 1) == 1


def test_a_slot_with_fewer_codebooks_is_read_ahead_with_those() -> None:
    engine, backend = make(slots=2)
    engine.open()
    engine.open(num_codebooks=2)
    launches_of(engine, backend, [0, 1], 1)
    assert [launches_of(engine, backend, [1, 0], 1) for _ in range(5)] == [1] * 5


def test_a_token_that_was_picked_against_the_odds_costs_one_more() -> None:
    engine, backend = make(slots=2)
    engine.open()
    engine.open(lambda logits: int(np.argsort(logits)[-2]))
    launches_of(engine, backend, [0, 1], 1)
    assert [launches_of(engine, backend, [0, 1], 1) for _ in range(5)] == [2] * 5


@pytest.mark.parametrize("T", [1, 16])
def test_logits_come_with_the_call_that_makes_them(T: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the last columns of a slot were read with logits, the next will be, too: so nobody
    waits a second time."""
    engine, backend = make(slots=2)
    picked: list[np.ndarray] = []
    for _ in range(2):
        engine.open(lambda logits: (picked.append(logits), int(logits.argmax()))[1])
    frames = np.stack([sound(4 * T, seed) for seed in range(2)])
    launches_of(engine, backend, [0, 1], T)
    waits, wait = list[int](), backend.launches.wait
    monkeypatch.setattr(backend.launches, "wait", lambda: (waits.append(1), wait()))
    for at in range(0, 4 * T, T):
        waits.clear()
        before = backend.num_launches
        step(engine, [1, 0], frames[:, at : at + T])
        assert len(waits) == backend.num_launches - before
    assert len(picked) >= 2 * 5 * T


def test_logits_that_nobody_reads_stay_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """32 kB a row of the 1B, in every frame of a greedy slot."""
    engine, backend = make(slots=2)
    fetched: list[int | None] = []
    fetch = Tray.fetch

    def noted(self: Tray, most: int | None = None) -> None:
        if "logits" in self.host:
            fetched.append(most)
        fetch(self, most)

    monkeypatch.setattr(Tray, "fetch", noted)
    for _ in range(2):
        engine.open()
    for seed in range(4):
        step(engine, [0, 1], np.stack([sound(1, seed), sound(1, seed + 9)]))
    assert fetched == []
    assert backend.launches._num_fetched == 0


def test_logits_that_were_not_asked_for_in_time_are_fetched() -> None:
    engine, backend = make(slots=2)
    launches = backend.launches
    for _ in range(2):
        engine.open()
    step(engine, [0, 1], np.stack([sound(1, 1), sound(1, 2)]))
    with backend._place.entered():
        fetched = [launches.logits(np.array(rows), 1) for rows in ([1], [0, 1])]
    kept = launches._last
    assert kept is not None
    device = kept.logits.device["logits"].cpu().numpy()
    assert np.array_equal(fetched[0], device[1:2])
    assert np.array_equal(fetched[1], device[:2])


def test_what_was_read_ahead_is_not_given_to_another_question() -> None:
    """The first half of a step, and then codes that are not those."""
    engine, _ = make()
    straight, _ = make()
    for one in (engine, straight):
        one.open()
    codes = [straight.encode([0], sound(1, seed)) for seed in range(6)]
    said_by = []
    for one in (engine, straight):
        row: list[int] = []
        for part in codes:
            if one is engine:
                one.encode([0], sound(1, 9))
            row += one.decode([0], part).tokens.tolist()
        said_by.append(row)
    assert said_by[0] == said_by[1]


@pytest.mark.parametrize("back", [0, 2])
def test_what_was_read_ahead_of_a_rewind_is_not_given_after_it(back: int) -> None:
    """The same columns at another place: the engine does not ask that, but a backend may be."""
    engine, backend = make()
    engine.open()
    step(engine, [0], sound(4)[None])
    slots, one = np.zeros(1, np.int64), np.ones(1, np.int64)
    codes = backend.encode(slots, sound(1, 5)[None])
    columns = np.concatenate([backend._ahead.next_tokens(slots)[:, None, None], codes], axis=2)
    if back:
        backend.rewind(slots, back * one)
    before = backend.num_launches
    backend.read(slots, columns, one, logits=False)
    assert backend.num_launches - before == (1 if back else 0)


@pytest.mark.parametrize("most", [3, 16, 40])
def test_more_rows_than_a_call_takes_go_in_several(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.stack([sound(40, seed) for seed in range(5)])
    wanted = make_engine("torch", slots=5)
    monkeypatch.setattr(launches, "MAX_FRAMES", most)
    engine, backend = make(slots=5)
    for one in (wanted, engine):
        for number in range(5):
            one.open(_second_best if number == 2 else None)
    assert backend.launches.rows[1][-1] == min(5, most)
    assert backend.launches.rows[16][-1] == max(1, most // 16)
    for at, T in ((0, 1), (1, 1), (2, 16), (18, 5), (23, 1), (24, 16)):
        part = frames[:, at : at + T]
        assert step(engine, range(5), part).tolist() == step(wanted, range(5), part).tolist()


def test_the_initial_column_is_read_alike_where_every_call_has_several_rows() -> None:
    """Rows that nobody needs write to the spare slot, which is where it is read."""
    told: list[list[int]] = []
    for rows in ((1,), (4,)):
        engine, backend = make(slots=4, rows=rows, sizes=(1,))
        assert backend.launches.rows[1][0] == rows[0]
        slot, _ = engine.open()
        told.append(
            [int(engine.step([slot], sound(30)[at : at + 1]).tokens[0]) for at in range(30)]
        )
        _, usual = make()
        assert torch.allclose(
            backend._slots.initial["keys"], usual._slots.initial["keys"], atol=1e-6
        )
    assert told[0] == told[1]


@pytest.mark.parametrize("sizes", [(1,), (1, 4)])
def test_fewer_sizes_of_calls_say_the_same(sizes: tuple[int, ...]) -> None:
    told: list[list[int]] = []
    for options in ({}, {"sizes": sizes}):
        engine, _ = make(**options)
        slot, _ = engine.open()
        told.append(engine.step([slot], sound(30), [30]).tokens.tolist())
    assert told[0] == told[1]


def test_attention_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.stack([sound(30, seed) for seed in range(5)])
    got = []
    for rows in (2, 32):
        monkeypatch.setattr(attention, "ROWS_AT_ONCE", rows)
        engine, _ = make(slots=5)
        for _ in range(5):
            engine.open()
        got.append(step(engine, range(5), frames).tolist())
    assert got[0] == got[1]


def _second_best(logits: np.ndarray) -> int:
    return int(np.argsort(logits)[-2])


# Keys and values in fewer bits.


def logits_of(kv: str) -> np.ndarray:
    """[60, V] to the same text, whatever would have been said."""
    engine = cuda_engine(
        tiny.codec(),
        tiny.lm(),
        device=device_of_tests(),
        keep_logits=True,
        options=GpuOptions(kv=kv),
    )
    picker: Picker = lambda _: 3  # noqa: E731
    slot, _ = engine.open(picker)
    logits = engine.step([slot], sound(60), [60]).logits
    assert logits is not None
    return logits


def test_what_fewer_bits_cost() -> None:
    exact = logits_of("float32")
    errors = {
        kv: float(np.linalg.norm(logits_of(kv) - exact) / np.linalg.norm(exact))
        for kv in ("float16", "bfloat16", "float8")
    }
    assert 0 < errors["float16"] < 0.002
    assert 0.0005 < errors["bfloat16"] < 0.01
    assert 0.005 < errors["float8"] < 0.08


def test_float8_keeps_three_bits_behind_the_first_at_any_size() -> None:
    torch.manual_seed(0)
    for size in (1e-8, 1.0, 1e6):
        x = torch.randn(50, 64) * size
        bits, scale = to_float8(x)
        assert bits.dtype == torch.uint8
        back = bits.view(FLOAT8).float() * scale[:, None]
        large = x.abs() > x.abs().amax(-1, keepdim=True) / 500
        assert ((back - x).abs()[large] <= x.abs()[large] / 15).all()
    bits, _ = to_float8(torch.zeros(2, 4))
    assert not bits.any()


@pytest.mark.parametrize("kv", ["bfloat16", "float8"])
def test_a_slot_in_fewer_bits_is_saved_as_those(kv: str) -> None:
    here, _ = make(kv=kv)
    there, _ = make(slots=2, kv=kv)
    wide, _ = make()
    for engine in (here, there, wide):
        engine.open()
    there.open()
    said(here, 0, sound(33))
    saved = here.save(0)
    there.restore(1, saved)
    assert here.save(0) == saved == there.save(1)
    assert said(there, 1, sound(20, 2)) == said(here, 0, sound(20, 2))
    with pytest.raises(StreamError, match="another model or engine"):
        wide.restore(0, saved)


def test_few_copies_wait_on_the_device_and_one_more_is_fetched_at_once() -> None:
    engine, backend = make()
    engine.open()
    said(engine, 0, sound(9))
    saved, free = engine.save(0), backend._fetching.free
    assert len(free) == COPIES
    waiting = [engine.copy(0) for _ in range(COPIES)]
    assert not free
    at_once = engine.copy(0)
    said(engine, 0, sound(9, 1))
    assert at_once.to_bytes() == saved
    assert not free, "only one that waited leaves its place"
    assert waiting.pop().to_bytes() == saved
    assert len(free) == 1
    waiting.clear()  # nobody wanted this one
    assert len(free) == COPIES


def test_a_copy_that_fails_leaves_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, backend = make()
    engine.open()
    said(engine, 0, sound(9))
    monkeypatch.setattr(backend._slots.rings, "copy", out_of_memory)
    for _ in range(COPIES + 1):
        with pytest.raises(torch.OutOfMemoryError):
            engine.copy(0)
        gc.collect()
    assert len(backend._fetching.free) == COPIES
    monkeypatch.undo()
    assert engine.copy(0).to_bytes() == engine.save(0)


def test_one_copy_after_another_is_whole() -> None:
    """They share the memory that they come through."""
    engine, backend = make(slots=2, kv="bfloat16")
    for slot in range(2):
        engine.open()
        said(engine, slot, sound(30, slot))
    first, second = engine.save(0), engine.save(1)
    one, other = engine.copy(0), engine.copy(1)
    assert other.to_bytes() == second
    assert engine.copy(1).to_bytes() == second
    assert one.to_bytes() == first
    assert first != second
    size = sum(tensor.nbytes for _, tensor in backend._slots.copy(0))
    assert size <= backend._fetching.free[0].nbytes - 2**15, "with what alignment takes"


def test_without_pinned_memory_plain_memory_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> Any:
        raise RuntimeError("CUDA error: OS call failed")

    asked = list[bool]()
    real = torch.empty

    def empty(*given: Any, pin_memory: bool = False, **others: Any) -> Any:
        asked.append(pin_memory)
        return refused() if pin_memory else real(*given, **others)

    monkeypatch.setattr(torch, "empty", empty)
    assert fetching._stage(10, torch.device("cuda")).nbytes > 10
    assert asked == [True, False]


def test_bits_that_are_no_number_are_refused() -> None:
    _, backend = make(kv="float8")
    rings = backend._slots.rings
    saved = {name: kept.cpu().numpy() for name, kept in rings.copy(0, 5)}
    rings.check(5, saved)
    saved["values"][0, 0, 0, 0] = 0x7F
    with pytest.raises(ValueError, match="not numbers"):
        rings.check(5, saved)


def test_a_ring_takes_what_was_reckoned() -> None:
    config = tiny.transformer()
    for dtype in (torch.float32, torch.bfloat16, FLOAT8):
        rings = Rings(config, 3, 16, dtype, torch.device("cpu"))
        taken = sum(kept.nbytes for kept in rings.tensors.values())
        assert taken == 4 * ring_bytes(config, 16, dtype)


# What cannot be.


def test_memory_that_does_not_suffice_is_told_in_one_sentence() -> None:
    with pytest.raises(
        ConfigError, match=r"^400 slots of 0 MB do not .* 1\.0 GB .*: (\d+) do;"
    ) as e:
        make(slots=400, memory_bytes=1_030_000_000)
    fit = int(str(e.value).split(": ")[1].split(" do;")[0])
    assert 0 < fit < 400
    engine, _ = make(slots=fit, memory_bytes=1_030_000_000)
    assert engine.free_slots == fit


def out_of_memory(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def out_of_memory_while_recording(*_: Any, **__: Any) -> None:
    try:
        out_of_memory()
    finally:  # as the end of a recording does
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def out_of_workspace(*_: Any, **__: Any) -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize("fails", [out_of_memory, out_of_workspace, out_of_memory_while_recording])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (slot_memory, "Rings"),
        (launches.Launches, "compute"),
        (Graphs, "run"),
        (cuda, "pick_attend"),
    ],
)
def test_memory_that_runs_out_unforeseen_is_told_too(
    owner: Any, name: str, fails: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In slots, while calls are tried, and at the first call."""
    monkeypatch.setattr(owner, name, fails)
    with pytest.raises(ConfigError, match=r"2 slots of 0 MB do not fit into the 5\.0 GB .*: 1 do;"):
        make(slots=2, memory_bytes=5_000_000_000)


def test_so_is_memory_that_does_not_hold_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MimiEncoder, "to", out_of_memory)
    with pytest.raises(ConfigError, match=r"^weights of 0\.0 GB do not fit into .* free on '\w+"):
        make()


def test_another_fault_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(slot_memory, "Rings", fails)
    with pytest.raises(RuntimeError, match="illegal"):
        make()


@pytest.mark.parametrize(
    ("slots", "free", "kv", "fit", "advice"),
    [
        (9, 1_300, torch.bfloat16, 3, "ask for no more (slots=3, --slots 3), or keep keys and "
         "values in float8"),
        (9, 1_300, FLOAT8, 3, "ask for no more (slots=3, --slots 3)"),
        (9, 600, torch.float32, 0, "keep keys and values in float8"),
        (9, 600, FLOAT8, 0, "end what else is on the device"),
    ],
)  # fmt: skip
def test_only_what_would_help_is_advised(
    slots: int, free: int, kv: torch.dtype, fit: int, advice: str
) -> None:
    room = Room(slots, 100, 600, free, kv)
    with pytest.raises(ConfigError) as e:
        room.check()
    assert str(e.value).endswith(f": {fit} do; {advice}")


def test_never_as_many_as_did_not_fit_are_said_to() -> None:
    for slots in (1, 3, 9):
        said = str(Room(slots, 100, 600, 1_300, FLOAT8).ran_out())
        assert f": {min(slots - 1, 2)} do;" in said


def test_memory_that_an_engine_has_left_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch keeps it, and CUDA counts it as taken, until it is given back."""
    told: list[Any] = []
    monkeypatch.setattr(
        memory.gc, "collect", lambda: told.append(("collected", RECORDING.locked()))
    )
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: told.append(RECORDING.locked()))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (told.append("asked"), (7, 9))[1])
    assert memory.free_bytes(torch.device("cuda", 0)) == 7
    assert told == [("collected", True), True, "asked"]


@pytest.mark.parametrize(
    ("options", "device", "message"),
    [
        ({"kv": "int3"}, "cpu", "float32, bfloat16, float16, float8, not 'int3'"),
        ({"sizes": (4, 16)}, "cpu", "ascend from 1"),
        ({"sizes": (1, 16, 4)}, "cpu", "ascend from 1"),
        ({"rows": (0, 3)}, "cpu", "one row or more, not 0"),
        (
            {"graphs": True},
            "cpu",
            "graphs=True records CUDA graphs, but the device is 'cpu'; leave",
        ),
        ({}, "meta", "needs a device called 'cuda', not 'meta'"),
        ({}, "cuda:99", "there is no device 'cuda:99'"),
    ],
)
def test_what_there_is_not(options: dict[str, Any], device: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cuda_engine(tiny.codec(), tiny.lm(), device=device, options=GpuOptions(**options))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(ConfigError, match="there is no device 'cuda' here"):
        cuda_engine(tiny.codec(), tiny.lm())


# Graphs, with a recorder in place of CUDA's.


class _Recorder:
    """As `torch.cuda.graph`: remembers that work was done while it recorded."""

    recorded = 0

    def __init__(self, graph: "_Graph", **_: Any) -> None:
        self.graph = graph

    def __enter__(self) -> None:
        _Recorder.recorded += 1

    def __exit__(self, *_: object) -> None:
        self.graph.number = _Recorder.recorded


class _Graph:
    number = 0
    replays: list[int] = []  # noqa: RUF012  # one list for all

    def replay(self) -> None:
        _Graph.replays.append(self.number)


def test_a_graph_is_recorded_once_and_then_only_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph", _Recorder)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    calls: list[str] = []
    graphs = Graphs(torch.device("cpu"), enabled=True)
    for name in ("a", "b"):
        graphs.add(name, lambda name=name: calls.append(name))
    assert calls == []
    graphs.record()
    assert calls == ["a", "b"]
    for name in ("b", "a", "b"):
        graphs.run(name)
    assert calls == ["a", "b"]
    assert _Graph.replays == [2, 1, 2]
    plain = Graphs(torch.device("cpu"), enabled=False)
    plain.add("a", lambda: calls.append("plain"))
    plain.record()
    plain.run("a")
    assert calls == ["a", "b", "plain"]


def test_work_that_cannot_be_recorded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph", _Recorder)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))

    def fails() -> None:
        try:
            raise ValueError("a tensor of the host\nand more")
        finally:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    graphs = Graphs(torch.device("cpu"), enabled=True)
    graphs.add(("step", 4, 8), fails)
    with pytest.raises(RuntimeError, match="not permitted") as e:
        graphs.record()
    (note,) = e.value.__notes__
    assert note.endswith("the first error was: ValueError: a tensor of the host")
    assert "call ('step', 4, 8)" in note
    assert "graphs=False" in note
