"""What is the torch engine's own: devices, and states of another dtype."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from kiku.engine import SlotEngine
from kiku.engine.cuda import pick_gpu
from kiku.engine.torch import TorchBackend, pick_device, torch_engine
from kiku.errors import ConfigError, StreamError
from kiku.nn.state import leaves, nbytes
from tests import tiny
from tests.engine.engines import said, sound


def test_a_state_of_another_dtype_is_refused() -> None:
    wide = torch_engine(tiny.codec(), tiny.lm(), device="cpu")
    narrow = torch_engine(tiny.codec(), tiny.lm().to(torch.bfloat16), device="cpu")
    slot, _ = narrow.open()
    assert narrow.save(slot)
    wide.open()
    with pytest.raises(StreamError, match="another model or engine"):
        narrow.restore(slot, wide.save(0))


def test_bfloat16_blocks_are_decoded_too() -> None:
    engine = torch_engine(tiny.codec(), tiny.lm().to(torch.bfloat16), device="cpu")
    slot, _ = engine.open()
    frames = np.zeros((16, tiny.codec_config().frame_size), np.float32)
    assert len(engine.step([slot], frames, [16]).tokens) == 16


@pytest.mark.parametrize("num_frames", [1, 5, 64, 200])  # less than the windows, and more
@pytest.mark.parametrize("block", [1, 8, 64])
def test_room_for_no_more_than_is_heard(num_frames: int, block: int) -> None:
    codec, lm, frames = tiny.codec(), tiny.lm(), sound(num_frames)
    tight = TorchBackend(codec, lm, slots=2, device="cpu", longest=num_frames)
    engine, wide = SlotEngine(tight), torch_engine(codec, lm, slots=2, device="cpu")
    for _ in range(2):  # a slot that is used again
        slot, _ = engine.open()
        same, _ = wide.open()
        assert said(engine, slot, frames, block) == said(wide, same, frames, block)
        engine.close(slot)
        wide.close(same)
    (ring, *_), room = tight._state.lm.rings, 1 + num_frames + tight.width
    assert ring.keys.shape[2] == min(room, lm.config.transformer.capacity)


def test_what_a_slot_begins_with_is_one_column() -> None:
    backend = TorchBackend(tiny.codec(), tiny.lm(), slots=1, device="cpu")
    assert [ring.keys.shape[2] for ring in backend._primed.lm.rings] == [1] * 2
    assert nbytes(backend._primed.parts()) * 4 < nbytes(backend._state.parts())
    with torch.inference_mode():
        for leaf in leaves(backend._state.parts()):
            if leaf.is_floating_point():
                leaf.fill_(torch.nan)
    engine, other = SlotEngine(backend), torch_engine(tiny.codec(), tiny.lm(), device="cpu")
    assert said(engine, engine.open()[0], sound(8)) == said(other, other.open()[0], sound(8))


def test_weights_are_not_read_for_a_signature_that_nobody_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def digest(*_: Any) -> str:
        asked.append("")
        return "0"

    monkeypatch.setattr("kiku.engine.torch.digest_of_model", digest)
    engine = torch_engine(tiny.codec(), tiny.lm(), device="cpu")
    slot, _ = engine.open()
    said(engine, slot, sound(8))
    assert not asked
    engine.restore(slot, engine.save(slot))
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("name", "has_cuda", "num_gpus", "why"),
    [
        ("bogus", False, 0, "devices are called cpu, cuda, cuda:1, mps"),
        ("1", True, 2, "devices are called cpu, cuda, cuda:1, mps"),
        ("mps", False, 0, "PyTorch cannot use mps on this machine"),
        ("cuda", False, 0, "PyTorch is installed without CUDA"),
        ("cuda", True, 0, "CUDA finds no GPU"),
        ("cuda:99", True, 2, "CUDA finds 2, from cuda:0 on"),
        ("cuda:1", True, 2, "CUDA finds the GPU and cannot use it"),
    ],
)
def test_a_device_that_is_not_there_is_told(
    name: str, has_cuda: bool, num_gpus: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's own reason is long, and about its insides: it is the cause."""

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("Could not run 'aten::empty' on it. This could be\nbecause of all this")

    monkeypatch.setattr(torch, "empty", fails)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: has_cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    with pytest.raises(ConfigError) as told:
        pick_device(name)
    assert str(told.value) == (
        f"there is no device {name!r} here ({why}); use 'cpu', or leave it out"
    )
    assert isinstance(told.value.__cause__, RuntimeError)


def test_without_a_name_the_best_device_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device(None) == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert pick_device(None) == torch.device("cuda:0")


@pytest.mark.parametrize("pick", [pick_device, pick_gpu])
def test_the_gpu_is_the_one_that_the_calling_thread_is_on(
    pick: Callable[[str | None], torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that step the engine later may be on another one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    for name in (None, "auto", "cuda"):
        assert pick(name) == torch.device("cuda", 1)
    assert pick("cuda:2") == torch.device("cuda", 2)
