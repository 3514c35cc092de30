"""`kiku transcribe`: results on standard output and in files, in every format."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import kiku
from tests.cli.conftest import Ran
from tests.cli.simple import SimpleBackend, simple_recognizer

Run = Callable[..., Ran]
Speech = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("backend")


def test_text_goes_to_standard_output(run: Run, speech: Speech, tmp_path: Path) -> None:
    ran = run("transcribe", speech(tmp_path / "talk.wav"))
    assert (ran.code, ran.out, ran.err) == (0, "zero one two\n", "")


def test_a_dash_names_standard_output(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = speech(tmp_path / "talk.wav")
    without, dash = run("transcribe", path), run("transcribe", path, "-o", "-")
    assert (dash.code, dash.out) == (0, without.out)
    captions = run("transcribe", path, "-f", "srt", "-o", "-")
    assert captions.out.startswith("1\n00:00:")
    heard = run("listen", "--from", path, "--speed", 0, "-o", "-")
    assert heard.code == 0
    assert heard.out.split() == without.out.split()
    refused = run("transcribe", path, "-o", "-", "--force")
    assert "--force: it needs files" in refused.err
    assert "folder; name one" in run("transcribe", path, "--ray", "-o", "-").err
    assert [one.name for one in tmp_path.iterdir()] == ["talk.wav"]


def test_words_are_a_table_of_start_end_and_probability(
    run: Run, speech: Speech, tmp_path: Path
) -> None:
    ran = run("transcribe", speech(tmp_path / "talk.wav"), "--words")
    rows = [line.split() for line in ran.out.splitlines()]
    # A token speaks of the frame before it: the word in frame 1 comes as token 2.
    assert rows == [
        ["0.16", "0.24", "0.900", "zero"],
        ["0.96", "1.04", "0.900", "one"],
        ["1.76", "1.84", "0.900", "two"],
    ]


def test_several_recordings_have_headers(run: Run, speech: Speech, tmp_path: Path) -> None:
    first, second = speech(tmp_path / "b.wav", 0.8), speech(tmp_path / "a.wav", 1.6)
    ran = run("transcribe", first, second)
    assert ran.out == f"==> {first} <==\nzero\n\n==> {second} <==\nzero one\n"


def test_a_folder_is_its_recordings_by_name(run: Run, speech: Speech, tmp_path: Path) -> None:
    for name in ("b.wav", "a.WAV", "._a.wav", "notes.txt"):
        speech(tmp_path / name, 0.8)
    (tmp_path / "inner").mkdir()
    ran = run("transcribe", tmp_path, tmp_path / "b.wav")
    titles = [line for line in ran.out.splitlines() if line.startswith("==>")]
    assert titles == [f"==> {tmp_path / 'a.WAV'} <==", f"==> {tmp_path / 'b.wav'} <=="]
    assert ran.code == 0


def test_json_holds_exactly_these_keys(run: Run, speech: Speech, tmp_path: Path) -> None:
    ran = run("transcribe", speech(tmp_path / "talk.wav"), "-f", "json", "--model", "some/model")
    document = json.loads(ran.out)
    assert list(document) == ["model", "duration", "text", "words", "segments"]
    assert document["model"] == "some/model"
    assert document["duration"] == pytest.approx(2.0)
    assert document["text"] == "zero one two"
    assert document["words"][1] == {"text": "one", "start": 0.96, "end": 1.04, "probability": 0.9}


def test_json_says_what_is_wrong_with_the_sound(run: Run, speech: Speech, tmp_path: Path) -> None:
    silent = speech(tmp_path / "silent.wav", silent_s=(2.0,))
    for ran in (
        run("transcribe", silent, "-f", "json"),
        run("listen", "--from", silent, "--speed", 0, "-f", "json"),
    ):
        (warning,) = json.loads(ran.out)["warnings"]
        assert list(warning) == ["kind", "message", "time"]
        assert (warning["kind"], warning["time"]) == ("silent", 2.0)
        assert "nothing but silence" in warning["message"]


def test_several_json_documents_are_lines_and_failures_are_null(
    run: Run, speech: Speech, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("this is no sound")
    first, last = speech(tmp_path / "a.wav", 0.8), speech(tmp_path / "c.wav", 1.6)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(last.read_bytes()[:-24_000])
    ran = run("transcribe", "-f", "json", first, tmp_path / "gone.wav", bad, cut, last)
    documents = [json.loads(line) for line in ran.out.splitlines()]
    texts = [document and document["text"] for document in documents]
    assert texts == ["zero", None, None, "zero one", "zero one"]
    assert ran.code == 1


@pytest.mark.parametrize(
    ("format", "beginning"),
    [
        ("srt", "1\n00:00:00,160 --> "),
        ("vtt", "WEBVTT\n\n00:00:00.160 --> "),
        ("tsv", "start\tend\ttext\n160\t1840\tzero one two\n"),
    ],
)
def test_captions_on_standard_output(
    run: Run, speech: Speech, tmp_path: Path, format: str, beginning: str
) -> None:
    assert run("transcribe", speech(tmp_path / "a.wav"), "-f", format).out.startswith(beginning)


def test_lines_of_captions_are_as_wide_as_told(run: Run, speech: Speech, tmp_path: Path) -> None:
    talk = speech(tmp_path / "talk.wav")
    ran = run("transcribe", talk, "-f", "srt", "--max-line-width", 8, "--max-line-count", 1)
    assert [line for line in ran.out.splitlines() if line.isalpha() or " " in line][1::2] == [
        "zero one",
        "two",
    ]


@pytest.mark.parametrize("formats", [("-f", "srt,vtt"), ("-f", "srt", "-f", "vtt")])
def test_several_formats_go_into_the_folder(
    run: Run, speech: Speech, tmp_path: Path, formats: tuple[str, ...]
) -> None:
    talk, out = speech(tmp_path / "talk.wav"), tmp_path / "out"
    assert run("transcribe", talk, *formats, "-o", out).code == 0
    assert sorted(path.name for path in out.iterdir()) == ["talk.srt", "talk.vtt"]
    ran = run("transcribe", talk, *formats)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "several formats need a folder; add -o DIR" in ran.err


def test_one_recording_goes_into_the_file_that_is_named(
    run: Run, speech: Speech, tmp_path: Path
) -> None:
    talk, words = speech(tmp_path / "talk.wav"), tmp_path / "new" / "words.SRT"
    assert run("transcribe", talk, "-o", words).code == 0
    assert [path.name for path in words.parent.iterdir()] == ["words.SRT"]
    assert words.read_text().startswith("1\n00:00:00,160 --> ")
    assert "already exists" in run("transcribe", talk, "-o", words).err
    assert run("transcribe", talk, "-o", words, "-f", "srt", "--force").code == 0
    (tmp_path / "folder.txt").mkdir()  # what is a folder stays one
    assert run("transcribe", talk, "-o", tmp_path / "folder.txt").code == 0
    assert (tmp_path / "folder.txt" / "talk.txt").read_text() == "zero one two\n"


def test_a_file_that_cannot_hold_what_was_asked_for(
    run: Run, speech: Speech, tmp_path: Path
) -> None:
    talks = [speech(tmp_path / name) for name in ("a.wav", "b.wav")]
    ran = run("transcribe", *talks, "-o", tmp_path / "out.txt")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "is one file for one recording, but there are 2" in ran.err
    ran = run("transcribe", talks[0], "-o", tmp_path / "out.txt", "-f", "json")
    assert ran.code == 2
    assert "is one txt file; name a folder for json" in ran.err


def test_words_are_underlined_in_captions(run: Run, speech: Speech, tmp_path: Path) -> None:
    talk = speech(tmp_path / "talk.wav", 0.8)
    ran = run("transcribe", talk, "-f", "srt", "--highlight-words")
    assert ran.out.startswith("1\n00:00:00,160 --> 00:00:00,240\n<u>zero</u>\n\n2\n")


def test_all_formats_go_into_the_folder(run: Run, speech: Speech, tmp_path: Path) -> None:
    ran = run("transcribe", speech(tmp_path / "talk.mp3.wav"), "-f", "all", "-o", tmp_path / "a/b")
    assert (ran.code, ran.out) == (0, "")
    written = sorted(path.name for path in (tmp_path / "a/b").iterdir())
    assert written == [f"talk.mp3.{ending}" for ending in ("json", "srt", "tsv", "txt", "vtt")]
    assert (tmp_path / "a/b/talk.mp3.txt").read_text() == "zero one two\n"


def test_words_also_shape_the_txt_file(run: Run, speech: Speech, tmp_path: Path) -> None:
    run("transcribe", speech(tmp_path / "talk.wav", 0.8), "--words", "-o", tmp_path)
    assert (tmp_path / "talk.txt").read_text().split() == ["0.16", "0.24", "0.900", "zero"]


def test_files_that_exist_are_kept_unless_forced(run: Run, speech: Speech, tmp_path: Path) -> None:
    talk, text = speech(tmp_path / "talk.wav"), tmp_path / "talk.txt"
    text.write_text("precious\n")
    ran = run("transcribe", talk, "-o", tmp_path)
    assert ran.code == 1
    assert ran.err == f"kiku: {text} already exists; overwrite it with --force\n"
    assert text.read_text() == "precious\n"
    assert run("transcribe", talk, "-o", tmp_path, "--force").code == 0
    assert text.read_text() == "zero one two\n"


def test_what_is_done_is_left_out(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech(tmp_path / "a.wav"), speech(tmp_path / "b.wav", 0.8)
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.txt").write_text("precious\n")
    arguments = "transcribe", tmp_path, "-o", out, "--skip-existing"
    ran = run(*arguments)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    texts = {path.name: path.read_text() for path in out.iterdir()}
    assert texts == {"a.txt": "precious\n", "b.txt": "zero\n"}
    ran = run(*arguments, "-f", "all")  # what is missing of it is made, and nothing else
    assert ran.code == 0
    assert len(list(out.iterdir())) == 10
    assert (out / "a.txt").read_text() == "precious\n"
    monkeypatch.setattr(kiku, "load", None)  # nothing is loaded where nothing is left
    assert run(*arguments).code == 0
    assert run(*arguments, tmp_path / "gone.wav").code == 1


def test_what_another_run_has_done_meanwhile_is_left_out(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk, text = speech(tmp_path / "talk.wav"), tmp_path / "talk.txt"

    def load(model: str, **_: object) -> kiku.Recognizer:
        text.write_text("by another\n")
        return simple_recognizer(SimpleBackend(), model)

    monkeypatch.setattr(kiku, "load", load)
    assert run("transcribe", talk, "-o", tmp_path, "--skip-existing").code == 0
    assert text.read_text() == "by another\n"


def test_folders_inside_a_folder_come_out_as_they_lie(
    run: Run, speech: Speech, tmp_path: Path
) -> None:
    for name in ("day1", "day2/late"):
        (tmp_path / "in" / name).mkdir(parents=True)
        speech(tmp_path / "in" / name / "talk.wav", 0.8)
    assert run("transcribe", "-r", tmp_path / "in", "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out/day1/talk.txt").read_text() == "zero\n"
    assert (tmp_path / "out/day2/late/talk.txt").read_text() == "zero\n"


@pytest.mark.parametrize("arguments", [("--skip-existing",), ("--skip-existing", "--force", "-o")])
def test_leaving_out_is_about_files_and_no_overwriting(
    run: Run, speech: Speech, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    more = (tmp_path,) if arguments[-1] == "-o" else ()
    ran = run("transcribe", speech(tmp_path / "a.wav"), *arguments, *more)
    assert ran.code == 2
    assert "--skip-existing" in ran.err


def test_recordings_of_one_name_keep_their_endings(
    run: Run, speech: Speech, tmp_path: Path
) -> None:
    speech(tmp_path / "talk.wav", 0.8)
    speech(tmp_path / "Talk.mp3", 1.6)
    assert run("transcribe", tmp_path, "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out/talk.wav.txt").read_text() == "zero\n"
    assert (tmp_path / "out/Talk.mp3.txt").read_text() == "zero one\n"


def test_one_name_in_two_folders_is_refused_before_anything_happens(
    run: Run, speech: Speech, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        speech(tmp_path / name / "talk.wav")
    ran = run("transcribe", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out")
    assert ran.code == 2
    assert "would both be written" in ran.err
    assert not (tmp_path / "out").exists()


def test_standard_input(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = speech(tmp_path / "talk.wav").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run("transcribe", "-", "-f", "json", "-o", tmp_path).code == 0
    assert json.loads((tmp_path / "stdin.json").read_text())["text"] == "zero one two"


def test_text_comes_while_the_recording_is_still_read(
    speech: Speech, tmp_path: Path, backend: SimpleBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe gets each line as soon as it is complete, not all at the end."""
    from kiku.cli import main, terminal

    heard_at: list[tuple[str, int]] = []
    monkeypatch.setattr(terminal, "echo", lambda text: heard_at.append((text, backend.num_heard)))
    assert main(["transcribe", str(speech(tmp_path / "talk.wav", 40.0))]) == 0
    assert len(heard_at) == 3
    lengths = [len(text.split()) for text, _ in heard_at]
    assert sum(lengths) == 50
    assert heard_at[0][1] < 220
    assert heard_at[1][1] < 420


def test_what_is_said_of_the_engine_is_passed_on(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def load(model: str, **values: object) -> object:
        asked.update(values, model=model)
        return simple_recognizer(SimpleBackend(), model)

    monkeypatch.setattr(kiku, "load", load)
    talk = speech(tmp_path / "talk.wav", 0.8)
    assert run("transcribe", talk, "--engine", "onnx", "--dtype", "int4", "--threads", 3).code == 0
    assert asked == {
        "model": "demo", "engine": "onnx", "device": None, "dtype": "int4", "threads": 3,
        "revision": None, "slots": 1,
    }  # fmt: skip
    assert run("transcribe", talk, "--threads", 0).code == 2


def test_a_recording_that_is_too_long_is_stopped(
    speech: Callable[..., Path], run: Callable[..., Ran], backend: SimpleBackend, tmp_path: Path
) -> None:
    talk = speech(tmp_path / "a.wav", 30.0)
    ran = run("transcribe", talk, "--max-duration", "10")
    assert ran.code == 1
    assert ran.out.startswith("zero one")
    assert "longer than 10 seconds" in ran.err
    assert "longer than 10 seconds: raise --max-duration to have the rest" in ran.err
    late = run("transcribe", talk, "--start", "100")
    assert "give an earlier --start\n" in late.err
    assert run("transcribe", talk, "--max-duration", "0").code == 2
