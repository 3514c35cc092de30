"""What the package promises by name."""

import ast
import importlib
import pkgutil
import re
from importlib.metadata import version
from pathlib import Path

import pytest

import kiku

ROOMS = sorted(
    f"kiku.{module.name}" for module in pkgutil.iter_modules(kiku.__path__) if module.ispkg
)


def test_public_names_are_few_and_sorted() -> None:
    assert kiku.__all__ == sorted(kiku.__all__)
    assert len(kiku.__all__) <= 29


def test_nothing_public_is_left_out() -> None:
    rooms = {name.rpartition(".")[2] for name in ROOMS} | {
        module.name for module in pkgutil.iter_modules(kiku.__path__)
    }
    public = {name for name in dir(kiku) if not name.startswith("_")} - rooms
    assert public == set(kiku.__all__)


def test_names_are_found_when_they_are_used() -> None:
    with pytest.raises(AttributeError, match="module 'kiku' has no attribute 'lode'"):
        kiku.lode  # noqa: B018  # pyright: ignore
    everything: dict[str, object] = {}
    exec("from kiku import *", everything)
    assert everything.keys() >= set(kiku.__all__)


@pytest.mark.parametrize("name", kiku.__all__)
def test_public_names_say_what_they_are(name: str) -> None:
    thing = getattr(kiku, name)
    if isinstance(thing, type) or callable(thing):
        assert (thing.__doc__ or "").strip(), name


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_lists_names_that_it_has(room: str) -> None:
    module = importlib.import_module(room)
    assert (module.__doc__ or "").strip(), f"{room} does not say what it is"
    for name in getattr(module, "__all__", []):
        assert getattr(module, name) is not None


def test_the_version_is_the_installed_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", kiku.__version__)
    assert version("kiku") == kiku.__version__


SAME_AS_ELSEWHERE = {
    # What other packages call them, whose interfaces these rooms have.
    "Segment", "Word", "KyutaiSpeechToTextConfig", "KyutaiSpeechToTextFeatureExtractor",
    "KyutaiSpeechToTextForConditionalGeneration", "KyutaiSpeechToTextModel",
    "KyutaiSpeechToTextPreTrainedModel", "KyutaiSpeechToTextProcessor",
}  # fmt: skip


def test_a_class_shares_its_name_with_no_other() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted(Path(kiku.__file__).parent.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, set()).add(str(path))
    assert "StreamOptions" in found
    shared = {name: files for name, files in found.items() if len(files) > 1}
    assert shared.keys() <= SAME_AS_ELSEWHERE, shared
