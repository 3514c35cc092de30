"""Saved streams are bytes from outside: whatever is wrong with one is a StreamError of its own."""

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import kiku
from kiku.errors import AudioError, StreamError
from kiku.options import DecodingOptions, StreamOptions
from kiku.stream.saved import pack_stream, unpack_stream
from tests.conftest import ROOT
from tests.guarantees.conftest import LONG_S

OPTIONS = StreamOptions(
    turns=True, decoding=DecodingOptions(temperature=0.2, hotwords=["nine", "go left"])
)
BAD: list[Any] = [
    10**4000, -(10**4000), 2**63, -1, 2**40 + 1, 1.5, float("nan"), float("inf"), True, None,
    "text", b"bytes", [], {}, [[]], {"a": 1}, np.zeros(3), np.zeros((2, 2), np.float32),
    np.array([np.nan], np.float32), np.zeros(0, np.int64),
]  # fmt: skip


@cache
def recognizer() -> kiku.Recognizer:
    """With a neighbour's slot."""
    return kiku.load("demo", slots=2, threads=1)


@cache
def saved() -> bytes:
    """A stream in the middle of a word, with a finalize and changes of decoding to come."""
    from kiku.audio import read_chunks

    sound = np.concatenate(list(read_chunks(str(ROOT / "examples/digits.wav"), 24_000)))
    with recognizer().stream(OPTIONS) as stream:
        stream.push(sound[:53_333])

        def ask_and_save() -> bytes:  # all in one round, so that everything waits
            stream.set_decoding(DecodingOptions(num_codebooks=4))
            stream.push(sound[53_333:63_333])
            stream.finalize("t")
            stream.set_decoding(DecodingOptions(hotwords=["two"]))
            return stream._setup.copy(stream._given_now()).to_bytes()  # pyright: ignore[reportPrivateUsage]

        return recognizer().scheduler.call(ask_and_save)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every leaf and every branch."""
    if path:
        yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from places(value, (*path, key))
    elif isinstance(tree, list):
        for i, value in enumerate(tree[:6]):
            yield from places(value, (*path, i))


def changed(tree: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The tree with one thing wrong."""
    tree = copy.deepcopy(tree)
    path = rng.choice(list(places(tree)))
    at: Any = tree
    for key in path[:-1]:
        at = at[key]
    how = rng.random()
    if how < 0.15 and isinstance(at, dict):
        del at[path[-1]]
    elif how < 0.25 and isinstance(at, dict):
        at["unheard of"] = 1
    elif how < 0.4 and isinstance(at[path[-1]], np.ndarray):
        array = at[path[-1]]
        others = [array[:-1], array[None], array.astype(np.float64), array * 10**6]
        at[path[-1]] = rng.choice(others)
    else:
        at[path[-1]] = rng.choice(BAD)
    return tree


def tried(state: bytes) -> None:
    """A StreamError, or a stream that works and ends."""
    rec = recognizer()
    try:
        stream = rec.stream(state=state)
    except StreamError:
        assert rec.free_slots == 2
        return
    try:
        with suppress(AudioError):  # it may want a channel that there is not
            stream.push(np.zeros(4_800, np.float32))
        stream.close()
        for _ in range(2_000):
            event = stream.next_event(LONG_S)
            assert event is not None, "it hangs"
            if isinstance(event, kiku.End):
                break
    except StreamError:
        pass
    finally:
        stream.stop()
    assert rec.free_slots == 2


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_a_crafted_state_harms_nobody(seed: int) -> None:
    tried(pack_stream(changed(unpack_stream(saved()), random.Random(seed))))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_a_crafted_slot_harms_nobody(seed: int) -> None:
    from safetensors.numpy import load, save

    rng = random.Random(seed)
    tree = unpack_stream(saved())
    slot = tree["sessions"][0]["slot"].tobytes()
    arrays = dict(load(slot))
    name = rng.choice(list(arrays))
    array = arrays[name]
    others: list[NDArray[Any]] = [
        array[:-1], array.astype(np.float64), np.zeros(7), np.full_like(array, -1),
    ]  # fmt: skip
    if array.dtype.kind == "i":
        others += [np.full_like(array, 2**62), np.full_like(array, 2**41)]
    if array.dtype.kind == "f":
        others += [np.full_like(array, np.nan), np.full_like(array, np.inf)]
    arrays[name] = np.ascontiguousarray(rng.choice(others))
    size = int.from_bytes(slot[:8], "little")
    import json

    metadata = json.loads(slot[8 : 8 + size])["__metadata__"]
    crafted = save(arrays, metadata=metadata)
    tree["sessions"][0]["slot"] = np.frombuffer(crafted, np.uint8)
    tried(pack_stream(tree))


@pytest.mark.parametrize("cut", [0, 5, 20, 60, 5_000])
def test_what_is_cut_short_or_something_else_is_told(cut: int) -> None:
    for state in (saved()[:cut], saved()[cut + 1 :], b"x" * cut):
        with pytest.raises(StreamError):
            recognizer().stream(state=state)
    with pytest.raises(StreamError, match="bytes"):
        recognizer().stream(state="text")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("changes", [{"num_codebooks": 2**40}, {"hotwords": ["\u2603"]}])
def test_a_way_of_decoding_that_the_model_has_not_is_told(changes: dict[str, Any]) -> None:
    tree = unpack_stream(saved())
    tree["sessions"][0]["session"]["decoding"] |= changes
    with pytest.raises(StreamError, match="another model, or damaged"):
        recognizer().stream(state=pack_stream(tree))
    assert recognizer().free_slots == 2


def test_a_change_to_what_the_model_has_not_is_told() -> None:
    tree = unpack_stream(saved())
    due = tree["sessions"][0]["session"]["due"]
    assert [one["finalize"] is None for one in due] == [True, False, True]
    due[0]["change"]["decoding"]["num_codebooks"] = 2**40
    with pytest.raises(StreamError, match="damaged"):
        recognizer().stream(state=pack_stream(tree))
    assert recognizer().free_slots == 2


def test_nesting_without_end_is_told() -> None:
    text = '{"decoding": ' + "[" * 100_000 + "]" * 100_000 + "}"
    tree = unpack_stream(saved())
    state = pack_stream(tree)
    from safetensors.numpy import save

    payload = save({"kiku.tree": np.frombuffer(text.encode(), np.uint8)})
    import hashlib

    magic = state[: state.index(b"\n") + 1]
    with pytest.raises(StreamError):
        recognizer().stream(state=magic + hashlib.sha256(payload).digest() + payload)


@pytest.mark.parametrize("what", ["changes", "finalizes", "requests of a finalize"])
def test_no_more_requests_wait_than_a_stream_can_have(what: str) -> None:
    tree = unpack_stream(saved())
    session = tree["sessions"][0]["session"]
    change = next(one for one in session["due"] if one["change"] is not None)
    finalize = next(one for one in session["due"] if one["finalize"] is not None)
    if what == "requests of a finalize":
        finalize["finalize"]["requests"] *= 33
    else:
        session["due"] = [change if what == "changes" else finalize] * 97
    with pytest.raises(StreamError):
        recognizer().stream(state=pack_stream(tree))
    assert recognizer().free_slots == 2


def test_only_states_signed_with_the_key_are_taken() -> None:
    rec = recognizer()
    plain = saved()
    try:
        rec.state_key = b"ours"
        with rec.stream() as stream:
            stream.push(np.zeros(2_400, np.float32))
            signed = stream.save()
        rec.stream(state=signed).stop()
        with pytest.raises(StreamError, match="not signed"):
            rec.stream(state=plain)
        with pytest.raises(StreamError, match="not saved by this version"):
            rec.stream(state=b"kiku stream 1" + plain)
        rec.state_key = b"theirs"
        with pytest.raises(StreamError, match="another key"):
            rec.stream(state=signed)
        rec.state_key = None
        with pytest.raises(StreamError, match="state_key"):
            rec.stream(state=signed)
    finally:
        rec.state_key = None
    assert rec.free_slots == 2


Load = Callable[..., kiku.Recognizer]
