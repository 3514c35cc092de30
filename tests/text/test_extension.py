"""A vocabulary grows: old ids and old spellings stay, new letters have pieces."""

import json
from collections import Counter
from collections.abc import Callable

import pytest
import sentencepiece

from kiku.errors import VocabularyError
from kiku.text import sentencepiece_model
from kiku.text.extension import extended, trained
from kiku.text.vocabulary import Vocabulary
from tests.text.conftest import SENTENCES

NEW = Counter(
    ["größe", "straße", "grüße", "größe", "straße", "weiß", "groß", "she", "sells", "seashells"]
)
WORDS = sorted({word for text in SENTENCES for word in text.split()})


@pytest.fixture(params=["unigram", "bpe"])
def bare_model(request: pytest.FixtureRequest, train: Callable[..., bytes]) -> bytes:
    """Without pieces for bytes."""
    return train(request.param, byte_fallback=False)


def both(model_bytes: bytes) -> list[Vocabulary]:
    native = Vocabulary.from_bytes(model_bytes)
    return [native, Vocabulary.from_bytes(native.to_tokenizer_json().encode())]


def pieces_of(vocabulary: Vocabulary) -> list[str]:
    return [vocabulary.piece(i) for i in range(len(vocabulary))]


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("in_bytes", [False, True])
def test_new_letters_and_the_pieces_that_they_often_stand_in(
    kind: str, in_bytes: bool, train: Callable[..., bytes]
) -> None:
    """With a model that has no bytes, and with one that spells what it lacks in bytes."""
    data = train(kind, byte_fallback=in_bytes)
    grown: list[Vocabulary] = []
    for old in both(data):
        found = extended(old, NEW, most=8)
        new = found.vocabulary
        assert set(found.letters) == {"ß", "ö", "ü"}
        assert found.letters[0] == "ß"  # the most frequent
        assert len(found.pieces) == 8
        assert all(set(piece) & {"ß", "ö", "ü"} for piece in found.pieces)
        assert max(map(len, found.pieces)) > 2
        assert pieces_of(new) == pieces_of(old) + list(found.pieces)
        assert found.recut == ()
        for word in [*WORDS, "she", "sells"]:
            assert new.encode(word) == old.encode(word)
        for word in NEW:
            assert new.decode(new.encode(word)) == word
            assert not new.lacking(word)
            assert all(len(new.piece(i)) < 6 or new.piece(i)[0] != "<" for i in new.encode(word))
        used = {new.piece(i) for word in NEW for i in new.encode(word)}
        assert any(len(piece) > 2 for piece in used.intersection(found.pieces))
        assert new.is_sentencepiece == old.is_sentencepiece
        grown.append(new)
    # Both files cut alike, also when one is made of the other.
    third = Vocabulary.from_bytes(grown[0].to_tokenizer_json().encode())
    for word in [*WORDS, *NEW]:
        assert grown[0].encode(word) == grown[1].encode(word) == third.encode(word)


def test_a_letter_that_stands_in_longer_pieces_alone_moves_no_old_word() -> None:
    """It gets a piece; but what is joined with it could be in old words, too."""
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    old = Vocabulary.from_pieces([*special, "▁", "▁no", "on", "e", "s"])
    found = extended(old, Counter({"noon": 9, "nose": 5, "ono": 9, "öno": 4}), most=20)
    assert {"n", "o", "ö"} <= set(found.letters)
    assert found.recut == ()
    assert all("ö" in piece for piece in found.pieces if len(piece) > 1)
    assert any(len(piece) > 2 for piece in found.pieces)


def test_sentencepiece_reads_the_grown_file(bare_model: bytes) -> None:
    found = extended(Vocabulary.from_bytes(bare_model), NEW, most=8)
    processor = sentencepiece.SentencePieceProcessor(model_proto=found.vocabulary.source)
    before = sentencepiece.SentencePieceProcessor(model_proto=bare_model)
    assert processor.get_piece_size() == before.get_piece_size() + 8
    assert processor.decode(processor.encode("größe straße")) == "größe straße"
    trainer = sentencepiece_model._parsed(found.vocabulary.source).trainer  # pyright: ignore
    assert trainer.size == len(found.vocabulary)
    # What kiku does not read of the file is in it still: rules of normalisation, ids, options.
    assert processor.normalize("ﬁ  \uff41") == before.normalize("ﬁ  \uff41") == "▁fi▁a"
    kept = (processor.unk_id(), processor.bos_id(), processor.eos_id(), processor.pad_id())
    assert kept == (0, 1, 2, 3)


def test_any_letters(bare_model: bytes) -> None:
    """Then old words may be cut otherwise, and these are named."""
    old = Vocabulary.from_bytes(bare_model)
    words = Counter({"wetter": 5, "größe": 1, "beef": 3})
    narrow = extended(old, words, most=30)
    wide = extended(old, words, most=30, any_letters=True)
    assert not narrow.recut
    assert "wetter" in wide.recut
    assert len(wide.vocabulary.encode("wetter")) < len(old.encode("wetter"))
    assert pieces_of(wide.vocabulary)[: len(old)] == pieces_of(old)


def test_all_letters_are_taken_however_few_pieces_are_wanted(bare_model: bytes) -> None:
    found = extended(Vocabulary.from_bytes(bare_model), NEW, most=1)
    assert set(found.pieces) == {"ß", "ö", "ü"}


def test_nothing_to_add(bare_model: bytes) -> None:
    old = Vocabulary.from_bytes(bare_model)
    found = extended(old, Counter(["roast", "beef"]), most=50)
    assert found.pieces == ()
    assert pieces_of(found.vocabulary) == pieces_of(old)


def test_letters_are_those_that_the_vocabulary_makes_of_them(
    train: Callable[..., bytes],
) -> None:
    """A model that folds ligatures and wide letters does not lack them."""
    old = Vocabulary.from_bytes(train("unigram", byte_fallback=False))
    for one in both(old.source):
        assert one.lacking("ﬁrst") == ()
        assert one.lacking("e\u0301") == ()  # é in two letters
        assert one.lacking("\uff41ñ") == ("ñ",)
        assert one.lacking("größe ß") == ("ö", "ß")


def test_tokens_behind_the_pieces_would_move(unigram_model: bytes) -> None:
    values = json.loads(Vocabulary.from_bytes(unigram_model).to_tokenizer_json())
    size = len(values["model"]["vocab"])
    token = {**values["added_tokens"][0], "id": size, "content": "<x>"}
    values["added_tokens"].append(token)
    old = Vocabulary.from_bytes(json.dumps(values).encode())
    with pytest.raises(VocabularyError, match=r"tokens after its \d+ pieces, <x>: .*their ids"):
        extended(old, NEW, most=8)


def test_what_cannot_be_spelled_names_its_letters(bare_model: bytes) -> None:
    with pytest.raises(
        VocabularyError, match=r"cannot spell 'größe': it has no piece for 'ö', 'ß'$"
    ):
        Vocabulary.from_bytes(bare_model).encode("größe")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_vocabulary_of_texts_alone(kind: str) -> None:
    made = trained(list(NEW.elements()), size=60, kind=kind)  # pyright: ignore
    assert len(made) <= 60
    assert pieces_of(made)[:4] == ["<unk>", "<s>", "</s>", "<pad>"]
    assert made.is_sentencepiece
    for word in NEW:
        assert made.decode(made.encode(word)) == word
    with pytest.raises(VocabularyError, match="5 pieces cannot be made from these texts"):
        trained(list(NEW.elements()), size=5, kind=kind)  # pyright: ignore
