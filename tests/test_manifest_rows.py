"""One manifest for all commands that read one."""

import json
from pathlib import Path

import pytest

from kiku.errors import InputError
from kiku.evaluate.manifest import SpokenWord, read_manifests
from kiku.fleet.sources import find_items
from kiku.train.manifest import TimedWord, read_training_manifest

LISTS = [["one", 0.1, 0.5], ["two", 0.6, 1]]
OBJECTS = [{"text": "one", "start": 0.1, "end": 0.5}, {"word": "two", "start": 0.6, "end": 1}]


@pytest.mark.parametrize("words", [LISTS, OBJECTS])
@pytest.mark.parametrize("path", ["path", "file", "audio", "audio_filepath"])
@pytest.mark.parametrize("text", ["text", "transcript", "sentence"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_one_command_reads_the_others_read(
    tmp_path: Path, words: object, path: str, text: str, mark: str
) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    row = {
        path: "a.wav", text: "One, two.", "words": words, "duration": 1.5, "speaker": "ann",
        "id": "first", "turns": [{"start": 0, "end": 1}],
    }  # fmt: skip
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(f"{mark}{json.dumps(row)}\n\n", encoding="utf-8")

    (heard,) = find_items(manifest)
    assert (heard.path, heard.size, heard.seconds) == (str(tmp_path / "a.wav"), 4, 1.5)

    (said,) = read_manifests([manifest]).utterances
    assert (said.path, said.text, said.fields["speaker"]) == (
        tmp_path / "a.wav", "One, two.", "ann",
    )  # fmt: skip
    assert said.words == (SpokenWord("one", 0.1, 0.5), SpokenWord("two", 0.6, 1.0))

    (learnt,) = read_training_manifest(manifest)
    assert (learnt.path, learnt.text, learnt.speaker) == (tmp_path / "a.wav", "One, two.", "ann")
    assert learnt.words == (TimedWord("one", 0.1, 0.5), TimedWord("two", 0.6, 1.0))


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"start": 0, "end": 5}, r"from 0\.0 s to 5\.0 s"),
        ({"start": 5}, r"from 5\.0 s to its end"),
        ({"start": None, "end": 9}, r"from 0\.0 s to 9\.0 s"),
    ],
)
def test_parts_are_read_or_refused_and_never_taken_for_the_whole(
    tmp_path: Path, part: dict[str, float], said: str
) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    rows = [{"path": "b.wav", "text": "", "start": 0}, {"path": "a.wav", "text": "", **part}]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    wanted = part["start"] or 0, part.get("end")
    (_, one) = read_manifests([manifest]).utterances
    assert (one.start_s, one.end_s) == wanted
    (_, learnt) = read_training_manifest(manifest)
    assert (learnt.start, learnt.end) == wanted
    with pytest.raises(InputError, match=rf"m\.jsonl, line 2: means a part of a\.wav \({said}\)"):
        find_items(manifest)
    with pytest.raises(
        InputError, match=r"row 2: means a part of a\.wav .*leave start and end out"
    ):
        find_items(rows)
