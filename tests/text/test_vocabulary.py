"""One decoding rule for both files; damage is one clear error."""

import json
import unicodedata
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.errors import VocabularyError
from kiku.text.vocabulary import Vocabulary

TEXTS = [
    "he tells us that roast beef",
    "déjà vu",
    "naïve 𝄞 and 聞く",
    "4000 francs, l'année",
    "x",
    "  two   spaces\tand\na line ",
]


def both(model_bytes: bytes) -> list[Vocabulary]:
    """The same vocabulary from a SentencePiece model and from the tokenizer.json made of it."""
    native = Vocabulary.from_bytes(model_bytes)
    return [native, Vocabulary.from_bytes(native.to_tokenizer_json().encode())]


def test_text_survives_both_files(model_bytes: bytes) -> None:
    for vocabulary in both(model_bytes):
        for text in TEXTS:
            tokens = vocabulary.encode(text)
            assert min(tokens) > 3
            assert vocabulary.decode(tokens) == " ".join(text.split())


def test_both_files_cut_text_alike(model_bytes: bytes) -> None:
    native, converted = both(model_bytes)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model_bytes)
    assert len(native) == len(converted) == processor.get_piece_size()
    assert [native.piece(i) for i in range(len(native))] == [
        processor.id_to_piece(i) for i in range(len(native))
    ]
    for text in TEXTS:
        assert native.encode(text) == converted.encode(text)


@settings(deadline=None, max_examples=75)
@given(data=st.data())
def test_decoding_follows_sentencepiece_whatever_the_tokens(
    unigram_model: bytes, data: st.DataObject
) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=unigram_model)
    token = st.integers(4, processor.get_piece_size() - 1)
    byte = st.sampled_from([4 + b for b in "é聞𝄞".encode()] + [4 + 0x80, 4 + 0xFF])
    tokens = data.draw(st.lists(token | byte))
    for vocabulary in both(unigram_model):
        # SentencePiece drops every leading space, we drop one.
        assert vocabulary.decode(tokens).lstrip(" ") == processor.decode(tokens).lstrip(" ")


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(-10, 5000)))
def test_special_and_foreign_ids_give_nothing(unigram_model: bytes, tokens: list[int]) -> None:
    for vocabulary in both(unigram_model):
        kept = [t for t in tokens if 4 <= t < len(vocabulary)]
        assert vocabulary.decode(tokens) == vocabulary.decode(kept)
        assert [t for t in tokens if vocabulary.is_text(t)] == kept


def test_bytes_are_joined_across_dropped_ids(unigram_model: bytes) -> None:
    vocabulary = Vocabulary.from_bytes(unigram_model)
    first, second = (4 + byte for byte in "é".encode())
    assert vocabulary.piece(first) == "<0xC3>"
    assert vocabulary.decode([first, 3, 48000, second]) == "é"
    assert vocabulary.decode([first, first, second]) == "\ufffdé"


def test_one_leading_space_is_dropped(unigram_model: bytes) -> None:
    vocabulary = Vocabulary.from_bytes(unigram_model)
    space = next(i for i in range(len(vocabulary)) if vocabulary.piece(i) == "▁")
    letter = next(i for i in range(len(vocabulary)) if vocabulary.piece(i) == "s")
    assert vocabulary.decode([space, letter, space, letter]) == "s s"
    assert vocabulary.decode([space, space, letter]) == " s"
    assert vocabulary.starts_word(space)
    assert not vocabulary.starts_word(letter)


def test_control_pieces_above_three_are_no_text() -> None:
    pieces = [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["<pad>", 0.0], ["▁a", -1.0]]
    content = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": 5,
                "content": "<x>",
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False},
    }
    vocabulary = Vocabulary.from_bytes(json.dumps(content).encode())
    assert len(vocabulary) == 6
    assert vocabulary.decode([4, 5, 4]) == "a a"
    assert not vocabulary.is_text(5)
    assert not vocabulary.is_sentencepiece


def test_from_pieces_prefers_long_pieces_and_refuses_the_rest() -> None:
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    vocabulary = Vocabulary.from_pieces([*special, "▁", "o", "n", "e", "▁one", "▁on"])
    assert vocabulary.encode("one on noe") == [8, 9, 4, 6, 5, 7]
    assert vocabulary.decode([0, 8, 3, 9]) == "one on"
    with pytest.raises(VocabularyError, match=r"cannot spell 'one zed': .* for 'z', 'd'$"):
        vocabulary.encode("one zed")
    again = Vocabulary.from_bytes(vocabulary.to_tokenizer_json().encode())
    assert again.encode("one on") == [8, 9]
    assert "10 pieces" in repr(again)


@pytest.mark.parametrize("word", ["déjà", "한글", "naïve"])
def test_text_may_be_composed_or_not(word: str, model_bytes: bytes) -> None:
    pieces = ["<unk>", "<s>", "</s>", "<pad>", "▁", *dict.fromkeys(word)]
    for vocabulary in (Vocabulary.from_pieces(pieces), *both(model_bytes)):
        composed, apart = (unicodedata.normalize(form, word) for form in ("NFC", "NFD"))
        assert vocabulary.encode(apart) == vocabulary.encode(composed)
        assert vocabulary.decode(vocabulary.encode(apart)) == composed
        assert vocabulary.lacking(apart) == vocabulary.lacking(composed)


def test_from_pieces_with_all_bytes_spells_anything() -> None:
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    vocabulary = Vocabulary.from_pieces(["<unk>", "<s>", "</s>", "<pad>", *bytes_, "▁"])
    assert vocabulary.decode(vocabulary.encode("héhé 聞く")) == "héhé 聞く"


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (["<unk>", "<s>", "</s>", "<pad>"], "not 4"),
        (["<unk>", "<s>", "</s>", "<pad>", "▁a", ""], "'' is empty"),
        (["<unk>", "<s>", "</s>", "<pad>", "▁a", "▁a"], "'▁a' .* 2 times"),
    ],
)
def test_from_pieces_refuses(pieces: list[str], message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.from_pieces(pieces)


def test_piece_refuses_ids_outside(unigram_model: bytes) -> None:
    vocabulary = Vocabulary.from_bytes(unigram_model)
    assert vocabulary.piece(3) == "<pad>"
    for wrong in (-1, len(vocabulary)):
        with pytest.raises(VocabularyError, match=f"no token {wrong}"):
            vocabulary.piece(wrong)


def test_load_tells_the_files_apart_by_their_contents(tmp_path: Path, model_bytes: bytes) -> None:
    native, converted = both(model_bytes)
    for name, vocabulary in (("a.txt", native), ("b.bin", converted)):
        path = tmp_path / name
        path.write_bytes(vocabulary.source)
        loaded = Vocabulary.load(path)
        assert loaded.is_sentencepiece == vocabulary.is_sentencepiece
        assert loaded.encode("roast beef") == vocabulary.encode("roast beef")
        assert loaded.source == path.read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"{}", "not a tokenizer.json"),
        (b'{"model": ', "not a tokenizer.json"),
        (b"{\xff", "not a tokenizer.json"),
        (b'{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}', "no pieces"),
        (b"hello, I am no vocabulary", "not a SentencePiece model"),
        (bytes(64), "not a SentencePiece model"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(VocabularyError, match=rf"tokenizer\.model: .*{message}"):
        Vocabulary.load(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"gone\.model: No such file"):
        Vocabulary.load(tmp_path / "gone.model")
    with pytest.raises(VocabularyError, match="Is a directory"):
        Vocabulary.load(tmp_path)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_cut_or_flipped_models_load_or_say_so(unigram_model: bytes, data: st.DataObject) -> None:
    damaged = bytearray(unigram_model[: data.draw(st.integers(0, len(unigram_model)))])
    if damaged:
        for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=3)):
            damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        vocabulary = Vocabulary.from_bytes(bytes(damaged))
    except VocabularyError:
        return
    vocabulary.decode(range(len(vocabulary)))
