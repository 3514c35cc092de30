"""A model and a pack go into folders of their own: nothing that is there is replaced or joined."""

import errno
from pathlib import Path

import pytest

from kiku.checkpoint import Loaded
from kiku.cli import main
from kiku.errors import TrainingError
from kiku.train.examples import PackOptions
from kiku.train.folders import read_rows
from kiku.train.pack import pack
from kiku.train.places import check_model_folder, check_pack_folder, in_place_of_model
from kiku.train.vocab import VocabOptions, make_vocabulary
from tests.train.recordings import write_corpus, write_manifest


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_where_a_model_can_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_model_folder(tmp_path / "new" / "one")
    check_model_folder(tmp_path)
    # What is left by a run that was killed.
    (tmp_path / "model.safetensors").touch()
    (tmp_path / ".kiku-0123456789abcdef").touch()
    check_model_folder(tmp_path)
    (tmp_path / "talk.wav").touch()
    with pytest.raises(TrainingError, match=r"not of a model \(talk.wav\): choose another folder"):
        check_model_folder(tmp_path)
    (tmp_path / "talk.wav").unlink()
    for name in ("config.json", "adapter_config.json"):
        (tmp_path / name).touch()
        with pytest.raises(TrainingError, match=r"already contains a model: .* \( --force \)"):
            check_model_folder(tmp_path)
        (tmp_path / name).unlink()
    for below in ("", "x/y"):
        with pytest.raises(TrainingError, match=r"model\.safetensors is a file"):
            check_model_folder(tmp_path / "model.safetensors" / below)
    with pytest.raises(TrainingError, match="cannot be made"):
        check_model_folder(tmp_path / ("x" * 300))
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(TrainingError, match="is not writable"):
        check_model_folder(tmp_path / "x")


def test_a_model_may_be_replaced_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("old")
    check_model_folder(folder, force=True)
    (folder / "talk.wav").touch()
    with pytest.raises(TrainingError, match=r"not of a model \(talk.wav\)"):
        check_model_folder(folder, force=True)
    (folder / "talk.wav").unlink()

    def closed(path: Path, _: int) -> bool:
        return path != tmp_path

    monkeypatch.setattr("os.access", closed)
    with pytest.raises(TrainingError, match=f"the folder {tmp_path} is not writable:"):
        check_model_folder(folder, force=True)


def _write(folder: Path, *, then: Exception | None = None) -> None:
    """A model where one is to be written."""
    with in_place_of_model(folder) as place:
        place.mkdir(exist_ok=True)
        (place / "config.json").write_text("new")
        if then is not None:
            raise then


def test_a_model_is_replaced_when_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, link = tmp_path / "model", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    old = {"config.json": "old", "tokenizer.model": "of another layout"}
    for name, text in old.items():
        (folder / name).write_text(text)

    def now() -> dict[str, str]:
        assert sorted(one.name for one in tmp_path.iterdir()) == ["link", "model"]
        return {one.name: one.read_text() for one in folder.iterdir()}

    with pytest.raises(ZeroDivisionError):
        _write(folder, then=ZeroDivisionError())
    assert now() == old
    plain = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == folder and (self / "config.json").read_text() == "new":
            raise OSError(errno.EBUSY, "Busy")
        return plain(self, target)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", fail)
        with pytest.raises(TrainingError, match=r"model cannot be replaced \(busy\)"):
            _write(folder)
    assert now() == old
    _write(link)
    assert now() == {"config.json": "new"}


def test_where_a_pack_can_go(tmp_path: Path) -> None:
    for name in ("pack.json", ".lock", "train-00000.safetensors", "my.dev-00012.safetensors"):
        (tmp_path / name).touch()
    check_pack_folder(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(TrainingError, match=r"not of a pack \(model.safetensors\)"):
        check_pack_folder(tmp_path)


def test_a_model_that_is_there_stays(loaded: Loaded, tiny_folder: Path, tmp_path: Path) -> None:
    before = contents(tiny_folder)
    rows = read_rows(write_manifest(tmp_path, [{"path": "a.wav", "text": "bonjour"}]))
    with pytest.raises(TrainingError, match="already contains a model"):
        make_vocabulary(rows, str(tiny_folder), tiny_folder, VocabOptions())
    with pytest.raises(TrainingError, match="is used to make the new model"):
        make_vocabulary(rows, str(tiny_folder), tiny_folder, VocabOptions(), force=True)
    rows = read_rows(write_corpus(tmp_path, 1, seconds=1.0))
    with pytest.raises(TrainingError, match="not of a pack"):
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
        assert (
            f"{tmp_path} contains files that are not of a {what} (000.wav, "
            in capsys.readouterr().err
        )
