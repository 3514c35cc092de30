"""In an event loop's thread nothing is converted or decoded, and no lock is waited for that is held
meanwhile."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import kiku
from kiku.audio import AudioInput, Resampler
from kiku.decoding import TokenPicker
from kiku.engine import SlotEngine
from kiku.options import AudioFormat, DecodingOptions, StreamOptions
from kiku.stream import WordSession

Load = Callable[..., kiku.Recognizer]

WORK: list[tuple[type, str]] = [
    (AudioInput, "feed"),
    (AudioInput, "end"),
    (AudioInput, "tail"),
    (Resampler, "push"),
    (SlotEngine, "open"),
    (SlotEngine, "step"),
    (SlotEngine, "save"),
    (SlotEngine, "restore"),
    (SlotEngine, "set_decoding"),
    (TokenPicker, "__init__"),
    (WordSession, "accept"),
    (WordSession, "save"),
    (WordSession, "restore"),
]


def watched(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """By what is work: the threads in which it was done."""
    threads: dict[str, set[int]] = {}
    for cls, name in WORK:
        own = getattr(cls, name)

        def noted(self: Any, *how: Any, own: Any = own, name: str = name, **more: Any) -> Any:
            threads.setdefault(name, set()).add(threading.get_ident())
            return own(self, *how, **more)

        monkeypatch.setattr(cls, name, noted)
    return threads


def test_no_work_is_done_in_the_event_loop(
    load: Load, digits: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    stereo = (np.repeat(digits, 2)[:, None] * [1, 1] * 32767).astype(np.int16)  # 48 kHz
    options = StreamOptions(format=AudioFormat(sample_rate=48_000), turns=True)
    words: list[str] = []

    async def talk(rec: kiku.Recognizer) -> None:
        async with await rec.astream(options, timeout=60) as stream:
            for first in range(0, len(stereo), 19_200):
                await stream.push(stereo[first : first + 19_200])
                if first == 96_000:
                    await stream.finalize("x")
                    await stream.set_decoding(DecodingOptions(temperature=0.01))
                    await stream.push_silence(0.01)
                    state = await stream.save()
            await stream.close()
            async for event in stream.events():
                if isinstance(event, kiku.Word):
                    words.append(event.text)
        again = await rec.astream(state=state, timeout=60)
        again.stop()

    async def main() -> None:
        rec = await asyncio.to_thread(load, 4)
        threads = watched(monkeypatch)
        await asyncio.gather(*(talk(rec) for _ in range(3)))
        here = threading.get_ident()
        assert {name for _, name in WORK} == threads.keys()
        assert not [name for name, idents in threads.items() if here in idents]

    asyncio.run(main())
    assert words.count("seven") == words.count("nine") == 3


def test_the_drivers_lock_is_not_held_while_it_works(
    load: Load, digits: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = load(2)
    stream = rec.stream()
    held: list[bool] = []
    locks = (rec.scheduler._driver._changed, stream._lock)  # pyright: ignore[reportPrivateUsage]

    def free() -> bool:
        """Whether another thread could take the locks now."""
        got: list[bool] = []

        def take() -> None:
            for lock in locks:
                got.append(lock.acquire(timeout=20))
                if got[-1]:
                    lock.release()

        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        return all(got)

    own = SlotEngine.step

    def step(self: SlotEngine, *how: Any) -> Any:
        held.append(free())
        return own(self, *how)

    monkeypatch.setattr(SlotEngine, "step", step)
    stream.push(digits[:24_000])
    stream.close()
    list(stream.events())
    assert held
    assert all(held)
