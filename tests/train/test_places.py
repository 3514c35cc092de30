"""A model and a pack go into folders of their own: nothing that is there is replaced or joined."""

from pathlib import Path

import pytest

from kiku.checkpoint import Loaded
from kiku.cli import main
from kiku.errors import TrainingError
from kiku.train.examples import PackOptions
from kiku.train.folders import read_rows
from kiku.train.pack import pack
from kiku.train.places import refuse_no_pack, refuse_taken
from kiku.train.vocab import VocabOptions, make_vocabulary
from tests.train.recordings import write_corpus, write_manifest


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_where_a_model_can_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_taken(tmp_path / "new" / "one")
    refuse_taken(tmp_path)
    # What is left by a run that was killed.
    (tmp_path / "model.safetensors").touch()
    (tmp_path / ".kiku-0123456789abcdef").touch()
    refuse_taken(tmp_path)
    (tmp_path / "talk.wav").touch()
    with pytest.raises(TrainingError, match=r"no model \(talk.wav\): choose another folder"):
        refuse_taken(tmp_path)
    (tmp_path / "talk.wav").unlink()
    for name in ("config.json", "adapter_config.json"):
        (tmp_path / name).touch()
        with pytest.raises(TrainingError, match="holds a model already, which is not replaced"):
            refuse_taken(tmp_path)
        (tmp_path / name).unlink()
    for below in ("", "x/y"):
        with pytest.raises(TrainingError, match=r"model\.safetensors is a file"):
            refuse_taken(tmp_path / "model.safetensors" / below)
    with pytest.raises(TrainingError, match="cannot be made"):
        refuse_taken(tmp_path / ("x" * 300))
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(TrainingError, match="nothing may be written"):
        refuse_taken(tmp_path / "x")


def test_where_a_pack_can_go(tmp_path: Path) -> None:
    for name in ("pack.json", ".lock", "train-00000.safetensors", "my.dev-00012.safetensors"):
        (tmp_path / name).touch()
    refuse_no_pack(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(TrainingError, match=r"what is no pack \(model.safetensors\)"):
        refuse_no_pack(tmp_path)


def test_a_model_that_is_there_stays(loaded: Loaded, tiny_folder: Path, tmp_path: Path) -> None:
    before = contents(tiny_folder)
    rows = read_rows(write_manifest(tmp_path, [{"path": "a.wav", "text": "bonjour"}]))
    with pytest.raises(TrainingError, match="holds a model already"):
        make_vocabulary(rows, str(tiny_folder), tiny_folder, VocabOptions())
    rows = read_rows(write_corpus(tmp_path, 1, seconds=1.0))
    with pytest.raises(TrainingError, match="what is no pack"):
        pack(rows, loaded, tiny_folder, PackOptions())
    assert contents(tiny_folder) == before


def test_commands_look_before_they_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kiku.checkpoint.load", None)
    monkeypatch.setattr("kiku.train.vocab.load", None)
    manifest = write_corpus(tmp_path, 1, seconds=1.0)
    for command, what in (("vocab", "model"), ("pack", "pack")):
        assert main(["train", command, str(manifest), "-o", str(tmp_path)]) == 1
        assert f"{tmp_path} holds what is no {what} (000.wav, " in capsys.readouterr().err
