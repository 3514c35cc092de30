"""Manifests become shards: what is in them, what was dropped, and that a kill changes nothing."""

import json
import os
import subprocess
import sys
import weakref
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from kiku.checkpoint import Loaded, load
from kiku.cli import main
from kiku.errors import ConfigError, TrainingError
from kiku.nn.state import all_active
from kiku.train import sounds
from kiku.train.align import align
from kiku.train.atomic_files import locked_folder
from kiku.train.augment import Augmentation
from kiku.train.examples import Packer, PackOptions
from kiku.train.folders import read_rows
from kiku.train.pack import pack
from kiku.train.shards import PackReader, read_index
from kiku.train.vocab import VocabOptions, make_vocabulary
from tests.train.recordings import RATE, spoken, write_corpus, write_manifest, write_wav


def all_of(folder: Path, split: str = "train") -> list:
    reader = PackReader(folder, split)
    return [reader[i] for i in range(len(reader))]


def same(one: list, two: list) -> bool:
    return len(one) == len(two) and all(
        np.array_equal(a.codes, b.codes)
        and np.array_equal(a.text, b.text)
        and np.array_equal(a.pauses, b.pauses)
        and a.about == b.about
        for a, b in zip(one, two, strict=True)
    )


def test_codes_and_text_of_a_recording(loaded: Loaded, tmp_path: Path) -> None:
    words = [("one", 0.4, 0.7), ("go", 1.2, 1.5)]
    sound = spoken(words, 2.0)
    write_wav(tmp_path / "a.wav", sound)
    path = write_manifest(tmp_path, [{"path": "a.wav", "words": words, "speaker": "ann"}])
    done = pack(read_rows(path), loaded, tmp_path / "pack", PackOptions())
    assert done.examples == {"train": 1}
    (example,) = all_of(tmp_path / "pack")
    # 2.0 s of sound and 0.5 s for the text to come out: 32 frames of 80 samples
    assert example.codes.shape == (4, 32)
    heard = np.zeros(32 * 80, np.float32)
    heard[:2000] = np.rint(sound * 32767) / 32768
    state = loaded.codec.init_state(1, "cpu", torch.float32)
    with torch.no_grad():
        codes = loaded.codec(torch.from_numpy(heard).view(1, 1, -1), state, all_active(1))
    assert (codes[0].numpy() == example.codes).mean() > 0.95  # 16 bits round a little
    one, go = loaded.vocabulary.encode("one"), loaded.vocabulary.encode("go")
    text = [-1] * 6 + [3] * 26
    first, second = int(0.9 * 12.5), int(1.7 * 12.5)
    text[first - 1 : first + 1] = [0, *one]
    text[second - 1 : second + 1] = [0, *go]
    assert example.text.tolist() == text
    assert example.pauses[6].tolist() == [1, 1, 1, 1]
    assert example.about["text"] == "one go"
    assert example.about["speaker"] == "ann"


def test_the_sound_is_kept_where_it_is_asked_for(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the codes are those of the very sound that is kept, in copies as well."""
    rows = read_rows(write_corpus(tmp_path, 3, seconds=2.0))
    changes = Augmentation(copies=1, gain_db=(20.0, 20.0), noisy=0.0, join=2)
    options = PackOptions(augmentation=changes)
    pack(rows, loaded, tmp_path / "silent", options)
    heard, real = list[np.ndarray](), Packer.codes

    def codes_of(self: Packer, samples: np.ndarray) -> np.ndarray:
        heard.append(samples)
        return real(self, samples)

    with monkeypatch.context() as patch:
        patch.setattr(Packer, "codes", codes_of)
        pack(rows, loaded, tmp_path / "p", replace(options, sound=True))
    reader = PackReader(tmp_path / "p")
    assert reader.has_sound
    assert not PackReader(tmp_path / "silent").has_sound
    for i, example in enumerate(all_of(tmp_path / "p")):
        sound = reader.sound(i)
        assert example.sound is not None
        assert np.array_equal(example.sound, sound * 32768)
        assert np.array_equal(heard[i], sound)
        assert len(sound) == 80 * example.codes.shape[1]
        assert 0.1 < np.abs(sound).max() < 1.0
        state = loaded.codec.init_state(1, "cpu", torch.float32)
        with torch.no_grad():
            codes = loaded.codec(torch.from_numpy(sound).view(1, 1, -1), state, all_active(1))
        assert np.array_equal(codes[0].numpy(), example.codes)
    for one, two in zip(all_of(tmp_path / "p"), all_of(tmp_path / "silent"), strict=True):
        assert np.array_equal(one.text, two.text)
        assert (one.codes == two.codes).mean() > 0.9  # 16 bits round a little
        assert two.sound is None
    for folder, asked in (("p", False), ("silent", True)):
        with pytest.raises(TrainingError, match=f"another sound .{not asked}, now {asked}.:"):
            pack(rows, loaded, tmp_path / folder, replace(options, sound=asked))


def test_long_recordings_go_through_the_codec_in_parts(loaded: Loaded, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", spoken([("one", 3.0, 17.0)], 20.0))
    path = write_manifest(tmp_path, [{"path": "a.wav", "words": []}])
    pack(read_rows(path), loaded, tmp_path / "pack", PackOptions())
    (example,) = all_of(tmp_path / "pack")
    assert example.codes.shape[1] == 257
    assert len(np.unique(example.codes[0])) > 2


def test_the_silence_before_is_the_models(loaded: Loaded, tmp_path: Path) -> None:
    from dataclasses import replace

    write_wav(tmp_path / "a.wav", spoken([("one", 0.4, 0.7)], 1.0))
    path = write_manifest(tmp_path, [{"path": "a.wav", "words": [["one", 0.4, 0.7]]}])
    prefixed = replace(loaded, config=replace(loaded.config, silence_prefix_s=1.0))
    pack(read_rows(path), prefixed, tmp_path / "pack", PackOptions(lead="pad"))
    (example,) = all_of(tmp_path / "pack")
    assert np.flatnonzero(example.text == 0).tolist() == [int(1.9 * 12.5) - 1]
    write_wav(tmp_path / "b.wav", np.zeros(1000, np.float32))
    still = read_rows(write_manifest(tmp_path, [{"path": "b.wav", "words": []}]))
    pack(still, prefixed, tmp_path / "still", PackOptions(lead="pad"))
    silence = all_of(tmp_path / "still")[0].codes
    assert np.array_equal(example.codes[:, :12], silence[:, :12])
    assert not np.array_equal(example.codes[:, 12:25], silence[:, 12:25])
    assert example.pauses[12:18, 0].tolist() == [0] * 6
    assert example.pauses[18, 0] == 1


def test_what_is_dropped_is_named(loaded: Loaded, tmp_path: Path) -> None:
    write_wav(tmp_path / "good.wav", spoken([("one", 0.4, 0.7)], 1.0))
    write_wav(tmp_path / "empty.wav", np.zeros(0, np.float32))
    write_wav(tmp_path / "tiny.wav", np.zeros(30, np.float32))
    (tmp_path / "text.wav").write_text("this is not sound")
    rows = [
        {"path": "good.wav", "words": [["one", 0.4, 0.7]]},
        {"path": "none.wav", "words": [["one", 0.4, 0.7]]},
        {"path": "empty.wav", "words": []},
        {"path": "tiny.wav", "words": []},
        {"path": "text.wav", "words": []},
        {"path": "good.wav"},
        {"path": "good.wav", "words": [["one", 0.6, 0.7], ["two", 0.1, 0.2]]},
        {"path": "good.wav", "start": 0.1, "words": [["sieben", 0.4, 0.7]]},
        {"path": "good.wav", "start": 0.2, "words": [["one", 7.4, 7.7]]},
    ]
    path = write_manifest(tmp_path, rows)
    how = Augmentation(copies=1)
    done = pack(read_rows(path), loaded, tmp_path / "pack", PackOptions(augmentation=how))
    said = [f"{Path(one.row).name}: {one.why}" for one in done.index.dropped]
    assert len(said) == 8
    for part, line in zip(
        (
            "none.wav: ", "empty.wav: ", "tiny.wav: shorter than one frame", "text.wav: ",
            "good.wav: no transcript", "out of order: 'two'", "cannot spell 'sieben'",
            "'one' begins 6.40 s after",
        ), said, strict=True,
    ):  # fmt: skip
        assert part in line
    # the good row, and a copy of that alone
    assert done.examples == {"train": 2}


def test_copies_differ_and_are_of_train_only(loaded: Loaded, tmp_path: Path) -> None:
    path = write_corpus(tmp_path, 4, dev=2)
    how = Augmentation(copies=2, join=3, silence_s=(0.1, 0.3))
    done = pack(read_rows(path), loaded, tmp_path / "pack", PackOptions(augmentation=how))
    assert not done.index.dropped
    assert done.examples["dev"] == 2
    examples = all_of(tmp_path / "pack")
    plain, copies = examples[:4], examples[4:]
    said = [one.about["text"].split() for one in plain]
    again = [one.about["text"].split() for one in copies]
    assert sum(map(len, again)) == 2 * sum(map(len, said))
    assert max(map(len, again)) > max(map(len, said))
    pieces = sorted(token for one in copies for token in one.text.tolist() if token > 3)
    assert pieces == sorted(t for one in plain for t in one.text.tolist() * 2 if t > 3)


def test_one_at_a_time_writes_into_a_pack(loaded: Loaded, tmp_path: Path) -> None:
    rows = read_rows(write_corpus(tmp_path, 1))
    with (
        locked_folder(tmp_path / "pack"),
        pytest.raises(TrainingError, match="another run writes to"),
    ):
        pack(rows, loaded, tmp_path / "pack", PackOptions())
    assert pack(rows, loaded, tmp_path / "pack", PackOptions()).examples == {"train": 1}


def test_a_recording_is_never_held_whole(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where it is changed: when a piece is made, those before it are gone."""
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0
    pieces = sounds.pieces_of

    def watched(*given):
        nonlocal most
        for piece in pieces(*given):
            alive.append(weakref.ref(piece.samples))
            most = max(most, sum(one() is not None for one in alive))
            yield piece

    monkeypatch.setattr("kiku.train.examples.pieces_of", watched)
    write_wav(tmp_path / "a.wav", spoken([], 40.0))
    rows = read_rows(write_manifest(tmp_path, [{"path": "a.wav", "words": []}]))
    options = PackOptions(augmentation=Augmentation(copies=1), most_s=2.0)
    done = pack(rows, loaded, tmp_path / "pack", options)
    assert len(alive) == 40
    assert done.examples["train"] >= 40
    assert most <= 3


def test_a_long_recording_is_written_shard_by_shard(loaded: Loaded, tmp_path: Path) -> None:
    """Its copies, too; what stopped in the middle goes on there, and ends as the whole."""
    write_wav(tmp_path / "a.wav", spoken([("one", 3.2, 3.5), ("go", 9.2, 9.5)], 20.0))
    rows = read_rows(write_manifest(tmp_path, [{"path": "a.wav", "words": []}]))
    options = PackOptions(most_s=2.0, shard_s=5.0, augmentation=Augmentation(copies=1, join=2))
    whole = pack(rows, loaded, tmp_path / "whole", options)
    assert max(shard.frames for shard in whole.index.shards) < 2 * 5.0 * 12.5
    told = list[tuple[int, int, float]]()

    def stop(*progress: float) -> None:
        told.append(progress)
        if len(told) % 8 == 0:
            raise KeyboardInterrupt

    for _ in range(5):
        with suppress(KeyboardInterrupt):
            pack(rows, loaded, tmp_path / "parts", options, on_progress=stop)
    assert [done for done, _, _ in told[:9]] == [0] * 9
    assert told[0][2] < told[1][2]
    pack(rows, loaded, tmp_path / "parts", options)
    files = {p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir()}
    assert files == {p.name: p.read_bytes() for p in (tmp_path / "parts").iterdir()}


@pytest.mark.parametrize(("shard_s", "kept"), [(3600.0, 0), (5.0, 9)])
def test_a_fault_late_in_a_long_recording(
    loaded: Loaded, tmp_path: Path, shard_s: float, kept: int
) -> None:
    """Nothing of the row is kept but what is in a shard by then, and this is told."""
    words = [("one", 0.4, 0.7), *(("go", float(at), at + 0.5) for at in range(1, 20)),
             ("one", 27.0, 27.2)]  # fmt: skip
    write_wav(tmp_path / "a.wav", spoken([], 20.0))
    rows = [{"path": "a.wav", "words": [["one", 0.4, 0.7]]}, {"path": "a.wav", "words": words}]
    options = PackOptions(most_s=2.0, shard_s=shard_s)
    done = pack(read_rows(write_manifest(tmp_path, rows)), loaded, tmp_path / "pack", options)
    (dropped,) = done.index.dropped
    assert dropped.why.startswith("'one' begins 7.00 s after the end of the sound")
    assert dropped.why.endswith(f"(its first {kept} examples are kept)") == bool(kept)
    assert done.examples == {"train": 10 + kept}
    assert sum(len(one.text) for one in all_of(tmp_path / "pack")) == round(done.seconds * 12.5)


def test_a_joined_copy_is_no_longer_than_may_be(loaded: Loaded, tmp_path: Path) -> None:
    path = write_corpus(tmp_path, 6, seconds=2.0)
    how = Augmentation(copies=1, join=6, speed=(1, 1))
    options = PackOptions(augmentation=how, most_s=4.5, seed=3)
    pack(read_rows(path), loaded, tmp_path / "pack", options)
    assert max(len(one.text) for one in all_of(tmp_path / "pack")) <= 5.1 * 12.5


def test_a_kill_changes_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    """A real SIGKILL after five units; the next run goes on from the last whole shard."""
    path = write_corpus(tmp_path / "corpus", 8, dev=1)
    path.write_text('{"path": "none.wav", "words": []}\n' + path.read_text())
    options = "PackOptions(shard_s=9.0, augmentation=Augmentation(copies=1, join=2))"
    program = f"""
import os, signal
from pathlib import Path
from kiku.checkpoint import load
from kiku.train.augment import Augmentation
from kiku.train.examples import Packer, PackOptions
from kiku.train.folders import read_rows
from kiku.train.pack import pack
def told(done, of, seconds):
    if done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
pack(read_rows(Path({str(path)!r})), load({str(tiny_folder)!r}), Path({str(tmp_path / "killed")!r}),
     {options}, on_progress=told)
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -9
    index = read_index(tmp_path / "killed")
    assert index is not None
    assert 0 < index.next_unit < 5
    with pytest.raises(TrainingError, match="is not finished"):
        PackReader(tmp_path / "killed")
    how = Augmentation(copies=1, join=2)
    wanted = PackOptions(shard_s=9.0, augmentation=how)
    rows, model = read_rows(path), load(tiny_folder)
    again = pack(rows, model, tmp_path / "killed", wanted)
    assert again.resumed_at == index.next_unit
    assert len(again.index.dropped) == 1  # once, although its copy comes after the kill
    pack(rows, model, tmp_path / "whole", wanted)
    for split in ("train", "dev"):
        assert same(all_of(tmp_path / "killed", split), all_of(tmp_path / "whole", split))
    files = {p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir()}
    assert files == {p.name: p.read_bytes() for p in (tmp_path / "killed").iterdir()}
    assert len(files) > 4


def test_a_finished_pack_is_left_alone(loaded: Loaded, tmp_path: Path) -> None:
    rows = read_rows(write_corpus(tmp_path, 2))
    pack(rows, loaded, tmp_path / "pack", PackOptions())
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "pack").iterdir()}
    done = pack(rows, loaded, tmp_path / "pack", PackOptions())
    assert done.examples == {"train": 2}
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "pack").iterdir()} == before
    with pytest.raises(TrainingError, match=r"another delay_s \(0\.5, now 1\.0\)"):
        pack(rows, loaded, tmp_path / "pack", PackOptions(delay_s=1.0))
    with pytest.raises(TrainingError, match="another manifest"):
        pack(rows[:1], loaded, tmp_path / "pack", PackOptions())
    with pytest.raises(TrainingError, match=r"another augmentation \(None, now {"):
        pack(rows, loaded, tmp_path / "pack", PackOptions(augmentation=Augmentation()))
    sound, index = rows[0].path, tmp_path / "pack" / "pack.json"
    os.utime(sound, ns=(0, sound.stat().st_mtime_ns + 1))
    with pytest.raises(TrainingError, match=r"begun with other recordings of the same names"):
        pack(rows, loaded, tmp_path / "pack", PackOptions())
    older = json.loads(index.read_text())
    del older["recordings"]
    index.write_text(json.dumps(older))
    assert pack(rows, loaded, tmp_path / "pack", PackOptions()).examples == {"train": 2}


def test_what_of_the_changes_is_another_is_named(loaded: Loaded, tmp_path: Path) -> None:
    rows = read_rows(write_corpus(tmp_path, 1, seconds=1.0))
    once = Augmentation(copies=1, join=2)
    pack(rows, loaded, tmp_path / "pack", PackOptions(augmentation=once))
    said = r"another augmentation\.copies \(1, now 2\), augmentation\.join \(2, now 3\): pack into"
    other = PackOptions(augmentation=replace(once, copies=2, join=3))
    with pytest.raises(TrainingError, match=said):
        pack(rows, loaded, tmp_path / "pack", other)


def test_damage_is_found(loaded: Loaded, tmp_path: Path) -> None:
    pack(read_rows(write_corpus(tmp_path, 2)), loaded, tmp_path / "pack", PackOptions())
    shard = tmp_path / "pack" / "train-00000.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(TrainingError, match="its checksum is not the one"):
        PackReader(tmp_path / "pack")
    shard.unlink()
    with pytest.raises(TrainingError, match="no such file"):
        PackReader(tmp_path / "pack")
    (tmp_path / "pack" / "pack.json").write_text("{")
    with pytest.raises(TrainingError, match="is damaged"):
        PackReader(tmp_path / "pack")
    (tmp_path / "pack" / "pack.json").unlink()
    with pytest.raises(TrainingError, match="is not a pack"):
        PackReader(tmp_path / "pack")


def test_a_full_disk_keeps_what_was_finished(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_rows(write_corpus(tmp_path, 6))
    options = PackOptions(shard_s=4.0)
    written = 0

    def save(arrays: object, path: Path, metadata: object) -> None:
        nonlocal written
        written += 1
        if written == 3:
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        real(arrays, path, metadata)

    import kiku.train.shards as shards

    real = shards.save_file
    monkeypatch.setattr(shards, "save_file", save)
    with pytest.raises(TrainingError, match=r"cannot be written \(no space left on device\): make"):
        pack(rows, loaded, tmp_path / "pack", options)
    done = pack(rows, loaded, tmp_path / "pack", options)
    assert done.resumed_at == 4
    assert done.examples == {"train": 6}
    assert not list((tmp_path / "pack").glob(".kiku-*"))


def test_the_command(
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_corpus(tmp_path, 2, dev=1)
    with path.open("a") as file:
        file.write('{"path": "none.wav", "words": []}\n')
    arguments = ["train", "pack", str(path), "-o", str(tmp_path / "p"), "--model", str(tiny_folder)]
    monkeypatch.setattr("kiku.cli.train._LINE_EVERY_S", 0.0)
    assert main([*arguments, "--delay", "1"]) == 1  # a row was dropped
    said, progress = capsys.readouterr()
    assert progress.startswith("kiku: packed 0 of 4, 0.00 h of sound")  # before a row is whole
    assert said.startswith("4 rows -> dev 1, train 2 examples, 0.003 h of sound")
    assert "dropped 1 rows:" in said
    assert "none.wav" in said
    assert json.loads((tmp_path / "p" / "pack.json").read_text())["settings"]["delay_s"] == 1.0
    path.write_text(path.read_text().splitlines()[0])
    assert main([*arguments[:4], str(tmp_path / "whole"), *arguments[5:]]) == 0
    text = tmp_path / "text.jsonl"
    text.write_text('{"path": "000.wav", "text": "one"}\n')
    refused = ["train", "pack", str(text), "-o", str(tmp_path / "q"), "--model", str(tiny_folder)]
    assert main(refused) == 1
    assert "no times of its words" in capsys.readouterr().err
    assert main([*refused, "--lead", "x"]) == 2


def test_speakers_in_two_splits(loaded: Loaded, tmp_path: Path) -> None:
    path = write_corpus(tmp_path, 1)
    with path.open("a") as file:
        file.write('{"path": "000.wav", "words": [], "speaker": "s0", "split": "dev"}\n')
    with pytest.raises(TrainingError, match=r"two splits: s0 \(dev and train\)"):
        pack(read_rows(path), loaded, tmp_path / "pack", PackOptions())
    path.write_text(path.read_text().replace('"s0"', "null"))
    said = "000.wav is in two splits, train and dev: put each part"
    with pytest.raises(TrainingError, match=said):
        pack(read_rows(path), loaded, tmp_path / "pack", PackOptions())
    with pytest.raises(TrainingError, match=said):  # before anything is learned
        align(read_rows(path), loaded)
    with pytest.raises(TrainingError, match=said):  # before a model is loaded
        make_vocabulary(read_rows(path), "none", tmp_path / "m", VocabOptions())
    assert loaded.config.sample_rate == RATE


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 3601.0, -1.0])
def test_seconds_with_which_nothing_could_be_packed(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"delay_s \(--delay\) must be from 0 to 3600 seconds"):
        PackOptions(delay_s=seconds)
    with pytest.raises(ConfigError, match=r"most_s \(--most-s\) must be from 1 to 3600 seconds"):
        PackOptions(most_s=seconds)
