"""The processor gives what transformers' gives, and words with times besides."""

import copy
import json
import math
import pickle
import shutil
import warnings
import wave
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kiku.errors import AudioError, CheckpointError, InputError
from kiku.hf import (
    BatchFeature,
    KyutaiSpeechToTextForConditionalGeneration,
    KyutaiSpeechToTextProcessor,
)
from kiku.hf import KyutaiSpeechToTextTokenizer as Tokenizer
from kiku.hf.processing import recordings
from kiku.text import Vocabulary
from tests.hf.tiny_checkpoint import FRAME, PIECES, RATE, noise

Ours = KyutaiSpeechToTextProcessor
A, B = noise(400, 1), noise(170, 2)


@pytest.mark.parametrize(
    "audio",
    [
        A,
        [A, B],
        [A],
        A.tolist(),
        [A.tolist(), B.tolist()],
        [[A], [B, A]],
        torch.from_numpy(A),
        A.astype(np.float64),
    ],
    ids=[
        "array",
        "list",
        "list of one",
        "floats",
        "lists of floats",
        "nested",
        "tensor",
        "float64",
    ],
)
def test_inputs_are_theirs(their_processor: Any, processor: Ours, audio: Any) -> None:
    # A tensor by itself fails there.
    array = audio.numpy() if isinstance(audio, torch.Tensor) else audio
    wanted = their_processor(audio=array, sampling_rate=RATE)
    for given in (processor(audio), processor(audio=audio), processor(audio, sampling_rate=RATE)):
        assert isinstance(given, BatchFeature)
        assert set(given) == set(wanted) == {"input_values", "padding_mask"}
        for key in wanted:
            torch.testing.assert_close(given[key], wanted[key], atol=0, rtol=0)
        assert given.input_values is given["input_values"]


@pytest.mark.parametrize("arguments", [
    {"padding": "max_length", "max_length": 500},
    {"audio_kwargs": {"padding": "max_length", "max_length": 500}},
    {"truncation": True, "max_length": 100},
    {"return_tensors": "np"},
    {"common_kwargs": {"return_tensors": "np"}},
    {"padding": True},
])  # fmt: skip
def test_arguments_reach_the_feature_extractor(
    their_processor: Any, processor: Ours, arguments: dict[str, Any]
) -> None:
    wanted = their_processor(audio=[A, B], sampling_rate=RATE, **arguments)
    given = processor([A, B], **arguments)
    for key in wanted:
        assert type(given[key]) is type(wanted[key])
        np.testing.assert_array_equal(np.asarray(given[key]), np.asarray(wanted[key]))


def test_text_becomes_ids_as_there(their_processor: Any, processor: Ours) -> None:
    for arguments in ({"text": "w3 w1"}, {"text": ["w3 w1", "w2"], "padding": True}):
        wanted = their_processor(**arguments) if "padding" not in arguments else None
        given = processor(**arguments)
        assert set(given) == {"input_ids", "attention_mask"}
        if wanted is not None:
            torch.testing.assert_close(given.input_ids, wanted["input_ids"])
            torch.testing.assert_close(given.attention_mask, wanted["attention_mask"])
    assert given.attention_mask.tolist() == [[1, 1], [1, 0]]
    assert given.input_ids[1, 1] == 3
    together = processor(A, text="w3")
    assert set(together) == {"input_ids", "attention_mask", "input_values", "padding_mask"}


def test_paths_are_decoded_and_resampled(processor: Ours, tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((noise(8000) * 20_000).astype("<i2").tobytes())
    for one in (path, str(path)):
        inputs = processor(one)
        assert int(inputs.padding_mask.sum()) == RATE
    assert processor([path, A]).input_values.shape[0] == 2


def four_seconds(path: Path) -> Path:
    """A recording of noise, which is 8 * RATE bytes behind its head."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((noise(4 * RATE) * 20_000).astype("<i2").tobytes())
    return path


def test_a_file_that_is_cut_short_gives_what_is_there(processor: Ours, tmp_path: Path) -> None:
    path = four_seconds(tmp_path / "cut.wav")
    whole = processor(path)
    path.write_bytes(path.read_bytes()[: 44 + 6 * RATE])
    with pytest.warns(UserWarning, match=r"cut\.wav.*everything before was taken") as warned:
        cut = processor(path)
    assert warned[0].filename == __file__
    heard = int(cut.padding_mask.sum())
    assert 2 * RATE < heard <= 3 * RATE
    mine, all_of_it = cut.input_values[0, 0], whole.input_values[0, 0]
    before = int(cut.padding_mask[0].int().argmax())
    torch.testing.assert_close(
        mine[before : before + heard], all_of_it[before : before + heard], atol=0, rtol=0
    )


def test_where_warnings_are_errors_no_batch_is_lost(
    processor: Ours, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are errors here."""
    path = four_seconds(tmp_path / "cut.wav")
    path.write_bytes(path.read_bytes()[: 44 + 6 * RATE])
    row = {"bytes": path.read_bytes()}
    caplog.clear()
    batch = processor([path, A, [row]])
    assert batch.input_values.shape[0] == 3
    told = [one for one in caplog.records if "everything before was taken" in one.getMessage()]
    assert [one.name.partition(".")[0] for one in told] == ["kiku"] * 2
    with pytest.raises(UserWarning, match="everything before was taken"):
        processor(path)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (np.array([0, np.nan, 0], np.float32), "sample 1 is NaN or infinite"),
        (torch.tensor([0.0, torch.inf]), "sample 1 is NaN or infinite"),
        (A * 30_000 / np.abs(A).max(), "reach 30000, .* divide them by"),
        ([0.0, 30_000.0], "reach 30000"),
    ],
)
def test_what_cannot_be_sound_is_refused(processor: Ours, wrong: Any, told: str) -> None:
    for given in (wrong, [A, wrong]):
        with pytest.raises(AudioError, match=told):
            processor(given)


def test_one_channel_with_an_axis_is_mono(processor: Ours) -> None:
    plain = processor(A)["input_values"]
    for one in (A[None], A[:, None], torch.from_numpy(A)[None], [torch.from_numpy(A)[None]]):
        assert processor(one)["input_values"].equal(plain)
    with pytest.raises(InputError, match="Expected mono audio but example has 2 channels"):
        processor(np.stack([A, A]))


def test_the_bytes_of_a_row_are_read_as_its_path_is(processor: Ours, tmp_path: Path) -> None:
    path = four_seconds(tmp_path / "cut.wav")
    for size, is_cut in ((44 + 8 * RATE, False), (44 + 6 * RATE, True)):
        path.write_bytes(path.read_bytes()[:size])
        found: list[torch.Tensor] = []
        told: list[list[str]] = []
        for row in (path, {"path": str(path)}, {"bytes": path.read_bytes(), "path": None}):
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                found.append(processor(row).input_values)
            told.append([str(one.message).rpartition("; ")[2] for one in warned])
        assert found[1].equal(found[0])
        assert found[2].equal(found[0])
        assert told[0] == told[1] == told[2]
        assert told[0] == ["everything before was taken"] * is_cut
    with pytest.raises(AudioError):
        processor({"bytes": b"RIFF"})


def test_wrong_sound_is_refused(their_processor: Any, processor: Ours, tmp_path: Path) -> None:
    for nothing in ({}, {"audio": None}):
        with pytest.raises(ValueError, match="You need to provide at least one input"):
            processor(**nothing)
        with pytest.raises(ValueError, match="You need to provide at least one input"):
            their_processor(**nothing)
    with pytest.raises(ValueError, match="Invalid input type"):
        processor(3)
    with pytest.raises(ValueError, match="this one has 'a'"):
        processor({"a": 1})
    with pytest.raises(InputError, match="divide int16 by 32768"):
        processor((A * 1000).astype(np.int16))
    with pytest.raises(InputError, match="16000"):
        processor(A, sampling_rate=16_000)
    with pytest.raises(InputError, match="addresses are not fetched"):
        processor("https://example.org/a.wav")
    with pytest.raises(InputError, match="does not know images"):
        processor(A, images=A)
    with pytest.raises(InputError, match="`text` must be"):
        processor(text=[1])
    with pytest.raises(AudioError):
        processor(tmp_path / "nothing.wav")


def test_ids_become_text_as_there(their_processor: Any, processor: Ours) -> None:
    random = np.random.default_rng(0)
    rows = random.integers(0, len(PIECES) + 3, (20, 12))
    rows[0, 0] = 48_000
    for skip in (False, True):
        wanted = their_processor.batch_decode(rows, skip_special_tokens=skip)
        for given in (rows, rows.tolist(), torch.from_numpy(rows)):
            assert processor.batch_decode(given, skip_special_tokens=skip) == wanted
        assert processor.decode(rows[0], skip_special_tokens=skip) == wanted[0]
        assert processor.tokenizer.decode(rows, skip) == wanted
    assert processor.decode(4) == their_processor.decode(4)
    assert processor.decode([], skip_special_tokens=True) == ""


def test_the_tokenizer_knows_its_pieces(their_processor: Any, processor: Ours) -> None:
    ours, theirs = processor.tokenizer, their_processor.tokenizer
    assert len(ours) == len(theirs)
    assert ours.vocab_size == theirs.vocab_size
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.convert_ids_to_tokens([4, 0]) == theirs.convert_ids_to_tokens([4, 0])
    assert ours.convert_ids_to_tokens(5) == "▁w1"
    assert ours.convert_tokens_to_ids(["▁w1", "nothing"]) == theirs.convert_tokens_to_ids(
        ["▁w1", "nothing"]
    )
    assert ours.encode("w7 w9") == theirs.encode("w7 w9")
    assert ours(["w7", "w9"]) == {"input_ids": [[11], [13]], "attention_mask": [[1], [1]]}


@pytest.fixture(scope="module")
def padding_tokenizer(transformers: ModuleType) -> Any:
    """Theirs with a token to pad with, which the one of the processor lacks."""
    from tokenizers import Tokenizer

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(Vocabulary.from_pieces(PIECES).to_tokenizer_json()),
        unk_token="<unk>", pad_token="<pad>", clean_up_tokenization_spaces=False,
    )  # fmt: skip


TOKENIZER_CALLS: dict[str, Callable[[Any], Any]] = {
    "tokenize": lambda it: it.tokenize("w7 w9 q"),
    "pieces to text": lambda it: it.convert_tokens_to_string(["▁w1", "x0", "▁w2"]),
    "no pieces": lambda it: it.convert_tokens_to_string([]),
    "ids to pieces": lambda it: it.convert_ids_to_tokens([0, 4, 5]),
    "without special ones": lambda it: it.convert_ids_to_tokens([0, 4], skip_special_tokens=True),
    "of a tensor": lambda it: it.convert_ids_to_tokens(torch.tensor([0, 4, 3])),
    "encode": lambda it: it.encode("w7 w9", add_special_tokens=False),
    "encode a tensor": lambda it: it.encode("w7 w9", return_tensors="pt"),
    "no mask": lambda it: it("w7 w9", return_attention_mask=False),
    "truncated": lambda it: it(["w7 w9 w1", "w2"], truncation=True, max_length=2),
    "truncated and padded": lambda it: it(
        ["w7 w9 w1", "w2"], truncation=True, max_length=2, padding="max_length"
    ),
    "padded on the left": lambda it: it(["w7 w9", "w2"], padding=True, padding_side="left"),
    "to a multiple": lambda it: it(["w7 w9 w1", "w2"], padding=True, pad_to_multiple_of=4),
    "pad": lambda it: it.pad({"input_ids": [[1, 2], [3]]}),
    "pad dicts": lambda it: it.pad([{"input_ids": [1, 2]}, {"input_ids": [3]}]),
    "pad with masks": lambda it: it.pad(
        [
            {"input_ids": [1, 2], "attention_mask": [1, 0]},
            {"input_ids": [3], "attention_mask": [1]},
        ],
        return_tensors="np",
    ),
    "pad one": lambda it: it.pad({"input_ids": [1, 2]}, padding="max_length", max_length=5),
    "pad a call": lambda it: it.pad(it(["w7 w9", "w1"]), max_length=4, padding="max_length"),
    "decode a number": lambda it: it.decode(np.int64(4)),
    "slow arguments": lambda it: it.decode([4, 5], spaces_between_special_tokens=True),
    "size": lambda it: (len(it), it.vocab_size, it.is_fast, it.padding_side, it.truncation_side),
    "added": lambda it: it.get_added_vocab(),
    "unk": lambda it: (it.unk_token, it.unk_token_id),
    "pad token": lambda it: (it.pad_token, it.pad_token_id),
    "no ends": lambda it: (it.bos_token, it.bos_token_id, it.eos_token, it.eos_token_id),
    "names": lambda it: list(it.model_input_names),
    "backend": lambda it: it.backend_tokenizer.encode("w7").ids,
}


@pytest.mark.parametrize("case", TOKENIZER_CALLS)
def test_the_tokenizer_answers_as_theirs(
    padding_tokenizer: Any, processor: Ours, case: str
) -> None:
    call = TOKENIZER_CALLS[case]
    given, wanted = call(processor.tokenizer), call(padding_tokenizer)
    if hasattr(wanted, "keys"):
        assert set(given) == set(wanted)
        for key in wanted:
            assert type(given[key]) is type(wanted[key])
            assert (
                np.asarray(given[key], object).tolist() == np.asarray(wanted[key], object).tolist()
            )
    elif isinstance(wanted, torch.Tensor):
        torch.testing.assert_close(given, wanted)
    else:
        assert given == wanted


def test_special_tokens_are_those_that_the_file_names(
    their_processor: Any, processor: Ours
) -> None:
    ours, theirs = processor.tokenizer, their_processor.tokenizer
    for name in ("special_tokens_map", "all_special_tokens", "all_special_ids"):
        assert getattr(ours, name) == getattr(theirs, name) != []
    named = Tokenizer(ours.vocabulary, {"eos_token": {"content": "</s>"}, "bos_token": "<s>"})
    assert (named.eos_token, named.eos_token_id, named.bos_token_id) == ("</s>", 2, 1)
    assert named.all_special_ids == [1, 2, 0]


def test_a_tokenizer_refuses_what_it_does_not_know(processor: Ours) -> None:
    it = processor.tokenizer
    for call, message in (
        (lambda: it("w1", text_pair="w2"), "does not know text_pair"),
        (lambda: it.pad({}), "a dict with input_ids"),
        (lambda: it.pad({"input_ids": [1]}, padding_side="up"), "padding_side"),
        (lambda: it.pad({"input_ids": [1]}, padding="max_length"), "max_length is defined"),
        (lambda: it.pad({"input_ids": [1]}, padding="longer"), "not a valid PaddingStrategy"),
        (lambda: it.pad({"input_ids": [[1], [2, 3]]}, False, return_tensors="np"), "padding=True"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_everything_can_be_pickled(
    processor: Ours, ours: KyutaiSpeechToTextForConditionalGeneration
) -> None:
    again = pickle.loads(pickle.dumps(processor))
    inputs = again(A)
    torch.testing.assert_close(inputs.input_values, processor(A).input_values)
    assert again.tokenizer.encode("w7 w9") == processor.tokenizer.encode("w7 w9")
    model = pickle.loads(pickle.dumps(ours))
    model.gradient_checkpointing_enable()
    model = copy.deepcopy(pickle.loads(pickle.dumps(model)))
    assert model.is_gradient_checkpointing
    assert model.get_input_embeddings().weight is model.model.lm.text_embedding.weight
    tokens = model.generate(**inputs)
    torch.testing.assert_close(tokens, ours.generate(**inputs))
    assert again.batch_decode(tokens) == processor.batch_decode(tokens)
    for thing in (inputs, ours.config, ours.generation_config, processor.feature_extractor):
        assert (
            pickle.loads(pickle.dumps(thing)).keys()
            if isinstance(thing, dict)
            else (pickle.loads(pickle.dumps(thing)) == thing)
        )


def test_values_go_to_a_file_of_any_name(
    their_processor: Any, processor: Ours, tmp_path: Path
) -> None:
    for ours, theirs in (
        (processor, their_processor),
        (processor.feature_extractor, their_processor.feature_extractor),
    ):
        ours.to_json_file(tmp_path / "ours.json")
        theirs.to_json_file(tmp_path / "theirs.json")
        given, wanted = (
            json.loads((tmp_path / f"{name}.json").read_text()) for name in ("ours", "theirs")
        )
        assert given == wanted == ours.to_dict()


def test_words_have_times_without_delay_and_silence(processor: Ours) -> None:
    # 25 ids a second, silence of 0.1 s before, text half a second late
    w1, w2, x0 = PIECES.index("▁w1"), PIECES.index("▁w2"), PIECES.index("x0")
    row = [3] * 60
    row[10], row[20], row[21], row[30] = 0, w1, x0, w2
    ids = [[39, *row], [39, *[3] * 60]]
    first, second = processor.words(torch.tensor(ids))
    assert not second
    assert [word.text for word in first] == ["w1x0", "w2"]
    assert first[0].start == pytest.approx(20 / 25 - 0.6)
    assert first[0].end == pytest.approx(22 / 25 - 0.6)
    assert first[1].start == pytest.approx(30 / 25 - 0.6)
    assert all(math.isnan(word.probability) for word in first)
    logits = torch.zeros(60, 2, 40)
    logits[20, 0, w1] = math.log(39.0)  # half of the probability; the other pieces have 1 in 40
    scored, _ = processor.words(ids, tuple(logits))
    assert scored[0].probability == pytest.approx(0.5 / 40)
    assert scored[1].probability == pytest.approx(1 / 40)


def test_the_models_own_boundaries_end_words_and_fill_rows(
    saved: Path, processor: Ours, tmp_path: Path
) -> None:
    folder = shutil.copytree(saved, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": 6}))
    other = Ours.from_pretrained(folder)
    assert (processor.tokenizer.pad_id, processor.tokenizer.word_start_id) == (3, 0)
    assert (other.tokenizer.pad_id, other.tokenizer.word_start_id) == (6, 0)
    w1, x0 = PIECES.index("▁w1"), PIECES.index("x0")
    ids = [[39, w1, 6, x0, 6]]
    assert [word.text for word in other.words(ids)[0]] == ["w1", "x0"]
    assert [word.text for word in processor.words(ids)[0]] != ["w1", "x0"]
    assert other(text=["w3 w1", "w2"], padding=True).input_ids[1, 1] == 6


def test_words_of_a_generated_batch(
    processor: Ours, ours: KyutaiSpeechToTextForConditionalGeneration
) -> None:
    inputs = processor([noise(60 * FRAME, 4), noise(9 * FRAME, 5)])
    out = ours.generate(**inputs, return_dict_in_generate=True, output_logits=True)
    words = processor.words(out.sequences, out.logits)
    texts = processor.batch_decode(out.sequences, skip_special_tokens=True)
    assert [len(row) > 0 for row in words] == [True, True]
    for row, text in zip(words, texts, strict=True):
        assert "".join(word.text for word in row) == text.replace(" ", "")
        assert all(0 < word.probability <= 1 for word in row)


def test_a_processor_goes_to_transformers_and_back(
    transformers: ModuleType, their_processor: Any, processor: Ours, tmp_path: Path
) -> None:
    written = processor.save_pretrained(tmp_path)
    assert sorted(Path(path).name for path in written) == [
        "preprocessor_config.json", "processor_config.json",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    theirs = transformers.KyutaiSpeechToTextProcessor.from_pretrained(tmp_path)
    assert theirs.feature_extractor.to_dict() == their_processor.feature_extractor.to_dict()
    ids = [[48_000, 0, 5, 21, 3, 6]]
    for skip in (False, True):
        assert theirs.batch_decode(ids, skip_special_tokens=skip) == their_processor.batch_decode(
            ids, skip_special_tokens=skip
        )
    # A folder with a processor only: the frame rate is that of the published codec.
    again = Ours.from_pretrained(tmp_path)
    assert again.feature_extractor == processor.feature_extractor
    assert (again.frame_rate, processor.frame_rate) == (12.5, 25.0)
    (tmp_path / "preprocessor_config.json").unlink()
    assert Ours.from_pretrained(tmp_path).feature_extractor == processor.feature_extractor
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        Ours.from_pretrained(tmp_path)
    assert "audio_delay_seconds" in repr(again)


def test_rows_of_a_dataset_say_their_rate(processor: KyutaiSpeechToTextProcessor) -> None:
    samples = noise(1600)
    plain = processor(samples)["input_values"]
    for key in ("array", "raw"):
        row = {key: samples, "sampling_rate": RATE, "path": None}
        assert processor(row)["input_values"].equal(plain)
        assert processor([row, row])["input_values"].equal(torch.cat([plain, plain]))
    with_rate = processor({"array": np.repeat(samples, 2), "sampling_rate": 2 * RATE})
    assert with_rate["input_values"].shape == plain.shape
    with pytest.raises(ValueError, match="sampling_rate"):
        processor({"array": samples})
    with pytest.raises(ValueError, match="'array'"):
        processor({"text": "hello"})


@pytest.mark.parametrize("rate", [RATE, 2 * RATE])
@pytest.mark.parametrize("key", ["array", "raw"])
def test_channels_of_a_row_are_mixed(processor: Ours, key: str, rate: int) -> None:
    mono = noise(1600)

    def heard(samples: Any) -> torch.Tensor:
        return processor({key: samples, "sampling_rate": rate})["input_values"]

    plain = heard(mono)
    assert plain.abs().max() > 0
    both = np.stack([mono, mono])
    for same in (both, both.T, mono[:, None], both.tolist()):
        assert heard(same).equal(plain)
    half = processor({key: mono / 2, "sampling_rate": rate})["input_values"]
    torch.testing.assert_close(heard(np.stack([mono, 0 * mono], axis=1)), half)
    for wrong in (np.zeros((2, 2, 99), np.float32), np.full(99, np.nan, np.float32)):
        with pytest.raises(AudioError):
            heard(wrong)


def test_channels_that_cancel_for_a_while_are_heard(caplog: pytest.LogCaptureFixture) -> None:
    mono, third = noise(3 * RATE), RATE
    planes = np.stack([mono, np.concatenate([-mono[:third], mono[third:]])])
    for row in ({"array": planes, "sampling_rate": RATE}, SimpleDecoder(planes)):
        caplog.clear()
        (sound,) = recordings(row, RATE)
        late = RATE // 20
        assert np.array_equal(sound[late:], mono[late:])
        assert "the channels cancel each other" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("second", "told"), [(-1, "channels cancel"), (0, "nothing but silence in all of the sound")]
)
def test_faults_of_the_sound_are_logged(
    second: int, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = (noise(RATE) / 8 * 32_767).astype("<i2") * abs(second)
    with wave.open(str(tmp_path / "two.wav"), "wb") as file:
        file.setparams((2, 2, RATE, 0, "NONE", ""))
        file.writeframes(np.stack([samples, second * samples], axis=1).tobytes())
    recordings([tmp_path / "two.wav"], RATE)
    (record,) = caplog.records
    assert record.name.startswith("kiku.")
    assert record.getMessage().count("two.wav") == 1
    assert told in record.getMessage()
    if not second:
        recordings(np.zeros(RATE, np.float32), RATE)
        assert told in caplog.messages[-1]
        recordings([{"bytes": (tmp_path / "two.wav").read_bytes(), "path": None}], RATE)
        assert told in caplog.messages[-1]
        assert "object at" not in caplog.text


class SimpleDecoder:
    """As torchcodec's: channels first."""

    def __init__(self, data: Any) -> None:
        self._data = torch.from_numpy(data)

    def get_all_samples(self) -> Any:
        return SimpleNamespace(data=self._data, sample_rate=RATE)


def test_a_decoder_of_a_dataset_is_asked_for_its_samples(
    processor: KyutaiSpeechToTextProcessor,
) -> None:
    one = noise(1600)
    expected = processor(one)["input_values"]
    for data in (np.stack([one, one]), one[None], one):
        assert processor(SimpleDecoder(data))["input_values"].equal(expected)
    # Its channels come first, whatever its length.
    short = SimpleDecoder(np.stack([one[:5], one[:5]]))
    assert processor(short)["input_values"].equal(processor(one[:5])["input_values"])


def test_a_dtype_is_a_models_and_changes_nothing_here(saved: Path, tmp_path: Path) -> None:
    for name in ("dtype", "torch_dtype"):
        loaded = KyutaiSpeechToTextProcessor.from_pretrained(saved, **{name: torch.bfloat16})
        assert loaded(noise(FRAME), return_tensors="pt").input_values.dtype == torch.float32
        loaded.save_pretrained(tmp_path)
        assert name not in (tmp_path / "processor_config.json").read_text()
