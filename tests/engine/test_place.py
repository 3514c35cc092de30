"""All that the GPU engine gives its device goes to one stream of the engine's own, whatever stream
the calling thread is on; nothing is recorded by two at a time. With fakes in place of CUDA's."""

import gc
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kiku.engine.cuda import CudaBackend, GpuOptions, cuda_engine
from kiku.engine.gpu import capture
from kiku.engine.gpu.capture import Graphs
from kiku.engine.gpu.place import Place
from tests import tiny
from tests.engine.engines import sound

GPU = torch.device("cuda", 1)


@dataclass(eq=False)
class Stream:
    """As `torch.cuda.Stream`."""

    device: Any = GPU
    waited_for: list["Stream"] = field(default_factory=list)

    def wait_stream(self, other: "Stream") -> None:
        self.waited_for.append(other)


class Cuda:
    """Where the thread is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.default = Stream()
        self.at: list[Any] = [torch.device("cuda", 0), self.default]
        for name, value in {
            "Stream": Stream,
            "device": self.entering(0),
            "stream": self.entering(1),
            "current_stream": lambda _device: self.at[1],
            "default_stream": lambda _device: self.default,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def entering(self, which: int) -> Any:
        @contextmanager
        def entered(value: Any) -> Generator[None]:
            before, self.at[which] = self.at[which], value
            yield
            self.at[which] = before

        return entered


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


def test_an_engine_is_on_its_own_stream_whatever_the_thread_is_on(cuda: Cuda) -> None:
    place, seen = Place(GPU), list[Any]()
    for stream in (cuda.default, Stream()):
        cuda.at = before = [torch.device("cuda", 0), stream]
        with place.entered():
            seen.append([*cuda.at])
        assert cuda.at == before
    assert seen[0] == seen[1]
    device, own = seen[0]
    assert device == GPU
    assert own is not cuda.default
    other = cuda.at[1] = Stream()
    place.follow()  # weights may still be on their way
    assert own.waited_for == [other]


class _Graph:
    """As `torch.cuda.CUDAGraph` and `torch.cuda.graph`."""

    seen: list[tuple[Any, bool]] = []  # noqa: RUF012  # one list for all

    def __init__(self, _graph: Any = None, stream: Any = None, **_: Any) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        _Graph.seen.append((self._stream, capture.RECORDING.locked()))
        assert not gc.isenabled()  # a graph among the garbage would break this one

    def __exit__(self, *_: object) -> None: ...


def test_graphs_are_recorded_on_that_stream_one_at_a_time(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "graph", _Graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(_Graph, "seen", [])
    ran: list[Any] = []
    with Place(GPU).entered():
        graphs = Graphs(GPU, enabled=True)
        graphs.add("a", lambda: ran.append(cuda.at[1]))
        graphs.record()
        own = cuda.at[1]
    assert _Graph.seen == [(own, True)]
    assert set(ran) == {own}
    assert not capture.RECORDING.locked()
    assert gc.isenabled()
    # The default one cannot be recorded.
    graphs = Graphs(GPU, enabled=True)
    graphs.add("a", lambda: None)
    graphs.record()
    assert _Graph.seen[1][0] not in (own, cuda.default)


def test_all_work_is_run_before_any_is_recorded(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes memory, and what runs have taken is only given back as long as none was recorded:
    a graph keeps its own."""
    monkeypatch.setattr(torch.cuda, "graph", _Graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(_Graph, "seen", [])
    graphs, ran = Graphs(GPU, enabled=True), list[tuple[str, int]]()
    for name in ("a", "b"):
        graphs.add(name, lambda name=name: ran.append((name, len(_Graph.seen))))
    graphs.record()
    assert ran == [("a", 0), ("a", 0), ("b", 0), ("b", 0), ("a", 1), ("b", 2)]


class Watch(TorchDispatchMode):
    """What is computed outside of an engine's place."""

    def __init__(self, inside: list[bool]) -> None:
        super().__init__()
        self.inside, self.outside, self.count = inside, set[str](), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        if not self.inside:
            self.outside.add(str(func))
        return func(*args, **kwargs or {})


def test_nothing_is_computed_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever slots do; `forget`, `begin`, `mark` and `go_back` do not wait for the device."""
    options = GpuOptions(sizes=(1, 4), rows=(1,))
    engine = cuda_engine(
        tiny.codec(), tiny.lm(), slots=3, device="cpu", keep_logits=True, options=options
    )
    assert isinstance(engine.backend, CudaBackend)
    inside, enter = list[bool](), engine.backend._place.entered

    @contextmanager
    def entered() -> Generator[None]:
        inside.append(True)
        with enter():
            yield
        inside.pop()

    monkeypatch.setattr(engine.backend._place, "entered", entered)
    with Watch(inside) as watch:
        for _ in range(3):
            engine.open()
        mark = engine.mark(1)
        engine.step([0, 2], sound(5), [4, 1])
        engine.step([1], sound(2), [2])
        engine.go_back(1, mark)
        copied = engine.copy(0)
    checked = engine.check(copied.to_bytes())  # what is done on the host, in any thread
    with watch:
        engine.put(2, checked)
        engine.redecode(0, 3)
        engine.truncate(1, 3)
        engine.close(2)
        engine.open()
    assert watch.count > 100
    assert not watch.outside


def test_an_interrupted_call_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device may still read what the next call would fill."""
    engine = cuda_engine(tiny.codec(), tiny.lm(), device="cpu")
    slot, _ = engine.open()
    assert isinstance(engine.backend, CudaBackend)
    launches, waits = engine.backend.launches, list[int]()

    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launches.graphs, "run", interrupted)
    monkeypatch.setattr(launches, "wait", lambda: waits.append(1))
    with pytest.raises(KeyboardInterrupt):
        engine.step([slot], sound(1))
    assert waits == [1]
