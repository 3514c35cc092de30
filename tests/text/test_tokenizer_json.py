"""Our `tokenizer.json` is read by transformers and does what its own conversion does."""

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.errors import VocabularyError
from kiku.text.sentencepiece_model import BPE_MODEL, read_sentencepiece_model
from kiku.text.tokenizer_json import read_tokenizer_json, tokenizer_json
from kiku.text.vocabulary import Vocabulary

OPTIONS = {"unk_token": "<unk>", "clean_up_tokenization_spaces": False}
TEXTS = ["he tells us that roast beef", "naïve 𝄞", "l'année 1998, <unk> 4000 x"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, unigram_model: bytes):
    """transformers' tokenizer from our file, the one by its own conversion, and our vocabulary."""
    convert = pytest.importorskip("transformers.convert_slow_tokenizer")
    transformers = pytest.importorskip("transformers")
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    (folder / "a.model").write_bytes(unigram_model)
    written = tokenizer_json(read_sentencepiece_model(unigram_model))
    (folder / "tokenizer.json").write_text(written, encoding="utf-8")
    fast = transformers.PreTrainedTokenizerFast
    return (
        fast(tokenizer_file=str(folder / "tokenizer.json"), **OPTIONS),
        fast(
            tokenizer_object=convert.MoshiConverter(str(folder / "a.model")).converted(), **OPTIONS
        ),
        Vocabulary.from_bytes(unigram_model),
    )


def test_encoding_equals_transformers_own_conversion(pair) -> None:
    ours, theirs, _ = pair
    assert len(ours) == len(theirs)
    assert ours.all_special_ids == theirs.all_special_ids
    for text in TEXTS:
        assert ours(text).input_ids == theirs(text).input_ids


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_decoding_equals_transformers_own_conversion(pair, data: st.DataObject) -> None:
    ours, theirs, vocabulary = pair
    pieces = st.integers(4 + 256, len(vocabulary) - 1).map(lambda i: [i])
    letters = st.sampled_from("aé聞𝄞").map(lambda c: [4 + b for b in c.encode()])
    special = st.sampled_from([0, 1, 2, 3, 4001, 48000]).map(lambda i: [i])
    tokens = [t for group in data.draw(st.lists(pieces | letters | special)) for t in group]
    expected = theirs.decode(tokens, skip_special_tokens=True)
    assert ours.decode(tokens, skip_special_tokens=True) == expected
    assert vocabulary.decode(tokens) == expected


def test_charsmap_and_user_defined_pieces_go_along(train: Callable[..., bytes]) -> None:
    data = train("unigram", user_defined_symbols=["<laugh>"], normalization_rule_name="nmt_nfkc_cf")
    native = Vocabulary.from_bytes(data)
    converted = Vocabulary.from_bytes(native.to_tokenizer_json().encode())
    assert native.encode("ROAST Beef") == converted.encode("ROAST Beef")
    laugh = next(i for i in range(len(native)) if native.piece(i) == "<laugh>")
    assert native.decode([laugh]) == converted.decode([laugh]) == "<laugh>"
    assert laugh in converted.encode("he <laugh> us")


def test_identity_normalisation_has_no_charsmap(train: Callable[..., bytes]) -> None:
    data = train("bpe", normalization_rule_name="identity")
    assert read_sentencepiece_model(data).charsmap == b""
    native = Vocabulary.from_bytes(data)
    converted = Vocabulary.from_bytes(native.to_tokenizer_json().encode())
    assert native.encode("roast beef") == converted.encode("roast beef")


def test_what_cannot_be_written(unigram_model: bytes) -> None:
    model = read_sentencepiece_model(unigram_model)
    with pytest.raises(VocabularyError, match="of type 4 cannot be"):
        tokenizer_json(dataclasses.replace(model, model_type=4))
    with pytest.raises(VocabularyError, match=r"cannot be written as a tokenizer\.json"):
        tokenizer_json(dataclasses.replace(model, unknown_id=5000))
    with pytest.raises(VocabularyError, match="number 5000 of"):
        tokenizer_json(dataclasses.replace(model, model_type=BPE_MODEL, unknown_id=5000))


def test_damage_that_makes_the_library_panic(unigram_model: bytes) -> None:
    content = json.loads(tokenizer_json(read_sentencepiece_model(unigram_model)))
    rules = content["normalizer"]["normalizers"][0]
    assert rules["type"] == "Precompiled"
    rules["precompiled_charsmap"] = "AAAA"
    for damaged in (json.dumps(content), json.dumps(content)[:-1]):
        with pytest.raises(VocabularyError, match=r"damaged one .*fetch the file again"):
            read_tokenizer_json(damaged.encode())


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        # 4 GB of index, for which the library would ask before it looks, and abort.
        (base64.b64encode(b"\xff\xff\xff\xff" + bytes(8)).decode(), "4294967295 bytes of index"),
        (base64.b64encode(b"\x09\0\0\0" + bytes(8)).decode(), "9 bytes of index .* there are 8"),
        (base64.b64encode(b"\x09\0\0").decode(), "there are 0"),
        ("x" * 9, "not base64"),
        ("", "there are 0"),
    ],
)
def test_rules_that_are_longer_than_the_file(
    unigram_model: bytes, rules: str, message: str
) -> None:
    content = json.loads(tokenizer_json(read_sentencepiece_model(unigram_model)))
    normalizer = {"type": "Precompiled", "precompiled_charsmap": rules}
    content["normalizer"]["normalizers"][0] = normalizer
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.from_bytes(json.dumps(content).encode())
    # The library reads both of two fields of one name; Python keeps the last alone.
    twice = json.dumps(content | {"normalizer": None})
    twice = twice.replace(
        '"normalizer": null', f'"normalizer": {json.dumps(normalizer)}, "normalizer": null'
    )
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.from_bytes(twice.encode())


def test_rules_of_a_model_that_are_longer_than_it(unigram_model: bytes) -> None:
    model = read_sentencepiece_model(unigram_model)
    with pytest.raises(VocabularyError, match="bytes of index"):
        tokenizer_json(dataclasses.replace(model, charsmap=b"\xff\xff\xff\xff"))


def test_an_id_beyond_all_vocabularies_costs_no_memory(train: Callable[..., bytes]) -> None:
    native = Vocabulary.from_bytes(train("bpe"))
    content = json.loads(native.to_tokenizer_json())
    content["model"]["vocab"]["far"] = 4_000_000_000
    with pytest.raises(VocabularyError, match="id 4000000000, but ids are below"):
        Vocabulary.from_bytes(json.dumps(content).encode())


def test_padding_and_truncation_are_left_aside(unigram_model: bytes) -> None:
    native = Vocabulary.from_bytes(unigram_model)
    content = json.loads(native.to_tokenizer_json())
    content["padding"] = {
        "strategy": {"Fixed": 2**40}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 3, "pad_type_id": 0, "pad_token": "<pad>",
    }  # fmt: skip
    content["truncation"] = {
        "max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right",
    }  # fmt: skip
    read = Vocabulary.from_bytes(json.dumps(content).encode())
    assert read.encode("roast beef") == native.encode("roast beef")


def test_an_interrupt_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(data: bytes, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "loads", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_tokenizer_json(b"{}")
