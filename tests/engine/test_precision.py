"""Products are exact in both engines of PyTorch, whatever the program has chosen, in either of
PyTorch's two ways; afterwards that is as it was."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from kiku.engine import SlotEngine
from kiku.engine.cuda import GpuOptions, cuda_engine
from kiku.engine.gpu.precision import products
from kiku.engine.torch import torch_engine
from tests import tiny
from tests.conftest import ROOT
from tests.engine.engines import make_engine, sound

cudnn: Any = torch.backends.cudnn
matmul: Any = torch.backends.cuda.matmul
newer = pytest.mark.skipif(not hasattr(cudnn, "conv"), reason="PyTorch before 2.9")
NEW = hasattr(cudnn, "conv")
EXACT = ("ieee", "ieee") if NEW else ("highest", False)
QUICK = ("tf32", "tf32") if NEW else ("high", True)

WAYS = {
    "generic": "b.fp32_precision = 'tf32'",
    "generic, exact": "b.fp32_precision = 'ieee'",
    "convolutions": "b.cudnn.conv.fp32_precision = 'ieee'",
    "convolutions, rounded": "b.cudnn.conv.fp32_precision = 'tf32'",
    "cuDNN": "b.cudnn.fp32_precision = 'tf32'",
    "products": "b.cuda.matmul.fp32_precision = 'tf32'",
    "processor": "b.mkldnn.matmul.fp32_precision = 'bf16'",
}


def now() -> tuple[Any, Any]:
    """Of products, of convolutions."""
    if NEW:
        return matmul.fp32_precision, cudnn.conv.fp32_precision
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(before[0])
    cudnn.allow_tf32, cudnn.benchmark = before[1:]


def a_step(make: Callable[..., SlotEngine], seen: list[tuple[Any, Any]], **options: Any) -> None:
    """Of an engine whose codec notes what is set while it computes."""
    codec = tiny.codec()
    codec.seanet.register_forward_pre_hook(lambda *_: seen.append(now()))
    engine = make(codec, tiny.lm(), device="cpu", **options)
    seen.clear()
    slot, _ = engine.open()
    engine.step([slot], sound(1))


@pytest.mark.parametrize("make", [torch_engine, cuda_engine])
def test_products_are_exact_whatever_the_program_has_chosen(
    make: Callable[..., SlotEngine],
) -> None:
    torch.set_float32_matmul_precision("high")
    cudnn.allow_tf32 = cudnn.benchmark = True
    before, seen = now(), list[tuple[Any, Any]]()
    a_step(make, seen)
    assert seen == [EXACT]
    assert now() == before
    assert torch.get_float32_matmul_precision() == "high"
    assert cudnn.allow_tf32
    assert cudnn.benchmark


def test_they_are_rounded_where_that_was_asked_for() -> None:
    seen: list[tuple[Any, Any]] = []
    a_step(cuda_engine, seen, options=GpuOptions(tf32=True))
    assert seen == [QUICK]


SCRIPT = """
import sys
import torch
from torch import backends as b
from tests import tiny
from tests.engine.engines import sound
from kiku.engine.cuda import cuda_engine
from kiku.engine.torch import torch_engine
from kiku.hf.auto.networks import codes_of
from kiku.hf.codec import MimiModel
for way in sys.argv[1:]:
    exec(way)
    before = b.cuda.matmul.fp32_precision, b.cudnn.conv.fp32_precision
    for make in (torch_engine, cuda_engine):
        seen, codec = [], tiny.codec()
        note = lambda *_: seen.append((b.cuda.matmul.fp32_precision, b.cudnn.conv.fp32_precision))
        codec.seanet.register_forward_pre_hook(note)
        engine = make(codec, tiny.lm(), device="cpu")
        slot, _ = engine.open()
        engine.step([slot], sound(1))
        codes_of(codec, torch.zeros(1, 1, codec.config.frame_size))
        hf = MimiModel(codec.config)
        hf.seanet.register_forward_pre_hook(note)
        hf.encode(torch.zeros(1, 1, codec.config.frame_size))
        assert set(seen) == {("ieee", "ieee")}, (way, seen)
        assert before == (b.cuda.matmul.fp32_precision, b.cudnn.conv.fp32_precision), way
    for one in (b, b.cudnn, b.cudnn.conv, b.cuda.matmul, b.mkldnn.matmul):
        one.fp32_precision = "none"
"""


@newer
def test_whoever_sets_it_the_new_way_keeps_it() -> None:
    """In a process of its own: once touched, the old way fails in all of it."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    command = [sys.executable, "-c", SCRIPT, *WAYS.values()]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@newer
def test_before_pytorch_2_9_the_old_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(type(cudnn), "conv")
    torch.set_float32_matmul_precision("medium")
    cudnn.allow_tf32 = True
    with products():
        assert (torch.get_float32_matmul_precision(), cudnn.allow_tf32) == ("highest", False)
    with products(tf32=True):
        assert (torch.get_float32_matmul_precision(), cudnn.allow_tf32) == ("high", True)
    assert (torch.get_float32_matmul_precision(), cudnn.allow_tf32) == ("medium", True)


def test_who_leaves_first_takes_it_from_nobody() -> None:
    """The settings are those of all threads."""
    torch.set_float32_matmul_precision("high")
    before, come, go = now(), threading.Event(), threading.Event()

    def other() -> None:
        with products(tf32=True):
            come.set()
            go.wait(60)

    with products():
        thread = threading.Thread(target=other)
        thread.start()
        assert come.wait(60)
        assert now() == EXACT
    assert now() == QUICK  # the other one is still there
    go.set()
    thread.join()
    assert now() == before


@pytest.mark.parametrize("kind", ["torch", "cuda"])
def test_codes_are_the_same_in_autocast(kind: str) -> None:
    frames = sound(16, seed=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = make_engine(kind)
        found = inside.encode([inside.open()[0]], frames, [16])
    outside = make_engine(kind)
    assert (found == outside.encode([outside.open()[0]], frames, [16])).all()


def test_latents_are_the_same_in_autocast() -> None:
    codec = tiny.codec()
    pcm, active = torch.from_numpy(sound(8)).view(1, 1, -1), torch.ones(1, dtype=torch.bool)

    def latents() -> list[torch.Tensor]:
        first, second = (codec.init_state(1, "cpu", torch.float32) for _ in range(2))
        return [codec.latents(pcm, first, active), codec.seanet(pcm, second.seanet, active)]

    wanted = latents()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for found, one in zip(latents(), wanted, strict=True):
            assert found.equal(one)
