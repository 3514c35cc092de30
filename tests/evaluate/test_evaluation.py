"""Manifests and a model -> figures and a report, in one call; twice; and two beside each other."""

import base64
import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest

from kiku.errors import InputError, OutputError
from kiku.evaluate import (
    Evaluation,
    HearingOptions,
    compare,
    evaluate,
    read_evaluation,
    write_report,
)
from kiku.evaluate import clips as clips_room
from kiku.evaluate.clips import data_uri, excerpts
from kiku.evaluate.hearing import HeardWord
from kiku.evaluate.picture import reliability_svg
from kiku.evaluate.report import report_tables
from kiku.evaluate.scoring import Trust
from kiku.evaluate.trust import reliability
from kiku.options import StreamOptions
from tests.evaluate.conftest import FRAME_S, Say, echo, scored

Make = Callable[..., Path]


@pytest.fixture
def dev(say: Say, manifest: Make) -> Path:
    """Three utterances with four errors, one without speech, and one that is no sound."""
    path = say("bad.wav", "one")
    path.write_bytes(b"no sound")
    rows = [
        (say("a.wav", "one two three").name, "One, two, three.", "ann"),
        (say("b.wav", "one two").name, "four two go", "bob"),
        (say("c.wav", "go go three").name, "go", "bob"),
        (say("d.wav", "").name, "", "bob"),
        (path.name, "one", "bob"),
    ]
    return manifest(*({"path": p, "text": t, "speaker": s} for p, t, s in rows))


def plain(evaluation: Evaluation) -> dict[str, object]:
    values = json.loads(json.dumps(evaluation.to_dict()))
    del values["speed"]
    return values


def test_one_call_gives_all(dev: Path) -> None:
    told: list[tuple[int, int]] = []
    found = evaluate(
        [dev], echo(), by=["speaker"], normalise="basic", on_heard=lambda *at: told.append(at)
    )
    errors = found.figures.word_errors
    assert errors is not None
    assert (errors.words, errors.substitutions, errors.deletions, errors.insertions) == (7, 1, 1, 2)
    assert found.confusions.substitutions == (("four", "one", 1),)
    bob = found.groups["speaker"]["bob"].word_errors
    assert bob is not None
    assert (bob.words, bob.rate) == (4, 1.0)
    assert [one.where for one in found.problems] == ["bad.wav"]
    assert told == [(i, 5) for i in range(1, 6)]
    assert found.settings["model"] == "echo"
    assert found.settings["options"]["calibration"] is None


def test_a_second_run_hears_what_is_left_and_says_the_same(dev: Path, tmp_path: Path) -> None:
    alone = evaluate([dev], echo(1))

    def stop(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate([dev], echo(), folder=tmp_path / "out", on_heard=stop)
    found = evaluate([dev], echo(), folder=tmp_path / "out")
    assert found.heard == 3
    assert plain(found) == plain(alone)
    # What had a problem is tried again; what has become another recording too.
    again = evaluate([dev], echo(), folder=tmp_path / "out")
    assert again.heard == 1
    assert plain(read_evaluation([dev], tmp_path / "out")) == plain(again) == plain(alone)


def test_a_recording_that_was_replaced_is_heard_again(
    say: Say, manifest: Make, tmp_path: Path
) -> None:
    say("a.wav", "one")
    path = manifest({"path": "a.wav", "text": "two two"})
    first = evaluate([path], echo(), folder=tmp_path / "out", normalise="basic")
    say("a.wav", "two two")
    second = evaluate([path], echo(), folder=tmp_path / "out", normalise="basic")
    assert [one.scored[0].errors for one in (first, second)] == [2, 0]


ROW = {"id": "x", "path": "a.wav", "text": "one two three"}


@pytest.mark.parametrize(
    "change",
    [
        {"text": "one", "end": 5 * FRAME_S},
        {"text": "two three", "start": 5 * FRAME_S},
        {"turns": [{"start": 0.0, "end": 9 * FRAME_S}]},
        {"path": "b.wav"},
    ],
)
def test_a_row_that_means_something_else_by_now_is_heard_again(
    say: Say, manifest: Make, tmp_path: Path, change: dict[str, object]
) -> None:
    paths = [say("a.wav", "one two three"), say("b.wav", "three two one")]
    assert len({path.stat().st_size for path in paths}) == 1
    before, after = manifest(ROW), manifest(ROW | change, name="after.jsonl")
    evaluate([before], echo(), folder=tmp_path / "out", normalise="basic")
    again = evaluate([after], echo(), folder=tmp_path / "out", normalise="basic")
    assert plain(again) == plain(evaluate([after], echo(), normalise="basic"))
    assert again.heard == 1
    # Nothing else is: neither what is there now, nor what was told when it was heard.
    assert evaluate([after], echo(), folder=tmp_path / "out", normalise="basic").heard == 0


def test_an_earlier_evaluation_is_of_the_same_parts_or_says_so(
    say: Say, manifest: Make, tmp_path: Path
) -> None:
    say("a.wav", "one two three", gap=60)
    say("b.wav", "go")
    first = manifest(ROW, {"path": "b.wav", "text": "go"})
    evaluate([first], echo(), folder=tmp_path / "out")
    for change, said in (
        ({"end": 0.5}, r"(end None, not 0.5)"),
        ({"start": 0.25}, r"(start 0.0, not 0.25)"),
        ({"path": "b.wav"}, r"(path 'a.wav', not 'b.wav'; size "),
        ({"turns": [{"start": 0, "end": 1}]}, r"(turns False, not True)"),
    ):
        later = manifest(ROW | change, {"path": "b.wav", "text": "go"})
        found = read_evaluation([later], tmp_path / "out")
        assert [one.utterance.id for one in found.scored] == ["b.wav"]
        (problem,) = found.problems
        assert problem.where == "x"
        assert f"was transcribed with other settings in that evaluation {said}" in problem.message


def test_an_earlier_evaluation_may_be_read_where_the_recordings_lie_elsewhere(
    say: Say, manifest: Make, tmp_path: Path
) -> None:
    path = say("a.wav", "one two three")
    turns = HearingOptions(stream=StreamOptions(turns=True))
    evaluate([manifest(ROW)], echo(), folder=tmp_path / "out", options=turns)
    (tmp_path / "moved").mkdir()
    path.rename(tmp_path / "moved" / "a.wav")
    found = read_evaluation([manifest(ROW, name="moved/dev.jsonl")], tmp_path / "out")
    assert (len(found.scored), found.problems) == (1, ())


def test_a_file_that_was_written_since_is_heard_again(
    say: Say, manifest: Make, tmp_path: Path
) -> None:
    path = say("a.wav", "one two three")
    first = evaluate([manifest(ROW)], echo(), folder=tmp_path / "out", normalise="basic")
    size = path.stat().st_size
    assert say("a.wav", "two one three").stat().st_size == size
    os.utime(path, ns=(1, 1))
    second = evaluate([manifest(ROW)], echo(), folder=tmp_path / "out", normalise="basic")
    assert [one.scored[0].errors for one in (first, second)] == [0, 2]


def test_texts_may_be_corrected_without_hearing_again(
    say: Say, manifest: Make, tmp_path: Path
) -> None:
    say("a.wav", "one two")
    row = {"path": "a.wav", "text": "one too"}
    first = evaluate([manifest(row)], echo(), folder=tmp_path / "out", normalise="basic")
    later = evaluate(
        [manifest(row | {"text": "one two"})], echo(), folder=tmp_path / "out", normalise="basic"
    )
    assert first.scored[0].errors == 1
    assert (later.scored[0].errors, later.heard) == (0, 0)


def test_what_can_be_refused_at_once_is(dev: Path, manifest: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row has a field 'accent'"):
        evaluate([dev], echo(), by=["accent"])
    with pytest.raises(InputError, match="normalise must be one of"):
        evaluate([dev], echo(), normalise="nothing")
    (tmp_path / "none.wav").write_bytes(b"none")
    with pytest.raises(InputError, match=r"none of 1 utterances could be evaluated.*none\.wav"):
        evaluate([manifest({"path": "none.wav", "text": "one"})], echo())


def test_two_evaluations_beside_each_other(dev: Path, tmp_path: Path) -> None:
    first = evaluate([dev], echo(), normalise="basic")
    better = scored("four two go", "four two go", name="b.wav")
    second = replace(first, scored=(first.scored[0], better))
    found = compare(first, second)
    assert (found.difference.utterances, found.difference.words) == (2, 6)
    assert found.difference.difference == pytest.approx(-2 / 6, abs=1e-6)
    assert (found.difference.better, found.difference.worse, found.alone) == (1, 0, 1)
    assert [pair[0].utterance.id for pair in found.pairs] == ["b.wav"]
    assert compare(first, second) == found
    with pytest.raises(InputError, match="normalised as basic and as auto"):
        compare(first, replace(second, normalise="auto"))
    other = scored("four four go", "four two go", name="b.wav")
    with pytest.raises(InputError, match=r"b\.wav: 'four two go', then 'four four go'"):
        compare(first, replace(second, scored=(other,)))
    with pytest.raises(InputError, match="no utterance in common"):
        compare(first, replace(second, scored=()))
    dots = replace(first, scored=(scored("...", "go"),))
    with pytest.raises(InputError, match=r"the 1 utterances in both .* no word to compare"):
        compare(dots, dots)
    (page,) = (p for p in write_report(second, tmp_path, comparison=found) if p.suffix == ".html")
    assert "Compared" in page.read_text()
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["comparison"]["better"] == 1


def test_a_calibration_is_made_of_words_that_had_none(dev: Path) -> None:
    found = evaluate([dev], echo())
    with pytest.raises(InputError, match="are too few"):
        found.calibration()
    with pytest.raises(InputError, match="already have a calibration"):
        replace(found, settings={"options": {"calibration": {}}}).calibration()


# The report.


class Seen(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


EVIL = '</script><script>alert(1)</script>"><img src=x onerror=alert(1)> | `a` &amp;'


def test_whatever_stands_in_a_manifest_stays_text(say: Say, manifest: Make, tmp_path: Path) -> None:
    say("a.wav", "one two")
    row = {"path": "a.wav", "text": f"one {EVIL}", "id": EVIL, "speaker": EVIL, EVIL: "x"}
    path = manifest(row, {"path": EVIL, "text": ""})
    found = evaluate([path], echo(), normalise="none", by=["speaker"])
    write_report(found, tmp_path / "out")
    seen = Seen((tmp_path / "out" / "report.html").read_text())
    assert not {"script", "img", "iframe", "link"} & set(seen.tags)
    assert "alert(1)" in seen.text
    assert all(address.startswith("data:audio/") for address in seen.addresses)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "<script" not in text
    table = text[text.index("## By speaker") :].splitlines()[2:5]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {7}


def test_every_error_can_be_heard(dev: Path, tmp_path: Path) -> None:
    found = evaluate([dev], echo())
    write_report(found, tmp_path)
    seen = Seen((tmp_path / "report.html").read_text())
    assert len(seen.addresses) == seen.tags.count("audio") == seen.tags.count("article") == 2
    for address in seen.addresses:
        kind, _, data = address.partition(";base64,")
        assert kind == "data:audio/mpeg"
        with av.open(io.BytesIO(base64.b64decode(data))) as container:
            samples = sum(frame.samples for frame in container.decode(audio=0))
        assert samples / 16_000 == pytest.approx(0.7, abs=0.25)
    write_report(found, tmp_path, page_utterances=1)
    fewer = Seen((tmp_path / "report.html").read_text())
    assert fewer.tags.count("article") == 1
    assert "1 of 2 utterances with errors" in fewer.text


def test_a_recording_that_is_gone_is_still_shown(dev: Path, tmp_path: Path) -> None:
    found = evaluate([dev], echo())
    (tmp_path / "b.wav").unlink()
    write_report(found, tmp_path / "out")
    seen = Seen((tmp_path / "out" / "report.html").read_text())
    assert seen.tags.count("article") == 2
    assert seen.tags.count("audio") == 1
    assert "It cannot be played any more" in seen.text


def test_a_report_is_the_same_twice_but_for_the_speed(dev: Path, tmp_path: Path) -> None:
    texts: list[list[str]] = []
    for name in ("a", "b"):
        paths = write_report(evaluate([dev], echo()), tmp_path / name)
        lines = [line for path in paths for line in path.read_text().splitlines()]
        clocked = ("Speed", "took_s", "real_time_factor")
        texts.append([line for line in lines if not any(word in line for word in clocked)])
    assert texts[0] == texts[1]


def test_a_report_that_cannot_be_written(dev: Path, tmp_path: Path) -> None:
    found = evaluate([dev], echo())
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(found, tmp_path / "file")


def test_of_a_long_utterance_the_places_around_errors_are_shown() -> None:
    heard = [HeardWord(f"w{i}", i, i + 0.5, 0.9, None) for i in range(60)]
    text = " ".join(f"w{i}" for i in range(60) if i not in (20, 22)) + " last"
    one = scored(text, heard, seconds=61.0)
    parts = excerpts(one)
    assert [(part.start, part.end) for part in parts] == [(18.0, 24.5), (57.5, 61.0)]
    shown = [[one.found[p.heard].text for p in part.pairs if p.heard is not None] for part in parts]
    assert shown == [[f"w{i}" for i in range(18, 25)], ["w58", "w59"]]
    assert excerpts(scored("a", "a", seconds=61.0)) == []
    (whole,) = excerpts(scored("a", "b", seconds=10.0))
    assert (whole.start, whole.end) == (0.0, 10.0)


def test_without_an_encoder_the_sound_is_a_wav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips_room, "encoded", lambda *_: b"")
    address = data_uri(np.full(1600, 0.5, np.float32), 16_000)
    data = base64.b64decode(address.removeprefix("data:audio/wav;base64,"))
    with av.open(io.BytesIO(data)) as container:
        (frame, *_) = container.decode(audio=0)
        assert int(frame.to_ndarray().max()) == round(0.5 * 32767 - 0.5)


def test_the_picture_has_a_bar_for_each_bin_that_holds_words() -> None:
    found = reliability([Trust(0.95, True), Trust(0.15, True), Trust(0.12, False)])
    assert found is not None
    picture = reliability_svg(found)
    assert picture.count("<circle") == 2
    assert "2 words of 0.1 to 0.2: said 0.135, right 0.500" in picture


def test_rows_without_the_field_are_a_group_with_a_name(say: Say, manifest: Make) -> None:
    say("a.wav", "one")
    rows = [{"path": "a.wav", "text": "one", "id": str(i)} for i in range(2)]
    found = evaluate([manifest(rows[0] | {"speaker": "ann"}, rows[1])], echo(), by=["speaker"])
    (table,) = (one for one in report_tables(found) if one.title == "By speaker")
    assert [row[:3] for row in table.rows] == [("(not said)", "1", "1"), ("ann", "1", "1")]


def test_options_reach_the_model(dev: Path) -> None:
    live = evaluate([dev], echo())
    recorded = evaluate([dev], echo(), options=HearingOptions(chunk_s=None))
    assert live.figures.own_latency is not None
    assert recorded.figures.own_latency is None
    assert live.figures.word_errors == recorded.figures.word_errors
