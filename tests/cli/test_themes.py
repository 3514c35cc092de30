"""Options in themes, as the help lists them and as the command gets them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from kiku.cli.loaded import ModelOptions
from kiku.converted import cache_folder
from kiku.errors import ConfigError
from kiku.recognizer import Recognizer
from tests.cli.conftest import Ran
from tests.cli.simple import SimpleBackend

Run = Callable[..., Ran]
Speech = Callable[..., Path]
TITLES = {
    "transcribe": ["Arguments", "Input", "The model", "How words are chosen",
                   "Output", "On many machines", "Options"],
    "listen": ["Input", "The model", "How words are chosen", "Output", "Options"],
    "evaluate": ["Arguments", "Input", "The model", "How words are chosen",
                 "Measurement", "Options"],
    "serve": ["Addresses", "The model", "Access", "Limits",
              "Sessions and logs", "Options"],
}  # fmt: skip
PLACES = {
    "transcribe": {
        "--channel": "Input", "--model-dir": "The model",
        "--prompt": "How words are chosen", "--format": "Output",
        "--output": "Output", "--quiet": "Options",
    },
    "evaluate": {
        "--only": "Input", "--model-dir": "The model",
        "--hotword": "How words are chosen", "--against": "Measurement", "--quiet": "Options",
    },
    "serve": {
        "--port": "Addresses", "--language": "The model", "--api-key": "Access",
        "--slots": "Limits", "--log-level": "Sessions and logs",
        "--config": "Options",
    },
}  # fmt: skip
PLACES["listen"] = PLACES["transcribe"]


def test_the_help_lists_options_by_their_themes(run: Run) -> None:
    for command, titles in TITLES.items():
        said = run(command, "--help").out
        assert re.findall(r"^(\w[\w ]*):$", said, re.MULTILINE) == titles
        parts = dict(
            zip(titles, re.split(r"^\w[\w ]*:$", said, flags=re.MULTILINE)[1:], strict=True)
        )
        for option, title in PLACES[command].items():
            where = [name for name, part in parts.items() if re.search(rf"{option}\b[ ,]", part)]
            assert where == [title], option


def test_what_a_theme_adds_to_another_stands_before_its_last_options(run: Run) -> None:
    before, added, last = (
        ["--hotword", "--temperature"],
        ["--prompt", "--prompt-audio"],
        ["--options", "--calibration"],
    )
    for command, wanted in (("evaluate", before + last), ("listen", before + added + last)):
        said = run(command, "--help").out
        part = said.split("How words are chosen:")[1].split("\n\n")[0]
        assert re.findall(r"^  (--[\w-]+)", part, re.MULTILINE) == wanted


def test_recordings_go_side_by_side(
    run: Run, speech: Speech, tmp_path: Path, backend: SimpleBackend
) -> None:
    talks = [
        speech(tmp_path / f"{name}.wav", seconds) for name, seconds in (("b", 2.0), ("a", 1.0))
    ]
    alone = run("transcribe", *talks).out
    assert backend.num_slots == 1
    assert run("transcribe", *talks, "--slots", "8").out == alone  # in their order
    assert backend.num_slots == 2  # as there are recordings
    assert run("transcribe", *talks, tmp_path / "gone.wav", "--slots", "2").code == 1
    ran = run("transcribe", *talks, "--slots", "2", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "b.txt").read_text() == "zero one two\n"
    assert (tmp_path / "out" / "a.txt").exists()
    assert ran.code == 0
    assert "--slots" in run("transcribe", *talks, "--slots", "2", "--raw", "s16le,16000,1").err


def test_ctrl_c_keeps_what_was_heard_of_all_that_go_side_by_side(
    run: Run, speech: Speech, tmp_path: Path, backend: SimpleBackend
) -> None:
    talks = [speech(tmp_path / f"{name}.wav", 20.0) for name in "ab"]
    backend.interrupt_at = 70
    assert run("transcribe", *talks, "--slots", "2", "-o", tmp_path / "out").code == 130
    for name in "ab":
        assert (tmp_path / "out" / f"{name}.partial.txt").read_text().startswith("zero one")
        assert not (tmp_path / "out" / f"{name}.txt").exists()


def test_converted_models_are_kept_where_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KIKU_CACHE", str(tmp_path / "usual"))
    ModelOptions(model_dir=tmp_path / "here").apply()
    assert cache_folder() == tmp_path / "here" / "onnx"


@pytest.mark.parametrize("command", [["transcribe"], ["listen", "--speed", "0", "--from"]])
def test_a_prompt_is_heard_before_the_recording(
    command: list[str], run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    backend: SimpleBackend,
) -> None:  # fmt: skip
    talk, before = speech(tmp_path / "talk.wav"), speech(tmp_path / "before.wav", 1.0)
    said: list[tuple[str, Path]] = []

    def prompt(self: Recognizer, text: str, source: Path) -> None:
        said.append((text, source))
        if text == "far too long":
            raise ConfigError("the prompt's recording ended before")

    monkeypatch.setattr(Recognizer, "prompt", prompt)
    ran = run(*command, talk, "--prompt", "Zero.", "--prompt-audio", before)
    assert (ran.code, ran.out) == (0, "zero one two\n")
    assert said == [("Zero.", before)]
    ran = run(*command, talk, "--prompt", "far too long", "--prompt-audio", before)
    assert (ran.code, ran.out) == (2, "")
    assert "--prompt: the prompt's recording ended before" in ran.err
    said.clear()
    for half, told in (
        (["--prompt", "Zero."], "--prompt: it needs --prompt-audio FILE"),
        (["--prompt-audio", str(before)], "--prompt-audio: it needs --prompt TEXT"),
        (["--prompt", "Zero.", "--prompt-audio", "gone.wav"], "gone.wav: no such file"),
    ):
        ran = run(*command, talk, *half)
        assert (ran.code, ran.out) == (2, "")
        assert told in ran.err
    assert said == []
