"""On a terminal: words flow, bars move, and neither tears the other."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from kiku.cli import progress, terminal
from kiku.cli.progress import Bars, Meter
from kiku.cli.word_output import Flow, Lines, WordTable
from kiku.text import Word, write_txt
from tests.checkpoint.models import write_native_folder
from tests.cli.conftest import Ran
from tests.cli.simple import SimpleBackend

Speech = Callable[..., Path]

_SIMPLE = """
import sys
import kiku
from kiku.cli import main
from tests.cli.simple import SimpleBackend, simple_recognizer
kiku.load = lambda model, **_: simple_recognizer(SimpleBackend(pace_s=0.02), model)
sys.exit(main(sys.argv[1:]))
"""


def _on_a_terminal(repo_root: Path, *arguments: str, **streams: int) -> tuple[int, str]:
    """Run the command with simple ears on a terminal of 70 columns; what the terminal was sent."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _SIMPLE, *arguments],
        **{"stdin": slave, "stdout": slave, "stderr": slave, **streams},  # pyright: ignore
        cwd=repo_root,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "70", "LINES": "20"},
    )
    os.close(slave)
    sent = b""
    while True:
        try:
            data = os.read(master, 65_536)
        except OSError:  # how Linux says that nobody has the terminal open any more
            break
        if not data:
            break
        sent += data
    os.close(master)
    return process.wait(timeout=30), sent.decode()


def _visible(sent: str) -> str:
    """What stands on the screen in the end."""
    lines, row = [""], 0
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", sent):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif up := re.fullmatch(r"\x1b\[(\d*)A", part):
            row -= int(up[1] or 1)
        elif part and not part.startswith(("\x1b", "\r")):
            lines[row] += part
    return "\n".join(line.rstrip() for line in lines)


def _word(index: int, start: float, text: str = "") -> Word:
    return Word(text or f"w{index}", start, start + 0.3, 0.9)


@pytest.mark.parametrize("show_class", [Lines, Flow])
@pytest.mark.parametrize("gap_s", [0.5, 1.2, 3.0])
def test_what_is_shown_is_the_text_file(
    show_class: type[Lines | Flow], gap_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [_word(i, i * gap_s, "Yes." if i % 7 == 3 else "") for i in range(60)]
    show = show_class()
    show.begin(None)
    for word in words:
        show.add(word)
    show.end()
    assert capsys.readouterr().out == write_txt(words)
    assert show.pending == ""


@pytest.mark.parametrize(
    ("output", "written"),
    [
        (Lines, "[0] a b\n[1] x y\n"),
        (Flow, "[0] a\n[1] x\n[0] b\n[1] y\n"),
        (
            WordTable,
            "     0.00      0.50   0.900  [0] a\n     0.20      0.40   0.900  [1] x\n"
            "     0.60      0.80   0.900  [0] b\n     0.70      0.90   0.900  [1] y\n",
        ),
    ],
)
def test_words_of_channels_are_marked(
    output: type[Lines | Flow | WordTable], written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = output()
    for text, start, end, channel in (
        ("a", 0.0, 0.5, 0), ("x", 0.2, 0.4, 1), ("b", 0.6, 0.8, 0), ("y", 0.7, 0.9, 1),
    ):  # fmt: skip
        one.add(Word(text, start, end, 0.9, channel))
    assert one.pending == ("[0] a b\n[1] x y" if output is Lines else "")
    one.end()
    assert capsys.readouterr().out == written


def test_words_are_seen_before_their_line_is_complete_and_bars_vanish(
    repo_root: Path, speech: Speech, tmp_path: Path
) -> None:
    talk = speech(tmp_path / "talk.wav", 4.0)
    code, sent = _on_a_terminal(repo_root, "transcribe", str(talk))
    assert code == 0
    assert re.search(r"zero one two\s", sent.split("zero one two three four")[0])
    assert re.search(r"\d\.\d s / 4\.0 s", sent)
    assert re.search(r"\d\.\dx", sent)
    assert " left" in sent
    screen = _visible(sent).split("\n")
    assert screen[:2] == ["loading demo", "zero one two three four"]
    assert screen[2].startswith("1 recording, 4.0 s in ")
    assert "".join(screen[3:]).strip() == ""


def test_quiet_words_come_one_by_one(repo_root: Path, speech: Speech, tmp_path: Path) -> None:
    talk = speech(tmp_path / "talk.wav", 1.6)
    code, sent = _on_a_terminal(repo_root, "transcribe", "--quiet", str(talk))
    assert (code, sent) == (0, "zero one\r\n")


def test_bars_leave_a_pipe_alone(repo_root: Path, speech: Speech, tmp_path: Path) -> None:
    talk = speech(tmp_path / "talk.wav", 1.6)
    with (tmp_path / "out.txt").open("w") as out:
        code, sent = _on_a_terminal(repo_root, "transcribe", str(talk), stdout=out.fileno())
    assert code == 0
    assert (tmp_path / "out.txt").read_text() == "zero one\n"
    assert "1.6 s" in sent
    assert "zero" not in sent


def test_files_are_named_when_they_are_written(
    repo_root: Path, speech: Speech, tmp_path: Path
) -> None:
    first, second = speech(tmp_path / "a.wav", 0.8), speech(tmp_path / "b.wav", 0.8)
    code, sent = _on_a_terminal(
        repo_root, "transcribe", str(first), str(second), "-f", "srt", "-o", str(tmp_path)
    )
    assert code == 0
    seen = _visible(sent)
    assert f"wrote {tmp_path / 'b.srt'}" in seen.replace("\n", "")
    assert "2 recordings, 1.6 s in" in seen
    assert re.search(r"2/2 ", sent)


def test_a_conversion_is_told_of(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIKU_CACHE", str(tmp_path / "cache"))
    folder = write_native_folder(tmp_path / "tiny")
    with (tmp_path / "out.txt").open("w") as out:
        code, sent = _on_a_terminal(
            repo_root, "models", "convert", str(folder), stdout=out.fileno()
        )
    assert code == 0
    (made,) = (tmp_path / "cache" / "onnx").iterdir()
    assert (tmp_path / "out.txt").read_text() == f"{made}\n"
    seen = _visible(sent).replace("\n", "")
    assert "converting tiny to float32 for ONNX Runtime, only once" in seen
    assert "converted tiny: 0.3 MB" in seen


def test_nothing_is_drawn_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter(quiet=False)
    meter.note("nobody sees this")
    with meter.showing([1.0]) as bars:
        bars.follow("a", 1.0, lambda: 0.5, lambda: "zero")
    assert not meter.visible
    assert capsys.readouterr() == ("", "")


def test_where_no_terminal_is_a_line_comes_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    enough = threading.Event()

    def error(message: str) -> None:
        lines.append(message)
        if len(lines) == 2:
            enough.set()

    monkeypatch.setattr(terminal, "error", error)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.01)
    with Meter(quiet=False).showing([60.0, 7200.0]) as bars:
        bars.follow("b.wav", 7200.0, lambda: 3725.0, lambda: "")
        assert enough.wait(20)
    assert re.fullmatch(r"1/2 b\.wav: 1:02:05 of 2:00:00, \d+\.\dx, .* left", lines[1])
    told = len(lines)
    with Meter(quiet=True, forced=True).showing([60.0]):
        assert not any(thread.name == "kiku-progress" for thread in threading.enumerate())
    assert len(lines) == told
    assert capsys.readouterr().out == ""


def test_notes_are_lines_where_they_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    Meter(quiet=False, forced=True).note("wrote a.txt")
    Meter(quiet=False).note("unseen")
    Meter(quiet=True, forced=True).note("unseen")
    assert capsys.readouterr().err == "kiku: wrote a.txt\n"


def test_progress_is_told_without_a_terminal(
    run: Callable[..., Ran], speech: Speech, tmp_path: Path, backend: SimpleBackend
) -> None:
    ran = run("transcribe", speech(tmp_path / "a.wav"), "-o", tmp_path, "--progress")
    lines = ran.err.splitlines()
    assert lines[:2] == ["kiku: loading demo", f"kiku: wrote {tmp_path / 'a.txt'}"]
    assert lines[2].startswith("kiku: 1 recording, 2.0 s in ")


def test_bars_count_all_recordings_and_take_names_literally() -> None:
    screen = Console(width=100, file=io.StringIO(), force_terminal=True, color_system=None)
    bars = Bars([60.0, 7200.0])
    bars.follow("a.wav", 60.0, lambda: 60.0, lambda: "")
    bars.follow("b [red].wav", 7200.0, lambda: 3725.0, lambda: "words not [bold]whole[/bold] yet")
    with screen.capture() as capture:
        screen.print(bars.render())
    shown = capture.get()
    assert "words not [bold]whole[/bold] yet" in shown
    assert "2/2 b [red].wav" in shown
    assert "1:02:05 / 2:00:00" in shown
    assert "1:03:05 / 2:01:00" in shown
