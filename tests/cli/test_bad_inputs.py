"""What cannot be done: one sentence each, an exit code, and nothing lost."""

import os
import shlex
import wave
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import kiku
from kiku import writing
from kiku.cli import main
from kiku.cli.terminal import ReaderGone
from kiku.errors import CheckpointError
from tests.cli.conftest import Ran
from tests.cli.simple import SimpleBackend

Run = Callable[..., Ran]
Speech = Callable[..., Path]


_LONG = "a" * 5000


def one_sentence(ran: Ran, *words: str) -> None:
    """Exactly one line on standard error, with these words in it."""
    assert ran.err.startswith("kiku: ")
    assert ran.err.count("\n") == 1, ran.err
    for word in words:
        assert word in ran.err


def silent_film(path: Path) -> Path:
    """A video without sound."""
    with av.open(str(path), "w") as file:
        track = file.add_stream("mpeg4", rate=10)
        track.width = track.height = 32
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return path


@pytest.mark.usefixtures("backend")
class TestInputs:
    def test_missing_file_does_not_even_load_the_model(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kiku, "load", None)
        ran = run("transcribe", tmp_path / "gone.wav")
        assert (ran.code, ran.out) == (1, "")
        one_sentence(ran, "gone.wav", "no such file")

    def test_what_is_missing_is_told_before_the_model_loads(
        self, run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def load(*_: object, **__: object) -> None:
            raise CheckpointError("loading has begun")

        monkeypatch.setattr(kiku, "load", load)
        (tmp_path / "b.txt").touch()
        there = [speech(tmp_path / name) for name in ("a.wav", "b.wav")]
        ran = run("transcribe", tmp_path / "gone.wav", *there, "-o", tmp_path)
        lines = ran.err.splitlines()
        assert "gone.wav: no such file" in lines[0]
        assert "b.txt already exists" in lines[1]
        assert lines[2:] == ["kiku: loading has begun"]

    def test_folder_without_recordings(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("hello")
        ran = run("transcribe", tmp_path)
        assert ran.code == 1
        one_sentence(ran, str(tmp_path), "no audio or video files")

    @pytest.mark.parametrize(
        ("content", "said"),
        [(b"", "is empty"), (b"just a letter\n" * 50, "not a recording that can be read")],
    )
    def test_files_that_are_no_sound(
        self, run: Run, tmp_path: Path, content: bytes, said: str
    ) -> None:
        bad = tmp_path / "letter.txt"
        bad.write_bytes(content)
        ran = run("transcribe", bad, "-o", tmp_path / "out")
        assert ran.code == 1
        one_sentence(ran, str(bad), said)
        assert list((tmp_path / "out").iterdir()) == []

    def test_video_without_sound(self, run: Run, tmp_path: Path) -> None:
        ran = run("transcribe", silent_film(tmp_path / "film.mp4"))
        assert ran.code == 1
        one_sentence(ran, "film.mp4", "no audio track")

    def test_wav_without_samples(self, run: Run, speech: Speech, tmp_path: Path) -> None:
        ran = run("transcribe", speech(tmp_path / "nothing.wav", 0.0))
        assert ran.code == 1
        one_sentence(ran, "nothing.wav")

    def test_truncated_wav_gives_what_is_there_and_says_so(
        self, run: Run, speech: Speech, tmp_path: Path
    ) -> None:
        whole = speech(tmp_path / "whole.wav", 4.0).read_bytes()
        cut = tmp_path / "cut.wav"
        cut.write_bytes(whole[: len(whole) // 2])
        ran = run("transcribe", cut)
        assert (ran.code, ran.out) == (1, "zero one two\n")
        one_sentence(ran, "cut.wav")

    @pytest.mark.parametrize(
        ("command", "said"),
        [
            (("transcribe", _LONG), "cannot be opened (file name too long)"),
            (("transcribe", "TALK", "--prompt", "x", "--prompt-audio", _LONG), "no such file"),
            (("transcribe", "TALK", "-o", _LONG), "cannot be made (file name too long)"),
            (
                ("transcribe", "TALK", "-o", f"{_LONG}.txt"),
                "cannot be written (file name too long)",
            ),
            (("listen", "--from", _LONG), "cannot be opened (file name too long)"),
            (("models", "info", _LONG), "neither an existing folder nor a repository"),
            (("plan", "--model", _LONG), "neither an existing folder nor a repository"),
            ((_LONG,), "is no command"),
        ],
        ids=lambda value: value[0][:10] if isinstance(value, tuple) else "",
    )
    def test_names_that_are_too_long(
        self, run: Run, speech: Speech, tmp_path: Path, command: tuple[str, ...], said: str
    ) -> None:
        talk = str(speech(tmp_path / "talk.wav"))
        ran = run(*(talk if one == "TALK" else one for one in command))
        assert ran.code in (1, 2)
        one_sentence(ran, said)

    def test_one_bad_file_does_not_stop_the_rest(
        self, run: Run, speech: Speech, tmp_path: Path
    ) -> None:
        bad = tmp_path / "b.wav"
        bad.write_bytes(b"")
        good = [speech(tmp_path / "a.wav", 0.8), speech(tmp_path / "c.wav", 1.6)]
        ran = run("transcribe", good[0], bad, good[1], "-o", tmp_path / "out")
        assert ran.code == 1
        assert (tmp_path / "out/a.txt").read_text() == "zero\n"
        assert (tmp_path / "out/c.txt").read_text() == "zero one\n"
        assert "1 of 3" in ran.err

    def test_a_terminal_is_no_recording(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        ran = run("transcribe", "-")
        assert ran.code == 1
        one_sentence(ran, "standard input is a terminal")


@pytest.mark.usefixtures("backend")
class TestOutputs:
    def test_output_folder_that_is_a_file(self, run: Run, speech: Speech, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        ran = run("transcribe", speech(tmp_path / "a.wav"), "-o", tmp_path / "out")
        assert ran.code == 1
        one_sentence(ran, "is a file")

    def test_output_folder_inside_a_file(self, run: Run, speech: Speech, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        ran = run("transcribe", speech(tmp_path / "a.wav"), "-o", tmp_path / "file/out")
        assert ran.code == 1
        one_sentence(ran, "cannot be made", "not a directory")

    def test_output_folder_without_permission(
        self, run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.access", lambda _, mode: not mode & os.W_OK)
        ran = run("transcribe", speech(tmp_path / "a.wav"), "-o", tmp_path)
        assert ran.code == 1
        one_sentence(ran, "is not writable")

    def test_what_cannot_be_written_is_printed(
        self, run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        talk = speech(tmp_path / "a.wav")
        monkeypatch.setattr(writing, "_write", full)
        ran = run("transcribe", talk, "-o", tmp_path)
        assert (ran.code, ran.out) == (1, "zero one two\n")
        one_sentence(ran, "a.txt", "no space left")

    def test_whoever_looks_sees_a_whole_file_or_none(
        self, run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stop(*_: object) -> None:
            raise OSError(5, "Input/output error")

        talk = speech(tmp_path / "a.wav")
        monkeypatch.setattr(Path, "replace", stop)
        assert run("transcribe", talk, "-o", tmp_path / "out").code == 1
        assert list((tmp_path / "out").iterdir()) == []

    def test_a_name_too_long_ends_neither_the_batch_nor_its_text(
        self, run: Run, speech: Speech, tmp_path: Path
    ) -> None:
        name_max = os.pathconf(tmp_path, "PC_NAME_MAX")
        # The second has room for its own name, and none for a longer one beside it.
        long = speech(tmp_path / ("a" * (name_max - 2) + ".c"), 0.8)
        tight = speech(tmp_path / ("b" * (name_max - 4) + ".wav"), 1.6)
        short = speech(tmp_path / "c.wav", 2.4)
        ran = run("transcribe", long, tight, short, "-o", tmp_path / "out")
        assert (ran.code, ran.out) == (1, "zero\n")
        assert "file name too long" in ran.err
        written = {path.name[0]: path.read_text() for path in (tmp_path / "out").iterdir()}
        assert written == {"b": "zero one\n", "c": "zero one two\n"}

    def test_an_error_in_the_clearing_up_does_not_hide_the_first(
        self, run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stop(*_: object, **__: object) -> None:
            raise OSError(5, "Input/output error")

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        first, last = speech(tmp_path / "a.wav", 0.8), speech(tmp_path / "b.wav", 1.6)
        monkeypatch.setattr(Path, "replace", stop)
        monkeypatch.setattr(Path, "unlink", refuse)
        ran = run("transcribe", first, last, "-o", tmp_path / "out")
        assert (ran.code, ran.out) == (1, "zero\nzero one\n")
        assert ran.err.count("input/output error") == 2

    def test_links_in_the_output_folder_are_not_followed(
        self, run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        victim, out = tmp_path / "victim", tmp_path / "out"
        victim.write_text("precious")
        out.mkdir()
        talk = speech(tmp_path / "a.wav", 0.8)
        # Even one who guesses the name of the file that is written first.
        monkeypatch.setattr("secrets.token_hex", lambda _: "0")
        for name in ("a.txt", "a.partial.txt", ".kiku-0", f".a.txt.{os.getpid()}"):
            (out / name).symlink_to(victim)
        assert run("transcribe", talk, "-o", out).code == 1
        run("transcribe", talk, "-o", out, "--force")
        assert victim.read_text() == "precious"
        assert run("transcribe", talk, "-o", out, "--force").code == 0
        assert (out / "a.txt").read_text() == "zero\n"
        assert not (out / "a.txt").is_symlink()
        assert victim.read_text() == "precious"


class TestInterruptions:
    def test_ctrl_c_keeps_what_was_printed(
        self, run: Run, speech: Speech, tmp_path: Path, backend: SimpleBackend
    ) -> None:
        backend.interrupt_at = 16
        ran = run("transcribe", speech(tmp_path / "a.wav", 4.0), speech(tmp_path / "b.wav", 4.0))
        assert ran.code == 130
        assert ran.out == f"==> {tmp_path / 'a.wav'} <==\nzero one\n"
        one_sentence(ran, "interrupted", "a.wav", "above")

    @pytest.mark.parametrize("format", ["txt", "json"])
    def test_ctrl_c_writes_what_was_heard(
        self, run: Run, speech: Speech, tmp_path: Path, backend: SimpleBackend, format: str
    ) -> None:
        backend.interrupt_at = 16
        ran = run("transcribe", speech(tmp_path / "a.wav", 4.0), "-o", tmp_path, "-f", format)
        assert ran.code == 130
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.partial.{format}", "a.wav"]
        assert "zero one" in (tmp_path / f"a.partial.{format}").read_text()
        one_sentence(ran, "interrupted", f"are in {tmp_path / 'a.partial'}.{format}")

    @pytest.mark.parametrize("more", [[], ["--skip-existing"], ["--force"]])
    def test_the_next_run_makes_whole_what_was_interrupted(
        self, run: Run, speech: Speech, tmp_path: Path, backend: SimpleBackend, more: list[str]
    ) -> None:
        backend.interrupt_at = 16
        arguments = "transcribe", speech(tmp_path / "a.wav", 4.0), "-o", tmp_path / "out", *more
        assert run(*arguments).code == 130
        backend.interrupt_at = None
        ran = run(*arguments)
        assert (ran.code, ran.err) == (0, "")
        (written,) = (tmp_path / "out").iterdir()
        assert (written.name, written.read_text()) == ("a.txt", "zero one two three four\n")

    @pytest.mark.parametrize("format", ["json", "srt"])
    def test_only_what_is_partial_says_so(
        self, run: Run, speech: Speech, tmp_path: Path, backend: SimpleBackend, format: str
    ) -> None:
        talk = speech(tmp_path / "a.wav", 4.0)
        assert "partial" not in run("transcribe", talk, "-f", format).out
        backend.interrupt_at = 16
        assert ("partial" in run("transcribe", talk, "-f", format).out) == (format == "json")

    def test_ctrl_c_keeps_the_word_that_is_open(
        self, run: Run, speech: Speech, tmp_path: Path, backend: SimpleBackend
    ) -> None:
        backend.interrupt_at = 12  # "one" came in frame 11; nothing has ended it
        ran = run("transcribe", speech(tmp_path / "a.wav", 4.0))
        assert (ran.code, ran.out) == (130, "zero one\n")

    def test_ctrl_c_before_the_first_word_leaves_no_file(
        self, run: Run, speech: Speech, tmp_path: Path, backend: SimpleBackend
    ) -> None:
        backend.interrupt_at = 0
        assert run("transcribe", speech(tmp_path / "a.wav"), "-o", tmp_path / "out").code == 130
        assert list((tmp_path / "out").iterdir()) == []

    def test_ctrl_c_while_loading(
        self, run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def load(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(kiku, "load", load)
        assert run("transcribe", speech(tmp_path / "a.wav")).code == 130

    def test_a_device_that_breaks_loses_nothing_and_gives_no_traceback(
        self, run: Run, speech: Speech, tmp_path: Path, backend: SimpleBackend
    ) -> None:
        backend.break_at = 16
        ran = run("transcribe", speech(tmp_path / "a.wav", 4.0))
        assert (ran.code, ran.out) == (1, "zero one\n")
        one_sentence(ran, "a.wav", "the device fell off the table", "KIKU_DEBUG")

    @pytest.mark.parametrize(
        "broken",
        [
            MemoryError(),
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            RuntimeError("MPS backend out of memory"),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
            ValueError("array is too big; `arr.size * arr.dtype.itemsize` is larger than"),
        ],
        ids=["python", "cuda", "mps", "cpu", "numpy"],
    )
    def test_one_recording_without_memory_does_not_stop_the_rest(
        self, run: Run, speech: Speech, tmp_path: Path, backend: SimpleBackend, broken: Exception
    ) -> None:
        backend.break_at, backend.broken = 36, broken
        long, short = speech(tmp_path / "a.wav", 4.0), speech(tmp_path / "b.wav", 0.8)
        ran = run("transcribe", long, short, "-o", tmp_path)
        assert ran.code == 1
        first, _, last = ran.err.partition("\n")
        assert first.startswith(f"kiku: {long}: there is not enough memory")
        assert "--model" in first
        assert "--dtype" in first
        assert "--device" in first
        assert last.count("\n") == 1
        assert not (tmp_path / "a.txt").exists()
        assert (tmp_path / "a.partial.txt").read_text() == "zero one two three\n"
        assert (tmp_path / "b.txt").read_text() == "zero\n"

    def test_debug_shows_the_traceback(
        self,
        speech: Speech,
        tmp_path: Path,
        backend: SimpleBackend,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        backend.break_at = 16
        with pytest.raises(RuntimeError, match="fell off"):
            main(["--debug", "transcribe", str(speech(tmp_path / "a.wav"))])
        monkeypatch.setenv("KIKU_DEBUG", "1")
        with pytest.raises(RuntimeError, match="fell off"):
            main(["transcribe", str(speech(tmp_path / "b.wav"))])

    @pytest.mark.usefixtures("backend")
    def test_a_reader_that_goes_is_no_error(
        self, run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(_: str) -> None:
            raise ReaderGone

        monkeypatch.setattr("kiku.cli.terminal.echo", gone)
        ran = run("transcribe", speech(tmp_path / "a.wav"))
        assert (ran.code, ran.err) == (141, "")


class TestMisuse:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["-f", "xml"], "xml"),
            (["-f", "all"], "-o DIR"),
            (["-f", "srt", "--words"], "needs the format txt"),
            (["--max-line-width", "-1"], "--max-line-width"),
            (["-f", "srt,docx"], "'docx' is not a format; choose from txt, json, srt,"),
            (["--speed", "9"], "--speed"),
            (["--force"], "--force: it needs files to write to; add -o DIR"),
            (
                ["--highlight-words"],
                "--highlight-words: it needs the format srt or vtt; add -f srt",
            ),
            (
                ["--max-line-width", "9", "-f", "tsv"],
                "--max-line-width: it needs the format srt or vtt",
            ),
            (
                ["--dtype", "fp16"],
                "'fp16' is not known; choose one of float32, int8, int4, int8_kv8,",
            ),
            (["--engine", "x"], "'x' is not known; choose one of auto, onnx, torch, cuda"),
        ],
    )
    def test_options_that_make_no_sense(
        self, run: Run, speech: Speech, tmp_path: Path, arguments: list[str], said: str
    ) -> None:
        ran = run("transcribe", speech(tmp_path / "a.wav"), *arguments)
        assert (ran.code, ran.out) == (2, "")
        one_sentence(ran, said, "--help")

    @pytest.mark.parametrize(
        ("option", "value", "said"),
        [
            ("--temperature", "-1", "must be at least 0, not -1;"),
            ("--temperature", "warm", "must be a number, not warm;"),
            ("--slots", "0", "must be at least 1, not 0;"),
            ("--slots", "1.5", "must be a whole number, not 1.5;"),
        ],
    )
    def test_numbers_out_of_range(self, run: Run, option: str, value: str, said: str) -> None:
        ran = run("transcribe", "a.wav", option, value)
        assert ran.code == 2
        one_sentence(ran, option, said, "--help")

    def test_several_captions_cannot_share_one_output(
        self, run: Run, speech: Speech, tmp_path: Path
    ) -> None:
        files = [speech(tmp_path / "a.wav"), speech(tmp_path / "b.wav")]
        ran = run("transcribe", *files, "-f", "srt")
        assert ran.code == 2
        one_sentence(ran, "several recordings as srt")

    @pytest.mark.parametrize("arguments", [[], ["talk"], ["transcribe"]])
    def test_commands_that_are_none(self, run: Run, arguments: list[str]) -> None:
        ran = run(*arguments)
        if arguments:
            assert ran.code == 2
            one_sentence(ran)
        else:
            assert (ran.code, ran.err) == (0, "")
            assert "transcribe" in ran.out

    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ("talk.mp3 -q", "kiku transcribe talk.mp3 -q"),
            ("-o out talk.mp3", "kiku transcribe -o out talk.mp3"),
            ("listen --speed 0 talk.wav", "kiku listen --speed 0 --from talk.wav"),
            ("transcribe --modle x talk.wav", "kiku transcribe --model x talk.wav"),
            ("transcribe --modle=x talk.wav", "kiku transcribe --model=x talk.wav"),
            ("transcribe --modle=x/y.wav a.wav", "kiku transcribe --model=x/y.wav a.wav"),
            ("listen --devce cpu", "kiku listen --device cpu"),
            ("transcribe 'my talk.wav' --ofline", "kiku transcribe 'my talk.wav' --offline"),
            ("--modle demo", "kiku transcribe RECORDING --model demo"),
            ("transcibe a.wav", "kiku transcribe a.wav"),
            ("models lst", "kiku models list"),
            ("--quite evaluate rows.jsonl", "kiku evaluate --quite rows.jsonl"),
        ],
    )
    def test_the_command_that_was_meant_is_told(self, run: Run, typed: str, meant: str) -> None:
        ran = run(*shlex.split(typed))
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.rstrip("\n").endswith(f"; did you mean  {meant}")
        one_sentence(ran)

    def test_a_recording_that_looks_like_an_option(
        self, run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        speech(tmp_path / "-lead.wav")
        ran = run("transcribe", "-lead.wav", "-q")
        assert (ran.code, ran.out) == (2, "")
        one_sentence(ran, "there is no option -l; did you mean  kiku transcribe ./-lead.wav -q\n")
        assert run("transcribe", "./-lead.wav", "-q").code == 0

    @pytest.mark.parametrize(
        ("typed", "told"),
        [
            (
                "listen --form a",
                "kiku listen has no option --form (near it: --force, --format, --from); "
                "kiku listen --help lists",
            ),
            ("listen --xyzzy a", "kiku listen has no option --xyzzy; kiku listen --help lists"),
            ("--xyzzy", "kiku has no option --xyzzy; kiku --help lists"),
            (
                "transcribe a.wav --model",
                "'--model' requires an argument; kiku transcribe --help lists",
            ),
            ("train pack a -o", "'-o' requires an argument; kiku train pack --help lists"),
            ("--debug listen --from", "'--from' requires an argument; kiku listen --help lists"),
            (
                "models info a.wav b",
                "models info does not take the further argument b; kiku models info --help",
            ),
            ("nonsense", "there is no command nonsense; kiku --help lists what there is"),
        ],
    )
    def test_where_it_cannot_be_told_the_help_is_named(
        self, run: Run, typed: str, told: str
    ) -> None:
        ran = run(*shlex.split(typed))
        assert ran.code == 2
        assert "did you mean" not in ran.err
        one_sentence(ran, told)

    @pytest.mark.parametrize(
        ("arguments", "behind"),
        [
            (["transcribe", ""], "transcribe"),
            (["transcribe", "a.wav", "-o", ""], "-o"),
            (["transcribe", "a.wav", "--output="], "--output"),
            (["listen", "--from", ""], "--from"),
            (["evaluate", ""], "evaluate"),
            (["train", "pack", "rows.jsonl", "", "-o", "pack"], "rows.jsonl"),
            (["models", "info", ""], "info"),
            ([""], "kiku"),
        ],
    )
    def test_what_is_empty_is_not_the_current_folder(
        self, run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        arguments: list[str], behind: str,
    ) -> None:  # fmt: skip
        monkeypatch.chdir(tmp_path)
        speech(tmp_path / "a.wav")
        ran = run(*arguments)
        assert (ran.code, ran.out) == (2, "")
        one_sentence(ran, f"the value after {behind} is empty")
        assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]

    def test_unknown_model(self, run: Run, speech: Speech, tmp_path: Path) -> None:
        ran = run("transcribe", speech(tmp_path / "a.wav"), "--model", "no such model")
        assert ran.code == 1
        one_sentence(ran, "no such model", "known: demo")

    def test_what_a_model_cannot_be_is_said_in_its_own_words(
        self, run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def load(*_: object, **__: object) -> None:
            raise CheckpointError("the weights are in the wash")

        monkeypatch.setattr(kiku, "load", load)
        ran = run("transcribe", speech(tmp_path / "a.wav"))
        assert (ran.code, ran.err) == (1, "kiku: the weights are in the wash\n")


def test_the_wav_maker_of_these_tests_writes_what_it_says(speech: Speech, tmp_path: Path) -> None:
    with wave.open(str(speech(tmp_path / "a.wav", 0.5))) as file:
        assert file.getnframes() == 12_000
