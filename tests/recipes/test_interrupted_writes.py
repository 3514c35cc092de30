"""What a training keeps for the next run is there whole, or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipes.demo.align import Phones
from recipes.demo.bank import Bank
from recipes.demo.decoder import CodeCache
from recipes.demo.spelling import Spelling


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written stops half-way."""

    def write_bytes(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise KeyboardInterrupt

    def write_text(path: Path, text: str, **_: Any) -> None:
        write_bytes(path, text.encode())

    def savez(file: Any, **_: Any) -> None:
        file.write(b"PK") if hasattr(file, "write") else Path(file).write_bytes(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", write_text)
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    monkeypatch.setattr(np, "savez", savez)


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("name", ["phones.json", "snippets.jsonl", "codes.npz", "tokenizer.model"])
def test_a_stop_leaves_nothing_under_its_name(name: str, tmp_path: Path) -> None:
    none = np.zeros((1, 1), np.int16)
    path = tmp_path / name
    make = {
        "phones.json": lambda: Phones.of([], path),
        "snippets.jsonl": lambda: Bank([], none).save(tmp_path),
        "codes.npz": lambda: CodeCache(none, none, none, none).save(path),
        "tokenizer.model": lambda: Spelling.made(path),
    }
    with pytest.raises(KeyboardInterrupt):
        make[name]()
    assert not path.exists()


def test_codes_come_back(tmp_path: Path) -> None:
    one, two = np.zeros((1, 2), np.int16), np.ones((3,), np.int16)
    CodeCache(one, two, one, two).save(tmp_path / "codes.npz")
    held = CodeCache.load(tmp_path / "codes.npz")
    np.testing.assert_array_equal(held.text, two)
    assert [path.name for path in tmp_path.iterdir()] == ["codes.npz"]
