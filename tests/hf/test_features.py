"""The feature extractor gives what transformers' gives, and refuses what it refuses."""

import copy
import logging
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from kiku.errors import CheckpointError, InputError, KikuError
from kiku.hf import BatchFeature, KyutaiSpeechToTextFeatureExtractor

PUBLISHED = dict(audio_delay_seconds=2.5, audio_silence_prefix_seconds=1.0)
CHUNKS = {"chunk_length_s": 0.2, "overlap": 0.25}
SMALL = dict(sampling_rate=100, audio_delay_seconds=0.25, audio_silence_prefix_seconds=0.1)
A, B, C = (
    np.random.default_rng(i).standard_normal(n).astype(np.float32)
    for i, n in enumerate((50, 31, 0))
)

CASES: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    "published": (PUBLISHED, A, dict(sampling_rate=24_000)),
    "defaults": ({}, A, {}),
    "one": (SMALL, A, {}),
    "float64": (SMALL, A.astype(np.float64), {}),
    "float16": (SMALL, A.astype(np.float16), {}),
    "int16": (SMALL, (A * 1000).astype(np.int16), {}),
    "int16 in a list": (SMALL, [(A * 1000).astype(np.int16)], {}),
    "floats": (SMALL, A.tolist(), {}),
    "ints": (SMALL, [1, 2, 3], {}),
    "empty array": (SMALL, C, {}),
    "batch": (SMALL, [A, B], {}),
    "batch with an empty row": (SMALL, [A, C, B], {}),
    "batch of lists": (SMALL, [A.tolist(), B.tolist()], {}),
    "tuple": (SMALL, (A, B), {}),
    "longest": (SMALL, [A, B], dict(padding="longest")),
    "max_length": (SMALL, [A, B], dict(padding="max_length", max_length=64)),
    "max_length of one": (SMALL, A, dict(padding="max_length", max_length=64)),
    "too long for max_length": (SMALL, A, dict(padding="max_length", max_length=40)),
    "no padding": (SMALL, A, dict(padding=False)),
    "no padding, equal": (SMALL, [A, A], dict(padding=False)),
    "do_not_pad": (SMALL, [A, A], dict(padding="do_not_pad")),
    "truncated": (SMALL, [A, B], dict(truncation=True, max_length=40)),
    "truncated, not padded": (SMALL, [A, A], dict(truncation=True, max_length=40, padding=False)),
    "padding value": ({**SMALL, "padding_value": 0.5}, [A, B], {}),
    "left": ({**SMALL, "padding_side": "left"}, [A, B], {}),
    "chunks": ({**SMALL, **CHUNKS}, [A, B], {}),
    "chunks, truncated": ({**SMALL, **CHUNKS}, [A, B], dict(truncation=True)),
    "chunks, no padding": ({**SMALL, **CHUNKS}, A, dict(padding=False)),
    "one channel asked for": ({**SMALL, "feature_size": 1}, A, {}),
}  # fmt: skip


def both(transformers: ModuleType, values: dict[str, Any]) -> tuple[Any, Any]:
    return (
        transformers.KyutaiSpeechToTextFeatureExtractor(**values),
        KyutaiSpeechToTextFeatureExtractor(**values),
    )


@pytest.mark.parametrize("return_tensors", [None, "np", "pt"])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_transformers(
    transformers: ModuleType, case: str, return_tensors: str | None
) -> None:
    values, audio, arguments = CASES[case]
    theirs, ours = both(transformers, values)
    wanted = theirs(audio, return_tensors=return_tensors, **arguments)
    given = ours(audio, return_tensors=return_tensors, **arguments)
    assert set(given) == set(wanted)
    for key in wanted:
        assert type(given[key]) is type(wanted[key])
        for mine, other in zip(given[key], wanted[key], strict=True):
            assert mine.dtype == other.dtype
            np.testing.assert_array_equal(np.asarray(mine), np.asarray(other))


REFUSED: dict[str, tuple[dict[str, Any], Any, dict[str, Any], str]] = {
    "rate": (SMALL, A, dict(sampling_rate=16_000), "sampled with 100 and not 16000"),
    "both": (SMALL, A, dict(padding=True, truncation=True), "Both padding and truncation"),
    "three axes": (SMALL, np.zeros((2, 3, 4)), {}, r"Expected input shape \(channels, length\)"),
    "two channels": (SMALL, np.zeros((2, 50)), {}, "mono audio but example has 2 channels"),
    "a channel axis": (SMALL, [np.zeros((1, 50))], {}, "mono audio but example has 1 channels"),
    "not stereo": ({"feature_size": 2}, np.zeros((3, 9)), {}, "stereo audio but example has 3"),
    "no length to cut at": (SMALL, A, dict(truncation=True), "that ``max_length`` is defined"),
    "no length to fill to": (SMALL, A, dict(padding="max_length"), "that max_length is defined"),
    "strategy": (SMALL, A, dict(padding="longer"), "not a valid PaddingStrategy"),
    "side": ({**SMALL, "padding_side": "up"}, [A, B], {}, "Invalid padding strategy"),
    "no fill": ({**SMALL, "padding_value": None}, [A, B], {}, "not have a padding value"),
    "tensors": (SMALL, A, dict(return_tensors="tf"), "tf"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_as_transformers(transformers: ModuleType, case: str) -> None:
    values, audio, arguments, message = REFUSED[case]
    theirs, ours = both(transformers, values)
    with pytest.raises(ValueError, match=message):
        theirs(audio, **arguments)
    with pytest.raises(ValueError, match=message) as caught:
        ours(audio, **arguments)
    assert isinstance(caught.value, KikuError)


def test_what_fails_inside_numpy_there_is_explained(transformers: ModuleType) -> None:
    cases: list[tuple[dict[str, Any], Any, dict[str, Any], str]] = [
        ({"feature_size": 2}, np.zeros((2, 9)), {}, "mono"),
        (
            SMALL,
            [A, B],
            dict(padding=False),
            r"\[50, 31\] samples make no batch; pass padding=True",
        ),
    ]
    for values, audio, arguments, message in cases:
        theirs, ours = both(transformers, values)
        with pytest.raises(ValueError, match=r"shape|broadcast|inhomogeneous"):
            theirs(audio, **arguments)
        with pytest.raises(InputError, match=message):
            ours(audio, **arguments)


PADS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rows": ({"input_values": [A, B]}, {}),
    "dicts": ([{"input_values": A}, {"input_values": B}], {}),
    "one": ({"input_values": [A]}, dict(padding="max_length", max_length=64)),
    "to a multiple": ({"input_values": [A, B]}, dict(pad_to_multiple_of=32)),
    "truncated": ({"input_values": [A, B]}, dict(truncation=True, max_length=40)),
    "truncated to a multiple": (
        {"input_values": [A, B]}, dict(truncation=True, max_length=33, pad_to_multiple_of=8)
    ),
    "truncated, not padded": (
        {"input_values": [A, A]}, dict(truncation=True, max_length=40, padding=False)
    ),
    "as tensors": ({"input_values": [A, B]}, dict(return_tensors="pt")),
    "of tensors": ({"input_values": [torch.from_numpy(A), torch.from_numpy(B)]}, {}),
    "no mask": ({"input_values": [A, B]}, dict(return_attention_mask=False)),
    "floats": ({"input_values": [[0.5, 0.25], [1.0]]}, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", PADS)
def test_pad_is_theirs(transformers: ModuleType, case: str) -> None:
    features, arguments = PADS[case]
    for values in (SMALL, {**SMALL, "padding_side": "left"}):
        theirs, ours = both(transformers, values)
        wanted = theirs.pad(copy.deepcopy(features), **arguments)
        given = ours.pad(features, **arguments)
        assert set(given) == set(wanted)
        for key in wanted:
            assert type(given[key]) is type(wanted[key])
            for mine, other in zip(given[key], wanted[key], strict=True):
                assert np.asarray(mine).dtype == np.asarray(other).dtype
                np.testing.assert_array_equal(np.asarray(mine), np.asarray(other))


def test_one_recording_is_padded_by_itself() -> None:
    """There, it fails."""
    batch = KyutaiSpeechToTextFeatureExtractor(**SMALL).pad(
        {"input_values": A}, padding="max_length", max_length=64
    )
    assert batch.input_values.shape == batch.attention_mask.shape == (64,)
    assert batch.attention_mask.sum() == 50


def test_pad_takes_batches_of_transformers(transformers: ModuleType) -> None:
    rows = transformers.BatchFeature({"input_values": [[0.1, 0.2], [0.3]]})
    padded = KyutaiSpeechToTextFeatureExtractor().pad(rows)
    assert padded["input_values"].tolist()[1] == pytest.approx([0.3, 0.0])


def test_rows_that_are_not_padded_stay_apart(transformers: ModuleType) -> None:
    features = {"input_values": [[0.1, 0.2, 0.3], [0.4]]}
    theirs, ours = both(transformers, SMALL)
    for more in ({"padding": False}, {"padding": False, "truncation": True, "max_length": 2}):
        wanted = theirs.pad(copy.deepcopy(features), **more)["input_values"]
        given = ours.pad(features, **more)["input_values"]
        assert [len(row) for row in given] == [len(row) for row in wanted]
        assert all(np.array_equal(one, other) for one, other in zip(given, wanted, strict=True))
    with pytest.raises(InputError, match="different lengths"):
        ours.pad(features, padding=False, return_tensors="np")


def test_pad_wants_samples() -> None:
    for nothing in ({}, {"input_values": []}, [{}], 3):
        with pytest.raises(InputError, match="pad takes a dict with input_values"):
            KyutaiSpeechToTextFeatureExtractor(**SMALL).pad(nothing)


def test_an_unknown_argument_is_a_type_error(transformers: ModuleType) -> None:
    for extractor in both(transformers, SMALL):
        with pytest.raises(TypeError):
            extractor(A, return_attention_mask=True)


def test_no_recording_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="no audio"):
        KyutaiSpeechToTextFeatureExtractor(**SMALL)([])


def test_lists_of_tensors_are_batches() -> None:
    extractor = KyutaiSpeechToTextFeatureExtractor(**SMALL)
    tensors = extractor([torch.from_numpy(A), torch.from_numpy(B)], return_tensors="np")
    np.testing.assert_array_equal(
        tensors.input_values, extractor([A, B], return_tensors="np").input_values
    )


def test_a_missing_rate_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    extractor = KyutaiSpeechToTextFeatureExtractor(**SMALL)
    with caplog.at_level(logging.WARNING):
        extractor(A, sampling_rate=100)
        assert not caplog.records
        extractor(A)
    assert "sampling_rate" in caplog.text


def test_chunks_are_counted_as_there(transformers: ModuleType) -> None:
    for values in ({}, {"chunk_length_s": 0.5}, {"chunk_length_s": 0.5, "overlap": 0.01}):
        theirs, ours = both(transformers, values)
        assert (ours.chunk_length, ours.chunk_stride) == (theirs.chunk_length, theirs.chunk_stride)


def test_values_go_to_a_file_and_back_both_ways(transformers: ModuleType, tmp_path: Any) -> None:
    theirs, ours = both(transformers, {**SMALL, "someones_own": [1, 2]})
    theirs.save_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    assert KyutaiSpeechToTextFeatureExtractor.from_pretrained(tmp_path / "theirs") == ours
    again = transformers.KyutaiSpeechToTextFeatureExtractor.from_pretrained(tmp_path / "ours")
    assert again.to_dict() == theirs.to_dict() == ours.to_dict()
    changed = KyutaiSpeechToTextFeatureExtractor.from_pretrained(
        tmp_path / "ours", audio_delay_seconds=3.0
    )
    assert changed.audio_delay_seconds == 3.0
    assert changed != ours


def test_a_folder_without_values_is_refused(tmp_path: Any) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        KyutaiSpeechToTextFeatureExtractor.from_pretrained(tmp_path)


def test_a_batch_moves_and_casts_as_there(transformers: ModuleType) -> None:
    values = {"x": torch.ones(2), "n": torch.ones(2, dtype=torch.int32), "words": ["a"]}
    theirs, ours = transformers.BatchFeature(dict(values)), BatchFeature(values)
    for target in (torch.bfloat16, "cpu", torch.device("meta")):
        assert ours.to(target) is ours
        theirs.to(target)
        for key in ("x", "n"):
            assert (ours[key].dtype, ours[key].device) == (theirs[key].dtype, theirs[key].device)
    assert ours.words == ["a"]
    with pytest.raises(AttributeError):
        _ = ours.nothing
    with pytest.raises(ValueError, match="device or a dtype"):
        ours.to([1])
