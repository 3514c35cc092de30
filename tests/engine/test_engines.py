"""Every engine: slots apart from one another, blocks equal to single frames, save and restore."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.engine import SlotEngine
from kiku.engine.onnx import _fingerprint  # pyright: ignore[reportPrivateUsage]
from kiku.engine.torch import digest_of_model
from kiku.errors import FrameError, NoFreeSlot, StreamError
from kiku.graph import stored_places
from tests import tiny
from tests.engine.engines import KINDS, SIZE, advance, graphs, make_engine, sound, step


class Make:
    """Makes an engine of a kind over the tiny model."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, *, slots: int = 1, keep_logits: bool = False, seed: int = 0) -> SlotEngine:
        return make_engine(self.kind, slots=slots, keep_logits=keep_logits, seed=seed)


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Make:
    return Make(request.param)


@cache
def restorer() -> SlotEngine:
    engine = make_engine("onnx")
    engine.open()
    return engine


@cache
def saved_slot() -> bytes:
    engine = make_engine("onnx")
    slot, _ = engine.open()
    step(engine, [slot], sound(3)[None])
    return engine.save(slot)


def alone(make: Make, frames: np.ndarray, block: int = 1) -> np.ndarray:
    """Token 0 and the tokens after each frame, from an engine of one slot."""
    key = make.kind, frames.tobytes(), block
    if key not in _alone:
        _alone[key] = _said(make(), frames, block)
    return _alone[key]


_alone: dict[tuple[str, bytes, int], np.ndarray] = {}
"""Many tests compare with the same."""


def _said(one: SlotEngine, frames: np.ndarray, block: int) -> np.ndarray:
    slot, first = one.open()
    tokens = [first.tokens]
    for at in range(0, len(frames), block):
        tokens.append(step(one, [slot], frames[None, at : at + block])[0])
    return np.concatenate(tokens)


def test_tokens_vary(make: Make) -> None:
    assert len(set(alone(make, sound(60)).tolist())) > 4


@pytest.mark.parametrize("block", [2, 5, 16, 60])
def test_blocks_give_the_tokens_of_single_frames(make: Make, block: int) -> None:
    frames = sound(60)
    assert alone(make, frames, block).tolist() == alone(make, frames).tolist()


def test_unsynchronised_slots_give_what_each_gives_alone(make: Make) -> None:
    many = make(slots=3)
    random = np.random.default_rng(7)
    sounds = [sound(20, seed) for seed in range(5)]
    got: dict[int, list[int]] = {}
    at: dict[int, int] = {}
    slot_of: dict[int, int] = {}
    waiting = list(range(5))
    while waiting or slot_of:
        while waiting and many.free_slots and (random.random() < 0.3 or not slot_of):
            i = waiting.pop(0)
            slot_of[i], first = many.open()
            got[i], at[i] = first.tokens.tolist(), 0
        ready = [i for i in slot_of if random.random() < 0.7]
        if not ready:
            continue
        T = min(int(random.integers(1, 5)), *(20 - at[i] for i in ready))
        parts = np.stack([sounds[i][at[i] : at[i] + T] for i in ready])
        tokens = step(many, [slot_of[i] for i in ready], parts)
        for row, i in enumerate(ready):
            got[i] += tokens[row].tolist()
            at[i] += T
            if at[i] == 20:
                many.close(slot_of.pop(i))
    assert [got[i] for i in range(5)] == [alone(make, s).tolist() for s in sounds]


def test_log_probabilities_and_logits_belong_to_the_tokens(make: Make) -> None:
    one = make(keep_logits=True)
    slot, first = one.open()
    out = advance(one, [slot], sound(5)[None])
    for part in (first, out):
        assert part.logits is not None
        logits = torch.from_numpy(part.logits)
        assert logits.argmax(-1).tolist() == part.tokens.tolist()
        torch.testing.assert_close(
            torch.from_numpy(part.logprobs), logits.log_softmax(-1).max(-1).values
        )
        assert part.pauses is not None
        assert part.pauses.shape == (*part.tokens.shape, 4)


def test_a_chosen_token_is_what_the_model_reads_next(make: Make) -> None:
    frames = sound(30)
    one = make()
    slot, _ = one.open(lambda logits: int(np.argsort(logits)[-2]))
    second_best = step(one, [slot], frames[None])[0]
    assert second_best.tolist() != alone(make, frames)[1:].tolist()
    replay = make(keep_logits=True)
    forced = iter([int(t) for t in [_first_second_best(make), *second_best]])
    slot, _ = replay.open(lambda _: next(forced))
    out = advance(replay, [slot], frames[None])
    assert out.logits is not None
    assert np.argsort(out.logits, axis=-1)[:, -2].tolist() == second_best.tolist()


def _first_second_best(make: Make) -> int:
    _, first = make(keep_logits=True).open()
    assert first.logits is not None
    return int(np.argsort(first.logits[0])[-2])


def test_a_saved_slot_goes_on_elsewhere(make: Make) -> None:
    frames = sound(60)
    here, there = make(), make(slots=2)
    slot, _ = here.open()
    step(here, [slot], frames[None, :33])
    there.open()
    other, _ = there.open()
    there.restore(other, here.save(slot))
    expected = alone(make, frames)[34:].tolist()
    assert step(there, [other], frames[None, 33:])[0].tolist() == expected


def test_a_copy_stays_as_it_was_while_its_slot_goes_on(make: Make) -> None:
    engine = make(slots=2)
    for _ in range(2):
        engine.open()
    step(engine, [0, 1], np.stack([sound(33), sound(33, 1)]))
    saved = engine.save(0)
    copied = engine.copy(0)
    checked = engine.check(saved)
    after = step(engine, [0, 1], np.stack([sound(40, 2), sound(40, 3)]))[0]
    assert engine.save(0) != saved
    assert copied.to_bytes() == saved
    for _ in range(2):  # what was checked may go into any number of slots
        engine.put(1, checked)
        assert engine.save(1) == saved
        assert step(engine, [1], sound(40, 2)[None])[0].tolist() == after.tolist()


def test_a_copy_is_written_and_checked_in_another_thread(make: Make) -> None:
    engine = make()
    engine.open()
    step(engine, [0], sound(9)[None])
    copied, saved = engine.copy(0), engine.save(0)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(copied.to_bytes).result() == saved
        engine.put(0, pool.submit(engine.check, saved).result())
    assert engine.save(0) == saved


def test_a_foreign_or_damaged_state_is_refused(make: Make) -> None:
    one = make()
    slot, _ = one.open()
    saved = one.save(slot)
    with pytest.raises(StreamError, match="damaged"):
        one.restore(slot, saved[:100])


@pytest.mark.parametrize("seeds", [(1, 1), (1, 0), (0, 1)], ids=["both", "decoder", "codec"])
def test_a_state_of_other_weights_is_refused(make: Make, seeds: tuple[int, int]) -> None:
    """Another checkpoint of the same shape: what it says after such a state is nonsense."""
    one, same = make(), make_engine(make.kind)
    other = make_engine(make.kind, seed=seeds[0], codec_seed=seeds[1])
    for engine in (one, same, other):
        engine.open()
    step(one, [0], sound(9)[None])
    with pytest.raises(StreamError, match="another model or engine"):
        other.restore(0, one.save(0))
    same.restore(0, one.save(0))


def test_every_weight_tells_models_apart() -> None:
    codec, lm = tiny.codec(), tiny.lm()
    found = {digest_of_model(codec, lm)}
    weights = [*codec.parameters(), *lm.parameters()]
    for weight in weights:
        weight.data += 1
        found.add(digest_of_model(codec, lm))
    assert len(found) == 1 + len(weights)
    assert digest_of_model(tiny.codec(), tiny.lm()) in found


def test_every_weight_in_a_file_tells_models_apart(tmp_path: Path) -> None:
    folder = shutil.copytree(graphs(), tmp_path / "graphs")
    found = [_fingerprint(folder)]
    for name in ("codec", "decoder"):
        data = bytearray((folder / f"{name}.data").read_bytes())
        for offset, length in stored_places((folder / f"{name}.onnx").read_bytes()):
            data[offset : offset + length] = b"x" * length
            (folder / f"{name}.data").write_bytes(data)
            found.append(_fingerprint(folder))
    assert len(set(found)) == len(found) > 10


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 4000), byte=st.integers(0, 255))
def test_a_damaged_state_never_does_anything_else(cut: int, byte: int) -> None:
    saved = bytearray(saved_slot())
    saved[min(cut, len(saved) - 1)] = byte
    one = restorer()
    with suppress(StreamError):
        one.restore(0, bytes(saved))


def test_misuse_is_told(make: Make) -> None:
    one = make()
    with pytest.raises(StreamError, match="open it first"):
        one.step([0], sound(1))
    with pytest.raises(StreamError, match="open it first"):
        one.save(0)
    with pytest.raises(StreamError, match="open it first"):
        one.restore(0, b"")
    slot, _ = one.open()
    with pytest.raises(NoFreeSlot, match="all 1 slots are held"):
        one.open()
    with pytest.raises(StreamError, match="once"):
        one.step([slot, slot], sound(2))
    with pytest.raises(FrameError, match="1 to 64 frames of 80 samples"):
        one.step([slot], sound(65), [65])
    one.close(slot)
    one.close(slot)
    assert one.open()[0] == slot


def test_a_choice_that_fails_at_once_holds_no_slot(make: Make) -> None:
    one = make()
    with pytest.raises(StopIteration):
        one.open(lambda _: next(iter([])))
    assert one.free_slots == 1


def test_a_slot_used_again_is_fresh(make: Make) -> None:
    one = make()
    slot, _ = one.open()
    step(one, [slot], sound(20, seed=9)[None])
    one.close(slot)
    slot, first = one.open()
    frames = sound(30)
    tokens = [*first.tokens, *step(one, [slot], frames[None])[0]]
    assert tokens == alone(make, frames).tolist()


def test_an_idle_slot_is_unmoved_by_its_neighbours(make: Make) -> None:
    many = make(slots=3)
    for _ in range(3):
        many.open()
    step(many, [1], sound(20)[None])
    before = many.save(1)
    for at in range(0, 80, 10):  # eight windows
        parts = [sound(80, seed)[at : at + 10] for seed in (1, 2)]
        step(many, [0, 2], np.stack(parts))
    after = make()
    slot, _ = after.open()
    after.restore(slot, before)
    frames = sound(30, 3)
    expected = step(after, [slot], frames[None])
    assert step(many, [1], frames[None]).tolist() == expected.tolist()


def test_sound_that_is_no_number_stays_in_its_slot(make: Make) -> None:
    frames = sound(40)
    many = make(slots=3)
    for _ in range(3):
        many.open()
    bad = np.full((2, 40, SIZE), np.nan, np.float32)
    tokens = step(many, [0, 1, 2], np.stack([bad[0], frames, bad[1]]))
    assert tokens[1].tolist() == alone(make, frames)[1:].tolist()


def test_all_engines_say_the_same() -> None:
    frames = sound(120)
    outs = []
    for kind in KINDS:
        engine = make_engine(kind, keep_logits=True)
        slot, _ = engine.open()
        outs.append([advance(engine, [slot], frames[None, at : at + 8]) for at in range(0, 120, 8)])
    pairs = [(outs[0], others) for others in outs[1:]]
    for ours, theirs in [both for pair in pairs for both in zip(*pair, strict=True)]:
        assert ours.tokens.tolist() == theirs.tokens.tolist()
        for name in ("logprobs", "pauses", "logits"):
            torch.testing.assert_close(
                torch.from_numpy(getattr(ours, name)),
                torch.from_numpy(getattr(theirs, name)),
                atol=2e-4,
                rtol=1e-4,
            )


def test_a_state_with_tensors_of_other_names_or_shapes_is_damaged(make: Make) -> None:
    one = make()
    slot, _ = one.open()
    saved = one.save(slot)
    size = int.from_bytes(saved[:8], "little")
    header = saved[8 : 8 + size]
    for old, new in ((b'"10":', b'"x0":'), (b'"shape":[16', b'"shape":[61')):
        if old in header:
            changed = header.replace(old, new, 1)
            with pytest.raises(StreamError, match="damaged"):
                one.restore(slot, saved[:8] + changed + saved[8 + size :])
