"""What is written is whole, replaces safely, and refuses what a layout cannot say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from kiku.checkpoint import load, save_native, save_transformers
from kiku.checkpoint.saving import as_stored
from kiku.errors import CheckpointError, UnsupportedConfig
from tests import tiny


def test_saving_over_the_files_that_are_loaded(native_folder: Path) -> None:
    """The mapped file is replaced, not written through."""
    loaded = load(native_folder)
    before = {name: tensor.clone() for name, tensor in loaded.lm.state_dict().items()}
    with torch.no_grad():
        loaded.lm.out_norm.weight.mul_(2)
    assert loaded.files.vocabulary is not None
    save_native(
        native_folder,
        loaded.config,
        lm=loaded.lm.state_dict(),
        codec=loaded.codec.state_dict(),
        vocabulary=loaded.files.vocabulary,
    )
    again = load(native_folder).lm.state_dict()
    assert torch.equal(again["out_norm.weight"], 2 * before["out_norm.weight"])
    assert torch.equal(again["text_head.weight"], before["text_head.weight"])
    assert not list(native_folder.glob(".kiku-*"))


@pytest.mark.parametrize("save", [save_native, save_transformers])
def test_links_are_replaced_and_not_written_through(
    native_folder: Path, tmp_path: Path, save: Callable[..., None]
) -> None:
    """As in a folder of the hub's cache, whose files are links to what others use too."""
    loaded = load(native_folder)
    folder, victim = tmp_path / "links", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("precious")
    names = "model.safetensors", "config.json", "tokenizer.json", "preprocessor_config.json"
    for name in (*names, "model.safetensors.part"):
        (folder / name).symlink_to(victim)
    save(
        folder, loaded.config, lm=loaded.lm.state_dict(), codec=loaded.codec.state_dict(),
        vocabulary=native_folder / "tokenizer.json",
    )  # fmt: skip
    assert victim.read_text() == "precious"
    again = load(folder).lm.state_dict()
    assert torch.equal(again["out_norm.weight"], loaded.lm.state_dict()["out_norm.weight"])


def test_what_cannot_be_written_leaves_the_old_and_nothing_else(
    native_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    loaded = load(native_folder)
    before = sorted(path.name for path in native_folder.iterdir())
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CheckpointError, match="no space left"):
        save_native(
            native_folder, loaded.config,
            lm=loaded.lm.state_dict(), codec=loaded.codec.state_dict(),
            vocabulary=native_folder / "tokenizer.json",
        )  # fmt: skip
    assert sorted(path.name for path in native_folder.iterdir()) == before


def test_half_precision_halves_the_files(native_folder: Path, tmp_path: Path) -> None:
    loaded = load(native_folder)
    save_native(
        tmp_path / "small",
        loaded.config,
        lm=as_stored(loaded.lm.state_dict(), torch.bfloat16),
        codec=as_stored(loaded.codec.state_dict(), torch.float16),
        vocabulary=native_folder / "tokenizer.json",
    )
    again = load(tmp_path / "small")
    for ours, theirs in ((again.lm, loaded.lm), (again.codec, loaded.codec)):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert a.dtype == torch.float32
            torch.testing.assert_close(a, b, atol=0.02, rtol=0.02)
    for name in ("model.safetensors", "mimi.safetensors"):
        small, whole = tmp_path / "small" / name, native_folder / name
        assert small.stat().st_size < 0.75 * whole.stat().st_size


def test_what_a_layout_cannot_say(tmp_path: Path) -> None:
    model = tiny.model_config()
    state = {"lm": tiny.lm().state_dict(), "codec": tiny.codec().state_dict()}
    backbone = replace(model.lm.transformer, norm_eps=1e-6)
    odd = replace(model, lm=replace(model.lm, transformer=backbone))
    with pytest.raises(UnsupportedConfig, match="Kyutai's layout cannot store"):
        save_native(tmp_path / "x", odd, vocabulary=tmp_path / "v.json", **state)
    assert not (tmp_path / "x").exists(), "nothing is written before all is known to be sayable"
    with pytest.raises(CheckpointError, match=r"needs a tokenizer\.json"):
        save_transformers(tmp_path / "x", model, vocabulary=tmp_path / "v.model", **state)


def test_a_place_that_cannot_be_written(tmp_path: Path, native_folder: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_native(
            blocked / "folder",
            tiny.model_config(),
            lm=tiny.lm().state_dict(),
            codec=tiny.codec().state_dict(),
            vocabulary=native_folder / "tokenizer.json",
        )


@pytest.mark.parametrize("save", [save_native, save_transformers])
def test_a_full_disk(
    save: Callable[..., None],
    tmp_path: Path,
    native_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:  # as safetensors says it
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr("kiku.checkpoint.saving.save_file", full)
    said = r"m cannot be written \(no space left on device\): make room or give another folder"
    with pytest.raises(CheckpointError, match=said):
        save(
            tmp_path / "m", tiny.model_config(), lm=tiny.lm().state_dict(),
            codec=tiny.codec().state_dict(), vocabulary=native_folder / "tokenizer.json",
        )  # fmt: skip


def test_a_start_id_inside_the_vocabulary_survives_kyutais_layout(tmp_path: Path) -> None:
    """Their table ends with the start row: it is written there, and says the same."""
    lm = tiny.lm(num_pause_heads=0)
    config = replace(lm.config, initial_text_id=5)
    model = replace(tiny.model_config(), lm=config)
    state = lm.state_dict()
    state["text_embedding.weight"] = state["text_embedding.weight"][: config.text_rows]
    vocabulary = tmp_path / "tokenizer.json"
    vocabulary.write_text(tiny.vocabulary().to_tokenizer_json())
    save_native(
        tmp_path / "x", model, lm=state, codec=tiny.codec().state_dict(), vocabulary=vocabulary
    )
    loaded = load(tmp_path / "x")
    start = loaded.config.lm.initial_text_id
    assert start == config.text_vocab_size
    table = loaded.lm.text_embedding.weight
    assert torch.equal(table[start], state["text_embedding.weight"][5])
    assert torch.equal(table[:start], state["text_embedding.weight"])
