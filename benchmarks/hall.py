"""What the hall around the engine costs, and its shape.

    python benchmarks/hall.py                  # all parts, about two minutes
    python benchmarks/hall.py loop live        # some of them

| part | |
|---|---|
| `loop` | Python for a stream and frame with an engine that costs nothing: words only, by hand |
| `live` | the same through live streams: push, driver, events; with turns |
| `lone` | one stream of the demo: the whole step against the call of the engine alone |
| `beside` | a recording beside 8 live streams: steps that hold both, how long a frame waits |
| `tasks` | 100 async streams of 48 kHz stereo: what the callbacks of the event loop take |
| `file` | seconds for a recording of six minutes, the demo on two threads |
| `save` | a saved stream of the 1B's size: how long each part of it takes, and other threads wait |
| `walk` | one 80 ms chunk from push to word: calls, files and changes of room |
| `shape` | lines, locks, parameters and the longest function, counted in the source |

Times are processor time where nothing waits, so a busy machine matters little. One line is appended
to results/hall.jsonl; with --no-record it is only printed.
"""

import argparse
import ast
import asyncio
import json
import re
import sys
import tempfile
import threading
import time
import wave
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import machine
import numpy as np
from numpy.typing import NDArray

import kiku
from kiku.arrays import arrays_of
from kiku.audio import read_chunks
from kiku.engine import SlotCopy, SlotEngine, StepOutput
from kiku.scheduler import Member, Opening
from kiku.stream import WordSession
from kiku.stream.saved import pack_stream, unpack_stream

T = TypeVar("T")

ROOT = machine.ROOT
HALL = (
    "scheduler/scheduler.py", "scheduler/driver.py", "scheduler/rounds.py", "scheduler/steps.py",
    "scheduler/pacing.py", "scheduler/binding.py", "scheduler/open_sessions.py",
    "scheduler/opening_queue.py",
    "live/setup.py", "live/sessions.py", "live/open_stream.py", "live/live_stream.py",
    "live/async_stream.py", "live/waiters.py", "recognizer.py", "tokens.py",
    "transcription/transcript.py", "transcription/sources.py", "transcription/sound.py",
    "transcription/recording.py", "transcription/progress.py", "transcription/batch.py",
    "transcription/transcription.py",
    "stream/session.py", "stream/inbox.py", "stream/frame_source.py", "stream/event_writer.py",
    "stream/turn_tracker.py", "stream/session_state.py", "stream/session_setup.py",
    "engine/core.py", "engine/slot_decoder.py", "engine/saved_slot.py",
    "engine/blocks.py", "engine/onnx.py", "engine/torch.py",
)  # fmt: skip
THEIRS = ("hf", "compat", "cli")
"""Rooms whose signatures others have made, and the options of commands."""

WORD_EVERY = 6
"""Frames: a word of one piece, then PAD."""


class FreeEngine:
    """Says a word every few frames, of every slot alike, and costs nothing."""

    def __init__(self, recognizer: kiku.Recognizer) -> None:
        """In the place of the recognizer's own steps."""
        config = recognizer.config
        pad, start = config.pad_id, config.word_start_id
        pieces = range(10, config.lm.text_vocab_size)
        self._tokens = (start, next(i for i in pieces if i not in (pad, start)))
        self._pad, self._heads, self._frame = pad, config.lm.num_pause_heads, 0
        engine: Any = recognizer.scheduler.engine
        engine.step, engine.truncate = self.step, lambda slot, frames, most=None: 0

    def step(
        self, slots: Sequence[int], frames: NDArray[np.float32], counts: Sequence[int]
    ) -> StepOutput:
        """See `SlotEngine.step`; one frame of each slot."""
        at, n = self._frame % WORD_EVERY, len(frames)
        self._frame += 1
        token = self._tokens[at] if at < len(self._tokens) else self._pad
        pauses = np.zeros((n, self._heads), np.float32)
        return StepOutput(np.full(n, token), np.full(n, -0.1, np.float32), pauses, None, counts)


def noise() -> NDArray[np.float32]:
    """A frame that somebody might speak in."""
    return (np.random.default_rng(0).standard_normal(1920) * 0.05).astype(np.float32)


def per_stream(rows: Sequence[Sequence[float]], streams: int) -> dict[str, float]:
    """Medians in microseconds for a stream and frame, and their sum."""
    push, step, events = (np.median(np.array(rows), 0) / streams * 1e6).tolist()
    parts = {"push_us": push, "step_us": step, "events_us": events, "all_us": push + step + events}
    return {name: round(value, 2) for name, value in parts.items()}


def timed(*calls: Callable[[], object]) -> list[float]:
    """Processor seconds of each call."""
    seconds: list[float] = []
    for call in calls:
        started = time.process_time()
        call()
        seconds.append(time.process_time() - started)
    return seconds


def loop(streams: int, frames: int) -> dict[str, Any]:
    """Sessions that are driven by hand."""
    rec = kiku.load("demo", slots=streams, threads=1)
    FreeEngine(rec)
    sessions = [WordSession(rec.config, rec.vocabulary) for _ in range(streams)]
    rec.scheduler.open(Opening([Member(session) for session in sessions]))
    sound = noise()

    def push() -> None:
        for session in sessions:
            session.push(session.input.check(sound))

    def step() -> None:
        rec.scheduler.wake()
        rec.scheduler.drive(lambda: not any(session.waiting_s for session in sessions[-1:]))

    def fetch() -> None:
        for session in sessions:
            while session.events:
                session.next_event()

    rows = [timed(push, step, fetch) for _ in range(frames + 5)][5:]
    return {"streams": streams, **per_stream(rows, streams)}


def live(streams: int, frames: int) -> dict[str, Any]:
    """Live streams with turns; the driver's thread is part of it."""
    rec = kiku.load("demo", slots=streams, threads=1)
    FreeEngine(rec)
    options = kiku.StreamOptions(turns=True)
    opened = [rec.stream(options) for _ in range(streams)]
    sound = noise()
    rows: list[list[float]] = []

    def push() -> None:
        for stream in opened:
            stream.push(sound)

    def wait() -> None:
        while any(stream.waiting_s for stream in opened):
            time.sleep(0.001)

    def fetch() -> None:
        for stream in opened:
            stream.poll()

    for _ in range(frames + 5):
        rows.append(timed(push, wait, fetch))
    for stream in opened:
        stream.stop()
    return {"streams": streams, **per_stream(rows[5:], streams)}


def lone(frames: int) -> dict[str, Any]:
    """One stream of the demo: whole steps, and the engine's calls within them."""
    rec = kiku.load("demo", threads=1)
    engine: Any = rec.scheduler.engine
    within: list[float] = []
    own = SlotEngine.step

    def step(*how: Any) -> StepOutput:
        started = time.perf_counter()
        out = own(engine, *how)
        within.append(time.perf_counter() - started)
        return out

    engine.step = step
    session = WordSession(rec.config, rec.vocabulary)
    rec.scheduler.open(Opening([Member(session)]))
    digits = np.concatenate(list(read_chunks(str(ROOT / "examples/digits.wav"), 24_000)))
    whole: list[float] = []
    for at in range(frames + 10):
        first = at * 1920 % (len(digits) - 1920)
        started = time.perf_counter()
        session.push(session.input.check(digits[first : first + 1920]))
        rec.scheduler.wake()
        rec.scheduler.drive(lambda: not session.waiting_s)
        while session.events:
            session.next_event()
        whole.append(time.perf_counter() - started)
        within[at:] = [sum(within[at:])]
    step_ms, engine_ms = (float(np.median(part[10:])) * 1e3 for part in (whole, within))
    return {
        "step_ms": round(step_ms, 3),
        "engine_ms": round(engine_ms, 3),
        "ratio": round(step_ms / engine_ms, 3),
    }


def beside(frames: int) -> dict[str, Any]:
    """Eight live streams in their own time, without and with a recording."""
    digits = np.concatenate(list(read_chunks(str(ROOT / "examples/digits.wav"), 24_000)))
    found: dict[str, Any] = {}
    for name, recording in (("alone", False), ("beside", True)):
        rec = kiku.load("demo", slots=9)
        rows: list[tuple[bool, bool]] = []
        engine: Any = rec.scheduler.engine
        own = SlotEngine.step

        engine.step = noting(engine, own, rows)

        streams = [rec.stream() for _ in range(8)]
        rows.clear()
        stopped = threading.Event()
        reader = threading.Thread(target=transcribe_until, args=(rec, digits, stopped))
        if recording:
            reader.start()
        lags = talk(streams, digits, frames)
        stopped.set()
        if recording:
            reader.join()
        for stream in streams:
            stream.stop()
        found[f"lag_p99_ms_{name}"] = round(float(np.percentile(lags, 99)) * 1e3, 1)
        if recording:
            both = sum(file and live for file, live in rows)
            file = sum(file for file, _ in rows)
            found["steps_with_recording"], found["of_which_shared"] = file, both
            found["steps_with_live"] = sum(live for _, live in rows)
    found["lag_ratio"] = round(found["lag_p99_ms_beside"] / found["lag_p99_ms_alone"], 2)
    return found


def noting(engine: Any, own: Any, rows: list[tuple[bool, bool]]) -> Any:
    """`own`, which notes whether the ninth slot and any other are in a step."""

    def step(slots: Any, packed: Any, counts: Any) -> Any:
        rows.append((8 in slots, min(slots) < 8))
        return own(engine, slots, packed, counts)

    return step


def transcribe_until(
    rec: kiku.Recognizer, sound: NDArray[np.float32], stopped: threading.Event
) -> None:
    """Recordings without end, some minutes each."""
    recording = np.tile(sound, 40)
    while not stopped.is_set():
        job = rec.transcription(recording, rate=rec.config.sample_rate)
        for _ in job:
            if stopped.is_set():
                break
        job.stop()


def talk(
    streams: Sequence[kiku.LiveStream], sound: NDArray[np.float32], frames: int
) -> list[float]:
    """Seconds from each push of a frame until nothing of that stream waits."""
    lags: list[float] = []
    started = time.perf_counter()
    waiting: dict[int, float] = {}
    at, due = 0, 0.0
    while at < frames or waiting:
        now = time.perf_counter() - started
        for i in [i for i in waiting if streams[i].waiting_s < 0.08]:
            lags.append(now - waiting.pop(i))
        if at < frames and now >= due:
            first = at * 1920 % (len(sound) - 1920)
            for i, stream in enumerate(streams):
                stream.push(sound[first : first + 1920])
                waiting.setdefault(i, time.perf_counter() - started)
                stream.poll()
            at, due = at + 1, due + 0.08
        time.sleep(0.0005)
    return lags


def tasks(frames: int) -> dict[str, Any]:
    """Async streams in their own time, with an engine that costs nothing; the callbacks of the
    event loop, as asyncio runs them."""
    streams, kept = 100, list[float]()
    own: Any = asyncio.events.Handle._run  # pyright: ignore[reportPrivateUsage]

    def timed_run(handle: Any) -> None:
        started = time.thread_time()
        own(handle)
        kept.append(time.thread_time() - started)

    async def main() -> None:
        rec = kiku.load("demo", slots=streams, threads=1)
        FreeEngine(rec)
        options = kiku.StreamOptions(turns=True)
        opened = [await rec.astream(options) for _ in range(streams)]
        chunk = np.repeat(noise(), 2)[:, None].repeat(2, axis=1)  # 80 ms

        async def speak(i: int, stream: kiku.AsyncStream) -> None:
            await asyncio.sleep(0.08 * i / streams)
            for _ in range(frames):
                await stream.push(chunk, rate=48_000)
                stream.poll()
                await asyncio.sleep(0.08)
            stream.stop()

        await asyncio.sleep(0)
        kept.clear()  # of what was before
        await asyncio.gather(*(speak(i, stream) for i, stream in enumerate(opened)))

    asyncio.events.Handle._run = timed_run
    try:
        asyncio.run(main())
    finally:
        asyncio.events.Handle._run = own
    micros = np.array(kept) * 1e6
    return {
        "streams": streams,
        "callback_p99_us": round(float(np.percentile(micros, 99)), 1),
        "callback_longest_ms": round(float(micros.max()) / 1e3, 2),
        "share_of_a_core": round(float(micros.sum()) / 1e6 / (0.08 * (frames + 1)), 3),
    }


def file() -> dict[str, Any]:
    """The middle of three; this function also runs in a checkout from before the rebuild."""
    rec = kiku.load("demo", threads=2)
    digits = np.concatenate(list(read_chunks(str(ROOT / "examples/digits.wav"), 24_000)))
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        with wave.open(str(path), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(24_000)
            out.writeframes((np.tile(digits, 60) * 32_767).astype("<i2").tobytes())
        for _ in range(3):
            started = time.perf_counter()
            list(rec.transcribe(str(path)))  # in that checkout work happens while one iterates
            seconds.append(time.perf_counter() - started)
    return {"sound_s": round(60 * len(digits) / 24_000), "wall_s": round(sorted(seconds)[1], 2)}


def save() -> dict[str, Any]:
    """The keys and values of a 1B with full windows, in 16 bits, as the engine has them."""
    shape, window = (16, 1024, 128), 749
    rng = np.random.default_rng(0)
    rings = [rng.standard_normal(shape).astype(np.float16) for _ in range(32)]
    found: dict[str, dict[str, float]] = {}
    copied = timed_beside("copy", found, lambda: [ring[:, :window].copy() for ring in rings])
    arrays = {str(number): array for number, array in enumerate(copied)}

    def write() -> bytes:
        slot = SlotCopy("signature", 0, np.zeros((1, 33), np.int64), lambda: arrays).to_bytes()
        return pack_stream({"slot": np.frombuffer(slot, np.uint8)})

    def read(state: bytes) -> bool:
        known, _ = arrays_of(unpack_stream(state)["slot"])
        return all(np.isfinite(array).all() for array in known.values())

    state = timed_beside("write", found, write)
    assert timed_beside("read", found, lambda: read(state))
    return {"mb": round(len(state) / 1e6, 1), **found}


def timed_beside(name: str, found: dict[str, dict[str, float]], call: Callable[[], T]) -> T:
    """Call it, and note how long it took, and how long another thread of Python's stood still."""
    waits, has_ended = [0.0], threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        while not has_ended.is_set():
            time.sleep(0.0005)
            now = time.perf_counter()
            waits.append(now - last)
            last = now

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.perf_counter()
    try:
        return call()
    finally:
        seconds = time.perf_counter() - started
        has_ended.set()
        thread.join()
        found[name] = {"ms": round(seconds * 1e3, 1), "others_ms": round(max(waits) * 1e3, 1)}


def walk() -> dict[str, Any]:
    """One chunk from push to word, as the profiler sees it."""
    rec = kiku.load("demo", threads=1)
    FreeEngine(rec)
    session = WordSession(rec.config, rec.vocabulary)
    rec.scheduler.open(Opening([Member(session)]))
    sound, source = noise(), str(Path(kiku.__file__).parent)
    for _ in range(WORD_EVERY * 5 + 2):  # the next frame ends a word
        push_and_drive(rec, session, sound)
    calls: list[str] = []

    def note(frame: Any, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(source):
            calls.append(frame.f_code.co_filename[len(source) + 1 :])

    sys.setprofile(note)
    push_and_drive(rec, session, sound)
    sys.setprofile(None)
    assert any(isinstance(event, kiku.Word) for event in session.events)
    rooms = [path.partition("/")[0] for path in calls]
    return {
        "calls": len(calls),
        "files": len(set(calls)),
        "changes_of_room": sum(a != b for a, b in pairwise(rooms)),
    }


def push_and_drive(rec: kiku.Recognizer, session: WordSession, sound: NDArray[np.float32]) -> None:
    """A frame, all the way."""
    session.push(session.input.check(sound))
    rec.scheduler.wake()
    rec.scheduler.drive(lambda: not session.waiting_s)


def shape() -> dict[str, Any]:
    """Counted in the source."""
    source = ROOT / "src" / "kiku"
    texts = {path: (source / path).read_text() for path in HALL}
    locks = re.compile(r"threading\.(?:Lock|RLock|Condition|Semaphore|Event)\(|SimpleQueue\(|"
                       r"asyncio\.(?:Lock|Condition|Event)\(")  # fmt: skip
    longest, many = 0, 0
    for path in source.rglob("*.py"):
        room = path.relative_to(source).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                longest = max(longest, (node.end_lineno or 0) - node.lineno + 1)
                names = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = len([name for name in names if name.arg not in ("self", "cls")])
                many += count > 7 and room not in THEIRS
    return {
        "lines_of_hall_and_engines": sum(text.count("\n") for text in texts.values()),
        "locks_and_conditions": sum(len(locks.findall(text)) for text in texts.values()),
        "functions_with_more_than_7_parameters": many,
        "longest_function": longest,
    }


def main() -> None:
    """Measure, print, and append."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parts: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
        "loop": lambda given: loop(given.streams, given.frames),
        "live": lambda given: live(given.streams, given.frames),
        "lone": lambda given: lone(10 * given.frames),
        "beside": lambda given: beside(5 * given.frames),
        "tasks": lambda given: tasks(2 * given.frames),
        "file": lambda given: file(),
        "save": lambda given: save(),
        "walk": lambda given: walk(),
        "shape": lambda given: shape(),
    }
    parser.add_argument("parts", nargs="*", choices=[[], *parts], help="all without any")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args()
    row: dict[str, Any] = {**machine.stamp(), "what": "hall"}
    for name in given.parts or parts:
        row[name] = parts[name](given)
        print(name, json.dumps(row[name]), flush=True)
    if not given.no_record:
        machine.append(machine.RESULTS / "hall.jsonl", row)


if __name__ == "__main__":
    main()
