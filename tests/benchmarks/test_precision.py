"""What benchmarks/precision.py compares is what the graphs compute, and its page keeps its text."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from kiku.graph import DECODER_GRAPH, write_decoder
from tests import tiny
from tests.conftest import ROOT
from tests.engine.engines import graphs, weights_of

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def precision(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("precision")


def by_hand(precision: ModuleType, way: str) -> dict[str, np.ndarray]:
    """The tiny decoder, layer by layer in torch, with what the blocks stand for."""
    config, found = tiny.lm_config(), {}

    def seen(_: str, place: str, given: np.ndarray) -> None:
        found[place] = given.copy()

    columns = precision.random_columns(config, 20)
    kept = {way: precision.ways()[way]}
    precision.computed(config, weights_of(tiny.lm()), columns, kept, seen)
    return found


def by_the_graph(
    precision: ModuleType, folder: Path, way: str, *, products_in_float: bool
) -> dict[str, np.ndarray]:
    config = tiny.model_config()
    write_decoder(folder, config.lm, weights_of(tiny.lm()), way)
    path = folder / f"{DECODER_GRAPH}.onnx"
    places = precision.lay_open(path, config.lm, products_in_float=products_in_float)
    return precision.run(folder, config, precision.random_columns(config.lm, 20), places)


@pytest.mark.parametrize("way", ["float32", "int8", "int4"])
def test_what_the_blocks_stand_for_is_what_the_runtime_multiplies_by(
    precision: ModuleType, tmp_path: Path, way: str
) -> None:
    right = by_hand(precision, way)
    given = by_the_graph(precision, tmp_path, way, products_in_float=True)
    assert list(given) == list(right) == ["layer 1", "layer 2", "logits"]
    for place, wanted in right.items():
        assert precision.relative(given[place], wanted) < 2e-5


def test_products_in_8_bits_add_a_little(precision: ModuleType, tmp_path: Path) -> None:
    given = by_the_graph(precision, tmp_path, "int8", products_in_float=False)
    error = precision.relative(given["logits"], by_hand(precision, "int8")["logits"])
    assert 1e-5 < error < 0.05


def test_fewer_bits_err_more(precision: ModuleType) -> None:
    right = by_hand(precision, "float32")["logits"]
    found = {
        way: precision.relative(by_hand(precision, way)["logits"], right)
        for way in ("float32", "int8", "int4", "all")
    }
    assert found["float32"] == 0 < found["int8"] < found["int4"] < found["all"]


@pytest.mark.parametrize("way", ["float32", "int8", "int4"])
def test_sizes_are_those_of_the_files(precision: ModuleType, way: str) -> None:
    written = (graphs(way) / f"{DECODER_GRAPH}.data").stat().st_size
    counted, read = precision.decoder_bytes(tiny.lm_config(), way)
    tensors = 30  # each begins at a page of its own; what is small lies in the graph
    assert abs(written - counted) < 4096 * tensors
    assert 0 < read < counted


def row(what: str, **values: Any) -> dict[str, Any]:
    return {
        "what": what, "date": "2026-11-25", "commit": "c", "machine": "m",
        "versions": {"kiku": "0.1.0"}, **values,
    }  # fmt: skip


def size(decoder_mb: float) -> dict[str, float]:
    return {"codec_mb": 200.0, "decoder_mb": decoder_mb, "read_a_step_mb": decoder_mb - 100}


def heard(wrong: int) -> dict[str, Any]:
    return {
        "words": 1000, "wrong": wrong, "word_error_rate": wrong / 1000, "tokens": 200,
        "other_tokens": 1, "codes": 400, "other_codes": 3, "wrong_with_codes_of_float32": 7,
    }  # fmt: skip


ERRORS = {"layer 1": 0.01, "logits": 0.02}
ROWS = [
    row("sizes", sizes={"1b": {"int8": size(9.0)}}),  # an older one
    row("sizes", sizes={"1b": {"int8": size(1020.0), "int4": size(600.0)}}),
    row("words", levels={"as recorded": {"float32": heard(120), "int4": heard(124)}}),
    row(
        "layers", shape="1b", in_4_bits={"down": 0.2, "gate": 0.1}, mixtures={},
        weights_only={"int8": ERRORS, "int4": ERRORS}, as_run={"int8": ERRORS, "int4": ERRORS},
    ),
]  # fmt: skip


def test_tables_take_the_latest_rows(precision: ModuleType) -> None:
    text = precision.tables(ROWS)
    assert "| 1b | int8 | 1.22 GB | 1.02 GB | 920 MB |" in text
    assert (
        "| as recorded | int4 | 12.4 % (124 of 1000) | +0.4 points | 0.75 % | 0.50 % | 7 |" in text
    )
    assert "keys of 16 bits" not in text
    of_keys = {"words": 1000, "wrong": 124, "wrong_kv8": 126, "tokens": 800, "other_tokens": 2}
    text = precision.tables([*ROWS, row("keys", levels={"as recorded": {"int4": of_keys}})])
    assert "| as recorded | int4 | 124 of 1000 | 126 | 0.25 % |" in text
    assert "| logits | 2.00 % | 2.00 % | 2.00 % | 2.00 % |" in text
    assert text.index("| gate | 10.00 % |") < text.index("| down | 20.00 % |")


def test_the_page_says_whose_operators_ran(precision: ModuleType) -> None:
    text = precision.tables([*ROWS, row("codes", operators="kiku-kernels (avx2)")])
    assert "Words: operators of ONNX Runtime, 2026-11-25" in text  # the row is older than ours
    assert "Codes: operators of kiku-kernels (avx2), 2026-11-25" in text
    assert "Sizes: 2026-11-25" in text


def test_speed_stands_in_the_table_once_it_is_measured(precision: ModuleType) -> None:
    live = {
        "what": "live", "window": "full", "shape": "1b", "precision": "int4", "machine": "m",
        "ms_per_frame": {"kiku": 20.5}, "threads": 2, "date": "d", "commit": "c",
    }  # fmt: skip
    text = precision.tables(ROWS, [live])
    assert "| 1b | int4 | 800 MB | 600 MB | 500 MB | 20.5 |" in text
    assert "2 threads" in text


def test_the_speeds_of_the_page_are_the_newest(precision: ModuleType) -> None:
    rows, peers = (
        [json.loads(line) for line in (BENCHMARKS / "results" / name).read_text().splitlines()]
        for name in ("precision.jsonl", "peers.jsonl")
    )
    wanted, _, _ = precision.tables(rows, peers).partition("| people never heard")
    page = (ROOT / "docs" / "precision.md").read_text(encoding="utf-8")
    assert wanted in page, "run  python benchmarks/precision.py --page"


def test_the_page_has_room_for_the_tables(precision: ModuleType, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "precision.md").read_text()
    (tmp_path / "precision.md").write_text(page)
    (tmp_path / "precision.jsonl").write_text("")
    precision.write_page(tmp_path, tmp_path)
    written = (tmp_path / "precision.md").read_text()
    assert written.partition("<!--")[0] == page.partition("<!--")[0]
