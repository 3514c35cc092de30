"""The torch engine: slots apart from one another, blocks equal to single frames, save and
restore."""

import numpy as np
import pytest
import torch

from kiku.engine.torch import TorchEngine, pick_device
from kiku.errors import ConfigError, FrameError, NoFreeSlot, StreamError
from tests import tiny

SIZE = tiny.codec_config().frame_size


def engine(slots: int = 1, **options: bool) -> TorchEngine:
    return TorchEngine(tiny.codec(), tiny.lm(), slots=slots, device="cpu", **options)


def sound(num_frames: int, seed: int = 0) -> np.ndarray:
    """[T, frame_size]"""
    return (np.random.default_rng(seed).standard_normal((num_frames, SIZE)) * 0.3).astype(
        np.float32
    )


def alone(frames: np.ndarray, block: int = 1) -> np.ndarray:
    """Token 0 and the tokens after each frame, from an engine of one slot."""
    one = engine()
    slot, first = one.open()
    tokens = [first.tokens[0]]
    for at in range(0, len(frames), block):
        tokens.append(one.step([slot], frames[None, at : at + block]).tokens[0])
    return np.concatenate(tokens)


def test_tokens_vary() -> None:
    assert len(set(alone(sound(60)).tolist())) > 4


@pytest.mark.parametrize("block", [2, 5, 16, 60])
def test_blocks_give_the_tokens_of_single_frames(block: int) -> None:
    frames = sound(60)
    assert alone(frames, block).tolist() == alone(frames).tolist()


def test_unsynchronised_slots_give_what_each_gives_alone() -> None:
    many = engine(slots=3)
    random = np.random.default_rng(7)
    sounds = [sound(50, seed) for seed in range(5)]
    got: dict[int, list[int]] = {}
    at: dict[int, int] = {}
    slot_of: dict[int, int] = {}
    waiting = list(range(5))
    while waiting or slot_of:
        while waiting and many.free_slots and (random.random() < 0.3 or not slot_of):
            i = waiting.pop(0)
            slot_of[i], first = many.open()
            got[i], at[i] = first.tokens[0].tolist(), 0
        ready = [i for i in slot_of if random.random() < 0.7]
        if not ready:
            continue
        T = min(int(random.integers(1, 5)), *(50 - at[i] for i in ready))
        out = many.step(
            [slot_of[i] for i in ready], np.stack([sounds[i][at[i] : at[i] + T] for i in ready])
        )
        for row, i in enumerate(ready):
            got[i] += out.tokens[row].tolist()
            at[i] += T
            if at[i] == 50:
                many.close(slot_of.pop(i))
    assert [got[i] for i in range(5)] == [alone(s).tolist() for s in sounds]


def test_log_probabilities_and_logits_belong_to_the_tokens() -> None:
    one = engine(keep_logits=True)
    slot, first = one.open()
    out = one.step([slot], sound(5)[None])
    for part in (first, out):
        assert part.logits is not None
        logits = torch.from_numpy(part.logits)
        assert logits.argmax(-1).tolist() == part.tokens.tolist()
        torch.testing.assert_close(
            torch.from_numpy(part.logprobs), logits.log_softmax(-1).max(-1).values
        )
        assert part.pauses is not None
        assert part.pauses.shape == (*part.tokens.shape, 4)


def test_a_chosen_token_is_what_the_model_reads_next() -> None:
    frames = sound(30)
    one = engine()
    slot, _ = one.open(lambda logits: int(np.argsort(logits)[-2]))
    second_best = one.step([slot], frames[None]).tokens[0]
    assert second_best.tolist() != alone(frames)[1:].tolist()
    replay = engine(keep_logits=True)
    forced = iter([int(t) for t in [_first_second_best(), *second_best]])
    slot, _ = replay.open(lambda _: next(forced))
    out = replay.step([slot], frames[None])
    assert out.logits is not None
    assert np.argsort(out.logits[0], axis=-1)[:, -2].tolist() == second_best.tolist()


def _first_second_best() -> int:
    _, first = engine(keep_logits=True).open()
    assert first.logits is not None
    return int(np.argsort(first.logits[0, 0])[-2])


def test_a_saved_slot_goes_on_elsewhere() -> None:
    frames = sound(60)
    here, there = engine(), engine(slots=2)
    slot, _ = here.open()
    here.step([slot], frames[None, :33])
    there.open()
    other, _ = there.open()
    there.restore(other, here.save(slot))
    assert there.step([other], frames[None, 33:]).tokens[0].tolist() == alone(frames)[34:].tolist()


def test_a_foreign_or_damaged_state_is_refused() -> None:
    one = engine()
    slot, _ = one.open()
    saved = one.save(slot)
    with pytest.raises(StreamError, match="damaged"):
        one.restore(slot, saved[:100])
    lm = tiny.lm().to(torch.bfloat16)
    other = TorchEngine(tiny.codec(), lm, device="cpu")
    slot, _ = other.open()
    with pytest.raises(StreamError, match="another model or engine"):
        other.restore(slot, saved)


def test_misuse_is_told() -> None:
    one = engine()
    with pytest.raises(StreamError, match="open them"):
        one.step([0], sound(1)[None])
    with pytest.raises(StreamError, match="open them"):
        one.save(0)
    with pytest.raises(StreamError, match="open them"):
        one.restore(0, b"")
    slot, _ = one.open()
    with pytest.raises(NoFreeSlot, match="all 1 slots are held"):
        one.open()
    with pytest.raises(StreamError, match="once"):
        one.step([slot, slot], np.stack([sound(1)] * 2))
    with pytest.raises(FrameError, match="1 to 64 frames of 80 samples"):
        one.step([slot], sound(65)[None])
    one.close(slot)
    one.close(slot)
    assert one.open()[0] == slot


def test_a_choice_that_fails_at_once_holds_no_slot() -> None:
    one = engine()
    with pytest.raises(StopIteration):
        one.open(lambda _: next(iter([])))
    assert one.free_slots == 1


def test_a_slot_used_again_is_fresh() -> None:
    one = engine()
    slot, _ = one.open()
    one.step([slot], sound(20, seed=9)[None])
    one.close(slot)
    slot, first = one.open()
    frames = sound(30)
    tokens = [*first.tokens[0], *one.step([slot], frames[None]).tokens[0]]
    assert tokens == alone(frames).tolist()


@pytest.mark.parametrize("name", ["bogus", "cuda:99", "meta:x"])
def test_a_device_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no device"):
        pick_device(name)


def test_without_a_name_the_best_device_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device(None) == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device(None) == torch.device("cuda")
