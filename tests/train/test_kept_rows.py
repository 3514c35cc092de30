"""Rows that are marked to be kept: from the manifest into batches, and what the model writes of
them by itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kiku.checkpoint import Loaded
from kiku.errors import TrainingError
from kiku.nn.state import all_active
from kiku.train.augment import Augmentation
from kiku.train.batches import Batches, collate
from kiku.train.columns import Lead, TextLayout
from kiku.train.examples import PackOptions
from kiku.train.folders import read_rows
from kiku.train.own_text import OwnText
from kiku.train.pack import pack
from kiku.train.shards import PackReader
from tests import tiny
from tests.train.recordings import spoken, write_corpus, write_manifest, write_wav

SIZE = len(tiny.PIECES)


def test_a_mark_goes_from_the_manifest_into_batches(loaded: Loaded, tmp_path: Path) -> None:
    rows = read_rows(write_corpus(tmp_path, 7, seconds=2.0, marked=3))
    assert [row.keep for row in rows] == [True, False, False, True, False, False, True]
    assert read_rows(write_manifest(tmp_path, [row.to_dict() for row in rows])) == rows
    assert "keep" not in rows[1].to_dict()
    pack(rows, loaded, tmp_path / "pack", PackOptions(shard_s=5.0))
    reader = PackReader(tmp_path / "pack")
    assert len(reader.index.shards) > 1
    assert reader.keep.tolist() == [row.keep for row in rows]
    assert [reader[i].about.get("keep", False) for i in range(7)] == reader.keep.tolist()
    assert "keep" not in reader[1].about
    some = collate(reader, [1, 3, 6])
    assert some.keep is not None
    assert some.to("cpu").keep is some.keep
    assert some.keep.tolist() == [False, True, True]
    assert collate(reader, [1, 2]).keep is None
    batches = Batches(reader, 3, 0)
    for number in range(batches.per_epoch):
        marks = batches[number].keep
        wanted = reader.keep[batches.numbers(number)]
        assert (marks is not None) == bool(wanted.any())
        assert marks is None or marks.tolist() == wanted.tolist()


def test_copies_join_only_rows_of_one_kind(loaded: Loaded, tmp_path: Path) -> None:
    found: list[dict[str, object]] = []
    for i in range(12):
        words = [(("one", "two", "go")[i % 3], 0.3, 0.6)]
        write_wav(tmp_path / f"{i}.wav", spoken(words, 1.0))
        told: dict[str, object] = {"words": words} if i % 3 < 2 else {}
        found.append({"path": f"{i}.wav", "speaker": f"{i % 3}", "keep": i % 3 > 0, **told})
    rows = read_rows(write_manifest(tmp_path, found))
    how = Augmentation(copies=2, join=3, silence_s=(0.1, 0.1), speed=(1, 1))
    pack(rows, loaded, tmp_path / "pack", PackOptions(augmentation=how))
    reader = PackReader(tmp_path / "pack")
    copies = [reader[i] for i in range(12, len(reader))]
    assert max(len(one.about["text"].split()) for one in copies if not one.about.get("keep")) == 3
    for one in copies:
        kind = int(one.about["speaker"])
        assert one.about.get("keep", False) == (kind > 0)
        if kind < 2:
            length_s = len(one.text) / 12.5 - 0.5
            joined = round((length_s - 0.1) / 1.1)
            assert one.about["text"].split() == [("one", "two")[kind]] * joined
        assert (one.pauses == -100).all() == (kind == 2)


def stepwise(loaded: Loaded, codes: np.ndarray, lead: int, new: range) -> list[int]:
    """What is written if frame after frame is heard."""
    lm, active = loaded.lm, all_active(1)
    state, column = lm.init_state(1, "cpu", torch.float32), lm.initial_column(1, "cpu")
    tokens: list[int] = []
    for frame in codes.T:
        logits = lm(column, state, active).logits[0, 0]
        logits[new.start : new.stop] = -torch.inf
        tokens.append(-1 if len(tokens) < lead else int(logits.argmax()))
        column = torch.tensor([[[tokens[-1], *frame.tolist()]]])
    return tokens


@pytest.mark.parametrize(("lead", "new"), [("zero", range(0)), ("pad", range(SIZE - 6, SIZE))])
@torch.no_grad()
def test_what_a_model_writes_by_itself(loaded: Loaded, lead: Lead, new: range) -> None:
    layout = TextLayout.of(loaded.config, delay_s=None, lead=lead)
    own = OwnText(loaded, layout, "cpu")
    assert own.new == range(0)
    own.new = new
    for seed in range(3):
        codes = np.random.default_rng(seed).integers(0, 16, (4, 40)).astype(np.uint16)
        wanted = stepwise(loaded, codes, 6 if lead == "zero" else 0, new)
        assert own.column(codes).tolist() == wanted
        assert len(set(wanted)) > 4


def test_a_marked_row_needs_no_words(loaded: Loaded, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", spoken([("one", 0.4, 0.7), ("go", 1.2, 1.5)], 2.0))
    rows = read_rows(write_manifest(tmp_path, [{"path": "a.wav", "keep": True}]))
    pack(rows, loaded, tmp_path / "pack", PackOptions())
    one = PackReader(tmp_path / "pack")[0]
    assert one.text.tolist() == stepwise(loaded, one.codes, 6, range(0))
    assert one.pauses.shape == (32, 4)
    assert (one.pauses == -100).all()
    assert one.about["keep"] is True
    assert one.about["text"] == loaded.vocabulary.decode(one.text.tolist())
    with pytest.raises(TrainingError, match=r"1 of 1 rows are .*0\.5 s after .* not 0\.9 s"):
        pack(rows, loaded, tmp_path / "late", PackOptions(delay_s=0.9))
    # Any other row without words is dropped, and a text without times is refused.
    bare = read_rows(write_manifest(tmp_path, [{"path": "a.wav"}]))
    done = pack(bare, loaded, tmp_path / "bare", PackOptions())
    assert [one.why for one in done.index.dropped] == ["no transcript"]
    text = read_rows(write_manifest(tmp_path, [{"path": "a.wav", "text": "go", "keep": True}]))
    with pytest.raises(TrainingError, match="have a text but no times"):
        pack(text, loaded, tmp_path / "text", PackOptions())
    long = PackOptions(most_s=1.4)
    pack(rows, loaded, tmp_path / "long", long)
    cuts = [PackReader(tmp_path / "long")[i].about["from_s"] for i in range(2)]
    assert cuts[0] == 0.0
    assert 0.7 < cuts[1] < 1.2  # between the words
    silent = read_rows(write_manifest(tmp_path, [{"path": "a.wav", "text": "", "keep": True}]))
    pack(silent, loaded, tmp_path / "silent", PackOptions())
    assert set(PackReader(tmp_path / "silent")[0].text.tolist()) == {-1, 3}


@pytest.mark.parametrize("value", ['"yes"', "1", "[]"])
def test_a_mark_is_true_or_false(tmp_path: Path, value: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"path": "a.wav", "words": [], "keep": {value}}}')
    with pytest.raises(TrainingError, match='line 1: "keep" must be true or false'):
        read_rows(path)
    path.write_text('{"path": "a.wav", "words": [], "keep": null}\n{"path": "b.wav", "text": ""}')
    assert [row.keep for row in read_rows(path)] == [False, False]
