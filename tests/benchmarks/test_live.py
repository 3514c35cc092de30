"""What the benchmarks of live streams count; no real time is asserted."""

import importlib
import itertools
import json
import shutil
import subprocess
import sys
from argparse import Namespace
from collections import deque
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kiku.checkpoint.model_shapes import SHAPES
from kiku.engine import SlotEngine
from kiku.engine.kernels import Kernels
from kiku.measure.limit import window_bytes
from kiku.recognizer import Recognizer
from kiku.scheduler import Member, Opening
from kiku.stream import WordSession
from tests import tiny
from tests.conftest import ROOT
from tests.fakes import PAD, spoken
from tests.measure.timed import CODEC_S, COLUMN_S, READ_S, Timed

BENCHMARKS = ROOT / "benchmarks"
CONFIG = tiny.model_config()
FRAME_S = 1 / CONFIG.frame_rate
START, ONE, TWO = CONFIG.word_start_id, 4, 5


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def load(module: Any) -> Any:
    return module("live_load")


@pytest.fixture
def notes_of(module: Any) -> Any:
    return module("instrumented")


def recognizer(engine: SlotEngine) -> Recognizer:
    return Recognizer(engine, CONFIG, tiny.vocabulary(), name="fake")


def step_s(streams: int) -> float:
    """Of `Timed`, one frame each."""
    return streams * (CODEC_S + COLUMN_S) + READ_S


def test_streams_in_step_take_what_a_round_takes(load: Any) -> None:
    engine = Timed(slots=3)
    found = load.live_load(recognizer(engine), 3, count=20, clock=engine.clock)
    assert found.step.count == 20
    assert found.step.median_ms == pytest.approx(1000 * step_s(3))
    assert found.codec is not None
    assert found.codec.median_ms == pytest.approx(1000 * 3 * CODEC_S)
    assert found.decoder is not None
    assert found.decoder.median_ms == pytest.approx(1000 * (READ_S + 3 * COLUMN_S))
    assert found.truncation is None
    assert engine.free_slots == 3


def test_streams_out_of_step_have_steps_of_their_own_while_these_are_quick(load: Any) -> None:
    engine = Timed(slots=3)
    found = load.live_load(recognizer(engine), 3, count=20, clock=engine.clock)
    assert found.frames_per_step == 1
    assert found.delay.count == 3 * 20
    assert found.delay.max_ms == pytest.approx(1000 * step_s(1))
    assert found.busy == pytest.approx(3 * step_s(1) / FRAME_S, rel=0.05)


def test_too_many_streams_keep_the_loop_busy_and_wait_longer_and_longer(load: Any) -> None:
    engine = Timed(slots=30)
    found = load.live_load(recognizer(engine), 30, count=20, clock=engine.clock)
    assert found.busy == 1
    assert found.frames_per_step > 10
    assert found.delay.max_ms > 1000 * FRAME_S


def test_streams_have_heard_as_much_as_their_window_says(load: Any) -> None:
    engine = Timed(slots=2)
    load.live_load(recognizer(engine), 2, "full", count=5, warmup=1, clock=engine.clock)
    assert engine.heard == {0: 10 + 37 + 11, 1: 10 + 11}


def test_kept_streams_are_truncated_while_they_are_measured(load: Any) -> None:
    engine = Timed(slots=2)
    found = load.live_load(recognizer(engine), 2, "kept", count=40, clock=engine.clock)
    assert found.truncation is not None
    assert found.truncation.count > 1
    # The initial column is there already; four frames are read again.
    assert found.truncation.median_ms == pytest.approx(1000 * (READ_S + 4 * COLUMN_S))
    json.dumps(found.to_dict())


def test_a_flush_is_timed_from_the_call_to_its_answer(load: Any, notes_of: Any) -> None:
    engine = Timed()
    sound = np.full(CONFIG.sample_rate, 0.1, np.float32)
    found = load.flushes(
        recognizer(engine), [sound] * 4, script=notes_of.Script(PAD), past=20, clock=engine.clock
    )
    assert found.total.count == 3
    assert (found.passes, found.words) == (1, 0)
    # The delay and one frame more; or with the part of a frame that is left, one more still.
    frames = 8 if found.total.median_ms < 1000 * (READ_S + 8.5 * (CODEC_S + COLUMN_S)) else 9
    assert found.total.median_ms == pytest.approx(1000 * (READ_S + frames * (CODEC_S + COLUMN_S)))
    assert found.codec is not None
    assert found.codec.median_ms == pytest.approx(1000 * frames * CODEC_S)
    assert engine.free_slots == 1


def test_words_of_a_flush_are_counted(load: Any) -> None:
    tokens = [PAD] * 8 + [START, ONE, PAD]
    found = load.flushes(recognizer(Timed()), [spoken(tokens, CONFIG.frame_size)] * 3)
    assert found.total.count == 2
    assert found.words == 0  # it came before, as text
    tokens = [PAD] * 8 + [START, ONE]
    found = load.flushes(recognizer(Timed()), [spoken(tokens, CONFIG.frame_size)] * 3)
    assert found.words == 1


def test_a_script_says_what_it_is_told_and_then_nothing(notes_of: Any) -> None:
    script = notes_of.Script(PAD)
    script.next = deque([START, ONE])
    logits = np.zeros(8, np.float32)
    assert [script(logits) for _ in range(4)] == [START, ONE, PAD, PAD]


def test_an_instrumented_engine_is_the_engine_inside(notes_of: Any) -> None:
    engine = Timed(slots=2)
    same, notes = notes_of.instrumented(recognizer(engine), clock=engine.clock)
    session = WordSession(CONFIG, same.vocabulary)
    same.scheduler.open(Opening([Member(session)]))
    session.push(session.input.check(np.zeros(3 * CONFIG.frame_size, np.float32)))
    while same.scheduler.step():
        pass
    assert (same.free_slots, engine.free_slots) == (1, 1)
    assert sum(notes.codec) == pytest.approx(3 * CODEC_S)
    assert notes.passes == engine.num_passes
    notes.clear()
    assert notes.codec == []


def talk(module: Any, words: tuple[str, ...] = ("one", "two")) -> Any:
    """One speaker, who says these words in the fake engine's way."""
    made = module("talk")
    tokens = {"one": ONE, "two": TWO}
    delay = [PAD] * 7  # the text lags
    said = [token for word in words for token in (START, tokens[word], PAD)]
    clip = made.Clip(spoken([*delay, *said, PAD], CONFIG.frame_size), words)
    hiss = np.full(CONFIG.sample_rate, 0.2 / 256, np.float32)
    return made.Talk({"somebody": [clip]}, [hiss], rate=CONFIG.sample_rate, seed=1)


def test_a_talk_is_as_long_as_it_should_be_and_ends_silent(module: ModuleType) -> None:
    pieces = list(talk(module).part(60.0))
    assert sum(len(piece.sound) for piece in pieces) == 60 * CONFIG.sample_rate
    assert not pieces[-1].sound.any()
    assert len(pieces[-1].sound) >= 3 * CONFIG.sample_rate
    strings = [piece for piece in pieces if piece.words]
    assert strings
    for piece in strings:
        assert piece.words == ("one", "two") * len(piece.speech)
        assert all(begin < end for begin, end in piece.speech)


def test_clips_are_those_of_known_words(module: Any, tmp_path: Path) -> None:
    made = module("talk")
    noises = tmp_path / "noise" / "noise"
    noises.mkdir(parents=True)
    for name in ("a.wav", "b.wav"):
        shutil.copy(ROOT / "examples" / "digits.wav", noises / name)
    spoken = {"text": "Seven three zero one nine four", "language": "en", "speaker": "x"}
    rows = [
        spoken,
        spoken | {"speaker": "y"},
        spoken | {"text": "seven dwarfs"},
        spoken | {"language": "de"},
    ]
    with (tmp_path / "dev.jsonl").open("w") as file:
        for row in rows:
            file.write(json.dumps(row | {"file": "noise/noise/a.wav"}) + "\n")
    clips = made.clips_of(tmp_path)
    assert [(speaker, len(some)) for speaker, some in clips.items()] == [("x", 1), ("y", 1)]
    assert clips["x"][0].words == ("seven", "three", "zero", "one", "nine", "four")
    assert set(clips["x"][0].words) <= set(made.WORDS)
    assert len(clips["x"][0].sound) > 24_000
    assert len(made.noises_of(tmp_path)) == 2


def test_hours_are_told_part_by_part(module: Any) -> None:
    made = module("soak")
    ticks, memory = itertools.count(), iter([100, 130])
    said: list[str] = []
    found = made.soak(
        recognizer(Timed()), talk(module), 0.05,
        clock=lambda: next(ticks) / 1000, resident=lambda: next(memory), report=said.append,
    )  # fmt: skip
    assert len(found["parts"]) == len(said) == 2
    first, last = found["parts"]
    assert (first["until_hours"], last["until_hours"]) == (0.025, 0.05)
    assert first["step"]["count"] == 0.025 * 3600 * CONFIG.frame_rate
    assert first["step"]["median_ms"] == 4  # the engine asks the clock three times in between
    assert first["said"] > 0
    assert first["truncations"] > 0
    assert (found["growth_bytes"], found["step_ratio"]) == (30, 1)
    json.dumps(found)


def test_what_is_heard_where_it_was_said_is_no_error(module: Any) -> None:
    made, piece = module("soak"), module("talk").Piece
    part = made.Part(100.0)
    part.add(piece(np.zeros(0), ("one", "two"), ((1.0, 2.0), (3.0, 4.0))), 10.0)
    part.add(piece(np.zeros(0)), 5.0)
    part.add(piece(np.zeros(0), ("three",), ((0.5, 1.5),)), 5.0)
    part.words = [("one", 101.2, 101.5), ("three", 114.8, 115.1)]
    assert made.errors_of(part) == 1
    # 0.5 s of the first recording after "one", and the second one.
    assert made.longest_gap(part) == 1.5
    part.words.insert(1, ("two", 112.0, 112.2))  # where nobody speaks
    assert made.errors_of(part) == 2
    part.words = []
    assert made.errors_of(part) == 3
    assert made.longest_gap(part) == 3.0


def test_the_end_is_compared_with_the_beginning(module: Any) -> None:
    def row(memory: int, ms: float, errors: int) -> dict[str, Any]:
        return {
            "resident_bytes": memory, "step": {"median_ms": ms, "p99_ms": 2 * ms}, "said": 10,
            "errors": errors, "longest_gap_s": ms, "warnings": {"frozen": errors},
        }  # fmt: skip

    found = module("soak").summary([row(100, 2, 1), row(110, 2, 1), row(110, 2, 0), row(120, 3, 3)])
    assert found == {
        "growth_bytes": 20, "step_ratio": 1.5, "step_ratio_p99": 1.5,
        "word_error_rate_first_hour": 0.1, "word_error_rate_last_hour": 0.15,
        "longest_gap_s": 3, "warnings": {"frozen": 5},
    }  # fmt: skip


def test_unknown_parts_and_missing_recordings_are_told(
    module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    live = module("live")
    monkeypatch.setattr(live, "kernels", lambda: Kernels(None, "", "it is off"))
    for arguments, said in (
        (["dance"], "there is no part dance"),
        (["streams", "--precision", "int8_kv8"], "keys of 8 bits need kiku-kernels: it is off"),
        (["soak"], "say where they are with --data"),
        (["finalize"], "say where they are with --data"),
    ):
        monkeypatch.setattr(sys, "argv", ["live.py", *arguments])
        with pytest.raises(SystemExit):
            live._arguments()
        assert said in capsys.readouterr().err


def test_the_shape_has_the_precision_that_was_asked_for(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    live = module("live")
    monkeypatch.setattr(live, "kernels", lambda: Kernels("here", "", ""))
    monkeypatch.setattr(module("machine"), "kernels", lambda: Kernels("here", "", ""))
    monkeypatch.setattr(live, "write_dummy_model", lambda folder, *_: folder)
    opened: list[str] = []
    monkeypatch.setattr(live, "open_model", lambda source, **_: opened.append(source))

    def run(*arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["live.py", "streams", "--threads", "1", *arguments])
        return live.Run(live._arguments(), tmp_path)

    half, eight = run(), run("--precision", "int8_kv8")
    for one in (half, eight):
        one.open("1b")
    eight.open("demo")
    assert opened == [str(tmp_path / "1b-int8"), str(tmp_path / "1b-int8_kv8"), "demo"]
    assert [one.precision("1b") for one in (half, eight)] == ["int8", "int8_kv8"]
    assert eight.precision("demo") == "float32"
    lm = SHAPES["1b"].lm
    assert half.least_ms("1b", lm, 0, 40e9) == eight.least_ms("1b", lm, 0, 40e9)
    less = half.least_ms("1b", lm, 10, 40e9) - eight.least_ms("1b", lm, 10, 40e9)
    assert less == pytest.approx(10 * (window_bytes(lm, 16) - window_bytes(lm, 8)) / 40e6, abs=0.02)


def test_rows_say_which_precision_they_are_of(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    live, none = module("live"), {"codec": None, "decoder": None}
    recognizer = SimpleNamespace(config=CONFIG)
    monkeypatch.setattr(live, "live_load", lambda *_, **__: SimpleNamespace(to_dict=lambda: none))
    monkeypatch.setattr(live, "_written", lambda *_: [("silence", lambda: none)])
    monkeypatch.setattr(live, "_recorded", lambda *_: [("words", lambda: none)])
    monkeypatch.setattr(live.Run, "open", lambda *_, **__: recognizer)
    monkeypatch.setattr(live.Run, "bandwidth", lambda _: 40e9)
    args = Namespace(
        threads=1, shape="1b", models=["demo", "1b"], streams=[1], frames=1, precision="int4"
    )
    run = live.Run(args, tmp_path)
    for part in (live.streams, live.finalize):
        said = [(row["model"], row["precision"]) for row in part(run)["rows"]]
        assert list(dict.fromkeys(said)) == [("demo", "float32"), ("1b", "int4")]


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_the_whole_run_works_at_a_tiny_shape(tmp_path: Path, shared_data: Path) -> None:
    command = [
        sys.executable, str(BENCHMARKS / "live.py"), "--shape", "tiny", "--streams", "1,2",
        "--frames", "5", "--rounds", "2", "--hours", "0.02", "--threads", "1",
        "--data", str(shared_data), "--out", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "live.jsonl").read_text().splitlines()]
    assert [row["what"] for row in rows] == ["streams", "finalize", "soak"]
    assert "MODEL" in done.stdout
