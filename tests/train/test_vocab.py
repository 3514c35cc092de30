"""A model gets letters that it lacked: what it knew stays, and fit learns the new rows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kiku.checkpoint import load
from kiku.cli import main
from kiku.errors import TrainingError
from kiku.nn.state import all_active
from kiku.train.examples import PackOptions
from kiku.train.export import export
from kiku.train.fit import fit
from kiku.train.folders import read_rows
from kiku.train.model import load_for_training
from kiku.train.new_pieces import FILE, new_pieces_of
from kiku.train.pack import pack
from kiku.train.settings import FitSettings, read_settings
from kiku.train.state import read_state
from kiku.train.vocab import VocabOptions, make_vocabulary
from tests.checkpoint.models import write_transformers_folder
from tests.train.packs import write_config
from tests.train.recordings import spoken, write_manifest, write_wav

LORA = "[lora]\nrank = 4\nalpha = 8\n"
FRENCH = {"zéro": "one", "cinq": "two", "ovni": "three", "gîte,": "go"}
"""Words, and the tone by which each is heard."""


def write_french(folder: Path) -> Path:
    """Four recordings of two words each, with a manifest."""
    rows: list[dict[str, object]] = []
    names = list(FRENCH)
    for i in range(4):
        words = [(names[i], 0.2, 0.5), (names[(i + 1) % 4], 0.9, 1.2)]
        write_wav(folder / f"{i}.wav", spoken([(FRENCH[w], a, b) for w, a, b in words], 1.6))
        rows.append({"path": f"{i}.wav", "words": words, "speaker": f"s{i}"})
    return write_manifest(folder, rows)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_french(tmp_path_factory.mktemp("french"))


@pytest.fixture(scope="module")
def grown(manifest: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grown") / "model"
    make_vocabulary(read_rows(manifest), str(tiny_folder), folder, VocabOptions(pieces=20))
    return folder


@pytest.fixture(scope="module")
def packed(manifest: Path, grown: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "pack"
    done = pack(read_rows(manifest), load(grown), folder, PackOptions())
    assert done.examples == {"train": 4}
    assert not done.index.unknown
    return folder


def settings_of(folder: Path, grown: Path, packed: Path, more: str = LORA) -> FitSettings:
    path = write_config(
        folder / "c.toml", pack=packed, model=grown, run=folder / "run", train="ema = 0.5",
        more=more,
    )  # fmt: skip
    return read_settings(path)


def quiet(line: str) -> None:
    pass


def logits_of(folder: Path | str, columns: Tensor) -> Tensor:
    lm = load(folder, dtype="float32").lm
    return lm(columns, lm.init_state(1, "cpu", torch.float32), all_active(1)).logits


def test_what_the_model_knew_stays(tiny_folder: Path, grown: Path) -> None:
    old, new = load(tiny_folder), load(grown)
    had, has = len(old.vocabulary), len(new.vocabulary)
    assert new.config.lm.text_vocab_size == new.config.lm.initial_text_id == has > had
    assert [new.vocabulary.piece(i) for i in range(had)] == [
        old.vocabulary.piece(i) for i in range(had)
    ]
    assert new_pieces_of(new, -1) == range(had, has)
    # The column before the first frame reads the initial id, which has moved with its row.
    columns = torch.randint(0, 16, (1, 9, 5), generator=torch.Generator().manual_seed(0))
    first = [columns.clone(), columns.clone()]
    for one, config in zip(first, (old.config.lm, new.config.lm), strict=True):
        one[:, 0] = config.initial_code
        one[:, 0, 0] = config.initial_text_id
    one, two = logits_of(tiny_folder, first[0]), logits_of(grown, first[1])
    assert torch.equal(one, two[..., :had])
    assert new.config.lm.num_pause_heads == 4


def test_new_rows_begin_as_what_spelled_them(tiny_folder: Path, grown: Path) -> None:
    old, new = load(tiny_folder), load(grown)
    known = {old.vocabulary.piece(i): i for i in range(4, len(old.vocabulary))}
    ids = {new.vocabulary.piece(i): i for i in new_pieces_of(new, -1)}
    for name in ("text_embedding", "text_head"):
        before, after = getattr(old.lm, name).weight, getattr(new.lm, name).weight
        everything = before[list(known.values())].mean(0)
        # nothing of it is known: as all
        torch.testing.assert_close(after[ids["z"]], everything)
        torch.testing.assert_close(after[ids["é"]], everything)
        # a part of it is known: as that
        torch.testing.assert_close(after[ids["▁z"]], before[known["▁"]])
        both = before[[known["▁"], known["ro"]]].mean(0)
        torch.testing.assert_close(after[ids["▁zéro"]], both)


def test_a_letter_begins_as_the_one_below_its_accent(tmp_path: Path) -> None:
    """The demo has e and i."""
    path = write_manifest(tmp_path, [{"path": "a.wav", "text": "zéro île"}])
    done = make_vocabulary(read_rows(path), "demo", tmp_path / "m", VocabOptions())
    assert done.letters == ("é", "î")
    path = write_manifest(tmp_path, [{"path": "a.wav", "text": "go"}])
    with pytest.raises(TrainingError, match=r"^demo can spell all 1 words"):
        make_vocabulary(read_rows(path), "demo", tmp_path / "n", VocabOptions())
    old, new = load("demo", dtype="float32"), load(tmp_path / "m", dtype="float32")
    ids = {old.vocabulary.piece(i): i for i in range(4, len(old.vocabulary))}
    for name in ("text_embedding", "text_head"):
        before, after = getattr(old.lm, name).weight, getattr(new.lm, name).weight
        assert torch.equal(after[done.new.start], before[ids["e"]])
        assert torch.equal(after[done.new.start + 1], before[ids["i"]])
    assert load(tmp_path / "m", dtype="auto").lm.out_norm.weight.dtype == torch.bfloat16


def test_adapters_learn_the_new_rows_and_no_old_ones(
    grown: Path, packed: Path, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, grown, packed)
    done = fit(settings, on_progress=quiet)
    base = load(grown)
    count = len(new_pieces_of(base, -1))
    state = read_state(Path(settings.run))
    assert state is not None
    tables = {name: w for name, w in state.weights.items() if name.endswith(".rows")}
    assert {name: w.shape for name, w in tables.items()} == {
        "text_embedding.rows": (count, 32), "text_head.rows": (count, 32),
    }  # fmt: skip
    assert done.weights == sum(w.numel() for w in state.weights.values())
    export(Path(settings.run), tmp_path / "m", which="last", dtype="float32")
    model = load(tmp_path / "m")
    assert model.vocabulary.source == base.vocabulary.source
    for name in ("text_embedding", "text_head"):
        before, after = (getattr(one.lm, name).weight for one in (base, model))
        first = len(base.vocabulary) - count
        assert torch.equal(after[:first], before[:first])
        assert torch.equal(after[first : first + count], tables[f"{name}.rows"])
        assert torch.equal(after[first + count :], before[first + count :])
        assert not torch.allclose(after[first:], before[first:], atol=1e-3)
    # What is exported says what was trained.
    lm = load_for_training(settings).lm.eval()
    lm.load_state_dict(dict(state.weights), strict=False)
    columns = torch.randint(0, 16, (1, 9, 5), generator=torch.Generator().manual_seed(0))
    columns[..., 0] = torch.arange(first - 4, first + 5)
    ours = lm(columns, lm.init_state(1, "cpu", torch.float32), all_active(1)).logits
    torch.testing.assert_close(ours, logits_of(tmp_path / "m", columns), atol=1e-5, rtol=1e-4)


def test_which_rows_are_trained(grown: Path, packed: Path, tmp_path: Path) -> None:
    def rows(more: str) -> dict[str, int]:
        lm = load_for_training(settings_of(tmp_path, grown, packed, LORA + more)).lm
        return {n: len(w) for n, w in lm.named_parameters() if n.startswith("text_") and
                w.requires_grad}  # fmt: skip

    has = load(grown).config.lm.text_vocab_size
    assert rows("new_pieces = 0") == {}
    assert rows("new_pieces = 3") == {"text_embedding.rows": 3, "text_head.rows": 3}
    assert rows('new_pieces = 3\nalso = ["text_head"]') == {
        "text_embedding.rows": 3, "text_head.weight": has,
    }  # fmt: skip
    with pytest.raises(TrainingError, match=r"new_pieces is 999, but there are \d+ pieces"):
        rows("new_pieces = 999")


def test_other_rows_are_another_run(grown: Path, packed: Path, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, grown, packed)
    short = replace(settings, train=replace(settings.train, steps=2))
    fit(short, on_progress=quiet)
    other = settings_of(tmp_path, grown, packed, LORA + "new_pieces = 2")
    with pytest.raises(TrainingError, match=r"begun with another lora\.new_pieces"):
        fit(replace(other, train=short.train), on_progress=quiet)
    note = grown / FILE
    held = note.read_text()
    values = json.loads(held)
    moved = {**values, "first": values["first"] + 1, "count": values["count"] - 1}
    try:
        note.write_text(json.dumps(moved))
        with pytest.raises(TrainingError, match="begun with another model"):
            fit(short, on_progress=quiet)
        for wrong in ("{", json.dumps({**values, "count": 1}), '{"first": 1, "count": []}'):
            note.write_text(wrong)
            with pytest.raises(TrainingError, match=f"{FILE} does not match"):
                fit(short, on_progress=quiet)
    finally:
        note.write_text(held)


def test_a_pack_of_another_vocabulary_is_refused(
    packed: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, tiny_folder, packed)
    with pytest.raises(TrainingError, match=r"packed with another vocabulary \(\d+ pieces; .*19"):
        fit(settings, on_progress=quiet)


def test_pack_names_unknown_letters_and_where(
    manifest: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = ["-o", str(tmp_path / "p"), "--model", str(tiny_folder)]
    assert main(["train", "pack", str(manifest), *to]) == 1
    said = capsys.readouterr().out
    assert "kiku train vocab  makes a model that has them" in said
    assert f"'é' in 2 words, first in 'zéro' at 0.20 s of {manifest.parent / '0.wav'}" in said
    assert "'q' in 2 words, first in 'cinq' at 0.90 s" in said
    assert "has no piece for" in said
    unknown = json.loads((tmp_path / "p" / "pack.json").read_text())["unknown"]
    assert {one["letter"] for one in unknown} == set("zérocinqvgîte")


def test_the_command(
    manifest: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = ["-o", str(tmp_path / "m"), "--model", str(tiny_folder)]
    assert main(["train", "vocab", str(manifest), *to, "--pieces", "20"]) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'm'}: {len(load(tmp_path / 'm').vocabulary)} pieces" in said
    assert "new (ids 19 on)" in said
    assert "letters that were missing:" in said
    # Once more, with the model that can spell it all.
    again = ["-o", str(tmp_path / "n"), "--model", str(tmp_path / "m")]
    assert main(["train", "vocab", str(manifest), *again]) == 1
    assert "can spell all 4 words" in capsys.readouterr().err
    assert not (tmp_path / "n").exists()
    assert main(["train", "vocab", str(manifest), *again, "--any-letters"]) == 0
    replace = [*again, "--any-letters", "--pieces", "1"]
    size, other = len(load(tmp_path / "n").vocabulary), tmp_path / "n" / "preprocessor_config.json"
    other.write_text("of another layout")
    assert main(["train", "vocab", str(manifest), *replace]) == 1
    assert "already contains a model" in capsys.readouterr().err
    assert main(["train", "vocab", str(manifest), *replace, "--force"]) == 0
    assert len(load(tmp_path / "n").vocabulary) < size
    assert not other.exists()
    empty = write_manifest(tmp_path, [{"path": "a.wav", "words": []}])
    assert main(["train", "vocab", str(empty), *again]) == 1
    assert "no words" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_new_vocabulary(
    kind: str, manifest: Path, tiny_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Pieces that the model had keep their rows, wherever they stand now."""
    to = ["-o", str(tmp_path / "m"), "--model", str(tiny_folder), "--new", kind, "--pieces", "30"]
    assert main(["train", "vocab", str(manifest), *to]) == 0
    old, new = load(tiny_folder), load(tmp_path / "m")
    assert new.vocabulary.is_sentencepiece
    assert new_pieces_of(new, -1) == range(4, len(new.vocabulary))
    for word in FRENCH:
        assert new.vocabulary.decode(new.vocabulary.encode(word)) == word
    ids = {old.vocabulary.piece(i): i for i in range(len(old.vocabulary))}
    shared = [i for i in range(len(new.vocabulary)) if new.vocabulary.piece(i) in ids]
    assert len(shared) > 4
    for i in shared:
        there = ids[new.vocabulary.piece(i)]
        assert torch.equal(new.lm.text_head.weight[i], old.lm.text_head.weight[there])
    done = pack(read_rows(manifest), new, tmp_path / "pack", PackOptions())
    assert done.examples == {"train": 4}
    fit(settings_of(tmp_path, tmp_path / "m", tmp_path / "pack"), on_progress=quiet)
    export(tmp_path / "run", tmp_path / "out")
    assert len(load(tmp_path / "out").vocabulary) == len(new.vocabulary)


def test_a_new_vocabulary_has_pad_where_all_have_it(manifest: Path, tmp_path: Path) -> None:
    from kiku.checkpoint import save_native
    from tests import tiny

    vocabulary = tmp_path / "tokenizer.json"
    vocabulary.write_text(tiny.vocabulary().to_tokenizer_json())
    save_native(
        tmp_path / "m", replace(tiny.model_config(), pad_id=7), lm=tiny.lm().state_dict(),
        codec=tiny.codec().state_dict(), vocabulary=vocabulary,
    )  # fmt: skip
    rows, base = read_rows(manifest), str(tmp_path / "m")
    with pytest.raises(TrainingError, match="PAD or the word-start marker at id 7"):
        make_vocabulary(rows, base, tmp_path / "n", VocabOptions(new="bpe"))
    make_vocabulary(rows, base, tmp_path / "n", VocabOptions())
    assert load(tmp_path / "n").config.pad_id == 7


def test_transformers_layout(manifest: Path, tmp_path: Path) -> None:
    """From it, and into it; its pause heads are lost there."""
    base = write_transformers_folder(tmp_path / "hf")
    rows = read_rows(manifest)
    done = make_vocabulary(
        rows, str(base), tmp_path / "m", VocabOptions(pieces=20), layout="transformers"
    )
    assert done.left_out == ()
    old, new = load(base), load(tmp_path / "m")
    assert new.files.layout == "transformers"
    assert (
        len(new.vocabulary) == new.config.lm.text_vocab_size == len(old.vocabulary) + len(done.new)
    )
    had = len(old.vocabulary)
    assert torch.equal(new.lm.text_head.weight[:had], old.lm.text_head.weight)
