"""Samples without a header: what `--raw` says of them, at both commands."""

import io
import json
import sys
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from kiku.audio import read_file
from kiku.cli.raw import RawFormat, opened
from kiku.errors import ConfigError
from tests.cli.conftest import Ran

Run = Callable[..., Ran]
Speech = Callable[..., Path]

TRANSCRIBE = ("transcribe",)
LISTEN = ("listen", "--speed", "0", "--from")
BOTH = pytest.mark.parametrize("command", [TRANSCRIBE, LISTEN], ids=["transcribe", "listen"])


def samples_of(path: Path) -> bytes:
    with wave.open(str(path)) as file:
        return file.readframes(file.getnframes())


@BOTH
@pytest.mark.usefixtures("backend")
def test_samples_on_standard_input(
    run: Run, speech: Speech, tmp_path: Path, command: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    data = samples_of(speech(tmp_path / "talk.wav"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    ran = run(*command, "-", "--raw", "s16le,24000,1")
    assert (ran.code, ran.out, ran.err) == (0, "zero one two\n", "")


@BOTH
@pytest.mark.usefixtures("backend")
def test_samples_in_a_file_of_two_channels(
    run: Run, speech: Speech, tmp_path: Path, command: Sequence[str]
) -> None:
    talk = tmp_path / "talk.pcm"
    talk.write_bytes(samples_of(speech(tmp_path / "talk.wav", 2.0, silent_s=(0.0, 1.6))))
    raw = "--raw", "S16LE, 24000, 2"
    ran = run(*command, talk, *raw, "--channel", "each")
    assert (ran.code, ran.err) == (0, "")
    assert sorted(ran.out.splitlines()) == ["[0] zero one two", "[1] zero"]
    assert run(*command, tmp_path / "gone.pcm", *raw).code == 1


@pytest.mark.parametrize(
    ("encoding", "dtype", "full"),
    [("s16le", "<i2", 2**15), ("s32le", "<i4", 2**31), ("f32le", "<f4", 1)],
)
def test_samples_come_out_as_they_were_written(encoding: str, dtype: str, full: float) -> None:
    sound = np.linspace(-0.9, 0.9, 9600).reshape(-1, 2)
    data = (sound * full).astype(dtype).tobytes()
    with opened(io.BytesIO(data), RawFormat(encoding, 16_000, 2)) as source:
        chunks = list(read_file(source))
    assert {chunk.rate for chunk in chunks} == {16_000}
    read = np.concatenate([np.asarray(chunk.data, np.float64) for chunk in chunks])
    scale = {"i": full, "f": 1.0}[np.asarray(chunks[0].data).dtype.kind]
    np.testing.assert_allclose(read.reshape(-1, 2) / scale, sound, atol=1e-4)


def test_logarithmic_samples_are_read() -> None:
    for encoding in ("alaw", "mulaw"):
        with opened(io.BytesIO(bytes(range(256)) * 40), RawFormat(encoding, 8000)) as source:
            seconds = sum(chunk.seconds for chunk in read_file(source))
        assert seconds == pytest.approx(1.28)


def test_one_channel_may_be_left_out() -> None:
    assert RawFormat.parse("mulaw,8000") == RawFormat("mulaw", 8000, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mp3,16000,1", "'mp3' is not a known encoding; choose one of s16le"),
        ("s16le", "does not give encoding, rate and channels"),
        ("s16le,fast", "does not give encoding"),
        ("s16le,16000,1,1", "does not give encoding"),
        ("s16le,16,1", "the rate must be from 8000"),
        ("s16le,16000,0", "the number of channels from 1 to 64"),
    ],
)
def test_what_says_nothing_of_samples(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RawFormat.parse(text)


@BOTH
def test_what_cannot_be_is_told_of_the_option(
    run: Run, speech: Speech, tmp_path: Path, command: Sequence[str]
) -> None:
    ran = run(*command, speech(tmp_path / "a.wav"), "--raw", "s17le,16000")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "--raw: 's17le' is not a known encoding" in ran.err


def test_a_microphone_says_itself_how_it_sounds(run: Run) -> None:
    ran = run("listen", "--raw", "s16le,16000,1")
    assert ran.code == 2
    assert "--raw: it needs a recording; add --from FILE" in ran.err


@pytest.mark.usefixtures("backend")
def test_one_of_several_that_is_gone_does_not_stop_the_rest(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = samples_of(speech(tmp_path / "talk.wav"))
    for name in ("a.pcm", "b.pcm"):
        (tmp_path / name).write_bytes(data)
    opening = Path.open

    def refuse(path: Path, *how: str) -> object:
        if path.name == "a.pcm":
            raise PermissionError(13, "Permission denied")
        return opening(path, *how)

    monkeypatch.setattr(Path, "open", refuse)
    raw = "--raw", "s16le,24000", "-f", "json"
    ran = run("transcribe", tmp_path / "a.pcm", tmp_path / "b.pcm", *raw)
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 1
    assert lines[0] is None
    assert lines[1]["text"] == "zero one two"
