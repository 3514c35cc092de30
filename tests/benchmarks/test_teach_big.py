"""The parts of the benchmark of a fine-tune, without the big shape."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from kiku.checkpoint import load
from tests import tiny
from tests.conftest import ROOT


@pytest.fixture
def teach_big(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("teach_big")


def test_the_vocabulary_spells_what_the_recordings_say(teach_big: Any) -> None:
    pieces = teach_big.pieces(8000)
    assert len(set(pieces)) == len(pieces) == 8000
    for text in teach_big.TEXTS.values():
        assert {f"▁{word}" for word in text.split()} <= set(pieces)


def test_words_are_in_order_and_within_the_recording(teach_big: Any, tmp_path: Path) -> None:
    words = teach_big.spread("a b c d", 8.0)
    assert [word for word, _, _ in words] == ["a", "b", "c", "d"]
    times = [time for _, *both in words for time in both]
    assert times == sorted(times)
    assert (times[0], times[-1] <= 8.0) == (0.0, True)
    teach_big.write_manifest(tmp_path / "manifest.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert [len(row["words"]) for row in rows] == [8, 6, 6]
    assert all(Path(row["path"]).exists() for row in rows)


def test_the_checkpoint_is_one_that_kiku_loads(teach_big: Any, tmp_path: Path) -> None:
    config = tiny.model_config()
    room = len(teach_big.pieces(100))
    lm = teach_big.replace(config.lm, text_vocab_size=room, initial_text_id=room)
    wide = teach_big.replace(config, lm=lm)
    teach_big.write_checkpoint(tmp_path / "model", wide)
    assert load(tmp_path / "model").config.lm == lm
    one = teach_big.weights(tmp_path / "model")
    assert teach_big.differing(one, dict(one)) == []
    name = "out_norm.weight"
    assert teach_big.differing(one, {**one, name: one[name] + 1, "more": one[name]}) == [
        "more", name,
    ]  # fmt: skip


def test_a_process_is_killed_when_it_is_time_and_its_memory_is_known(
    teach_big: Any, tmp_path: Path
) -> None:
    sleeper = "import sys, time; print('begun', flush=True); time.sleep(1000)"
    seen = tmp_path / "output.txt"
    found = teach_big.watched(["-c", sleeper], tmp_path, lambda: "begun" in seen.read_text())
    assert found.killed
    assert found.output.strip() == "begun"
    assert found.peak_mib > 0
    with pytest.raises(SystemExit, match="exit code 3"):
        teach_big.watched(["-c", "raise SystemExit(3)"], tmp_path)


def test_a_line_of_the_curve_that_is_not_complete_does_not_count(
    teach_big: Any, tmp_path: Path
) -> None:
    assert teach_big.curve(tmp_path) == []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "curve.csv").write_text("step,loss,seconds\n1,0.5,2.0\n2,0.4")
    assert teach_big.curve(tmp_path) == [{"step": 1.0, "loss": 0.5, "seconds": 2.0}]


def test_a_run_is_killed_behind_a_checkpoint_and_before_the_next(teach_big: Any) -> None:
    for steps in range(8, 100):
        step = teach_big.kill_at(steps)
        assert teach_big.SAVE_EVERY < step < steps
        assert step % teach_big.SAVE_EVERY
