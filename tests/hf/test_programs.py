"""Programs as people write them for transformers' Kyutai Speech-To-Text: with the import changed,
the same ids come out.

Each program is a function of the module that it imports from, of a checkpoint that transformers
wrote, and of a folder of its own; it returns ids, or text.
"""

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.hf.tiny_checkpoint import RATE, VOCAB_SIZE, columns, noise

Program = Callable[[Any, str, Path], Any]

# Alike in length: transformers lets shorter rows run on with the longest.
DATASET = [
    {"audio": {"array": noise(1600, seed=i), "sampling_rate": RATE, "path": None}} for i in (1, 2)
]


def _load(hf: Any, checkpoint: str) -> tuple[Any, Any]:
    processor = hf.KyutaiSpeechToTextProcessor.from_pretrained(checkpoint)
    model = hf.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(checkpoint)
    return processor, model


def documentation_page(hf: Any, checkpoint: str, folder: Path) -> Any:
    processor = hf.KyutaiSpeechToTextProcessor.from_pretrained(checkpoint)
    model = hf.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(
        checkpoint, device_map="cpu", torch_dtype="auto"
    )
    inputs = processor(audio=DATASET[0]["audio"]["array"], sampling_rate=RATE)
    inputs.to("cpu")
    output_tokens = model.generate(**inputs)
    return output_tokens, processor.batch_decode(output_tokens, skip_special_tokens=True)


def batch_of_a_dataset(hf: Any, checkpoint: str, folder: Path) -> Any:
    processor, model = _load(hf, checkpoint)
    audio_arrays = [row["audio"]["array"] for row in DATASET]
    inputs = processor(
        audio=audio_arrays, sampling_rate=RATE, return_tensors="pt", padding=True
    ).to(model.device)
    output_tokens = model.generate(**inputs)
    return output_tokens, processor.batch_decode(output_tokens, skip_special_tokens=True)


def mapped_over_a_dataset(hf: Any, checkpoint: str, folder: Path) -> Any:
    processor, model = _load(hf, checkpoint)

    def transcribe(row: dict[str, Any]) -> dict[str, Any]:
        audio = row["audio"]
        inputs = processor(audio=audio["array"], sampling_rate=audio["sampling_rate"])
        with torch.inference_mode():
            ids = model.generate(**inputs)
        return {**row, "ids": ids, "text": processor.decode(ids[0], skip_special_tokens=True)}

    done = [transcribe(row) for row in DATASET]
    return [row["ids"] for row in done], [row["text"] for row in done]


def half_precision(hf: Any, checkpoint: str, folder: Path) -> Any:
    processor = hf.KyutaiSpeechToTextProcessor.from_pretrained(checkpoint)
    model = hf.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.bfloat16, low_cpu_mem_usage=True, attn_implementation="sdpa"
    )
    assert model.codec_model.dtype == torch.float32
    inputs = processor(audio=DATASET[0]["audio"]["array"], sampling_rate=RATE)
    # Ids of half precision may differ where two are equally likely: the dtypes are what counts.
    return str(model.dtype), model.generate(**inputs).shape


def save_and_reload(hf: Any, checkpoint: str, folder: Path) -> Any:
    processor, model = _load(hf, checkpoint)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    processor, model = _load(hf, str(folder))
    return model.generate(**processor(audio=DATASET[1]["audio"]["array"], sampling_rate=RATE))


def generation_config_edited(hf: Any, checkpoint: str, folder: Path) -> Any:
    processor, model = _load(hf, checkpoint)
    model.generation_config.audio_window_size = None
    model.generation_config.repetition_penalty = 1.3
    model.generation_config.suppress_tokens = [5, 6]
    inputs = processor(audio=DATASET[0]["audio"]["array"], sampling_rate=RATE)
    return model.generate(**inputs, max_new_tokens=20)


def scores_and_confidence(hf: Any, checkpoint: str, folder: Path) -> Any:
    processor, model = _load(hf, checkpoint)
    inputs = processor(audio=DATASET[0]["audio"]["array"], sampling_rate=RATE)
    out = model.generate(**inputs, return_dict_in_generate=True, output_scores=True)
    likely = torch.stack(out.scores, 1)[..., : VOCAB_SIZE - 1].log_softmax(-1).max(-1).values
    return out.sequences, likely.round(decimals=3)


class _Collected:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.is_over = False

    def put(self, value: torch.Tensor) -> None:
        self.ids += value.flatten().tolist()

    def end(self) -> None:
        self.is_over = True


def streamed_word_by_word(hf: Any, checkpoint: str, folder: Path) -> Any:
    processor, model = _load(hf, checkpoint)
    streamer = _Collected()
    inputs = processor(audio=DATASET[0]["audio"]["array"], sampling_rate=RATE)
    ids = model.generate(**inputs, streamer=streamer)
    assert streamer.is_over
    assert streamer.ids == ids[0].tolist()
    return ids, processor.tokenizer.decode(streamer.ids, skip_special_tokens=True)


def compiled_and_moved(hf: Any, checkpoint: str, folder: Path) -> Any:
    processor, model = _load(hf, checkpoint)
    model = model.to("cpu").eval().requires_grad_(False)
    inputs = processor(audio=DATASET[0]["audio"]["array"], sampling_rate=RATE)
    return model.generate(**inputs, cache_implementation="dynamic", disable_compile=True)


def fine_tuned(hf: Any, checkpoint: str, folder: Path) -> Any:
    _, model = _load(hf, checkpoint)
    model.train()
    model.gradient_checkpointing_enable()
    for p in model.codec_model.parameters():
        p.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses: list[float] = []
    for step in range(3):
        ids = columns(2, 10, seed=step)
        ids[..., 0].clamp_(max=VOCAB_SIZE - 2)
        labels = ids[..., 0].clone()
        labels[:, :2] = -100
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(round(loss.item(), 1))
    return len(losses), losses[0] > 0


def word_starts(hf: Any, checkpoint: str, folder: Path) -> Any:
    """Times by hand, as people do who have no `processor.words`."""
    processor, model = _load(hf, checkpoint)
    ids = model.generate(**processor(audio=DATASET[0]["audio"]["array"], sampling_rate=RATE))
    pieces = processor.tokenizer.convert_ids_to_tokens(ids[0, 1:].tolist())
    delay = processor.feature_extractor.audio_delay_seconds
    step = model.config.frame_size / processor.feature_extractor.sampling_rate
    return [
        (piece, round(t * step - delay, 3))
        for t, piece in enumerate(pieces)
        if piece and piece.startswith("▁")
    ]


def features_by_hand(hf: Any, checkpoint: str, folder: Path) -> Any:
    extractor = hf.KyutaiSpeechToTextFeatureExtractor.from_pretrained(checkpoint)
    model = hf.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(checkpoint)
    rows = [row["audio"]["array"] for row in DATASET]
    inputs = extractor(rows, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    lengths = model.codec_model.get_encoded_length(torch.tensor([inputs["input_values"].shape[-1]]))
    return model.generate(input_values=inputs["input_values"]), lengths


PROGRAMS = (
    documentation_page, batch_of_a_dataset, mapped_over_a_dataset, half_precision, save_and_reload,
    generation_config_edited, scores_and_confidence, streamed_word_by_word, compiled_and_moved,
    fine_tuned, word_starts, features_by_hand,
)  # fmt: skip


def auto_classes(hf: Any, checkpoint: str, folder: Path) -> Any:
    processor = hf.AutoProcessor.from_pretrained(checkpoint)
    model = hf.AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint, dtype="auto")
    model.eval()
    return model.generate(**processor(audio=DATASET[0]["audio"]["array"], sampling_rate=RATE))


@pytest.fixture(scope="session")
def checkpoint(saved: Path, theirs: Any) -> str:
    """A checkpoint that transformers wrote."""
    return str(saved)


@pytest.fixture
def said(transformers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers may say the filler row of its head, whose logit is always 0: kept out, so that
    ids can be compared."""
    kind = transformers.KyutaiSpeechToTextForConditionalGeneration
    generate = kind.generate

    def without_filler(self: Any, **kwargs: Any) -> Any:
        filler = [[self.config.vocab_size - 1]]
        return generate(self, bad_words_ids=filler, **kwargs)

    monkeypatch.setattr(kind, "generate", without_filler)


@pytest.fixture(scope="session")
def expected(
    transformers: ModuleType, checkpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Program], Any]:
    """What a program gives with transformers; it runs once for both of kiku's modules."""

    def of(program: Program) -> Any:
        return _run(program, transformers, checkpoint, tmp_path_factory.mktemp("theirs"))

    return cache(of)


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize("name", ["kiku.hf", "kiku.hf.auto"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_gives_what_it_gives_with_transformers(
    program: Program, name: str, expected: Callable[[Program], Any], checkpoint: str, tmp_path: Path
) -> None:
    _same(_run(program, _module(name), checkpoint, tmp_path), expected(program))


@pytest.mark.usefixtures("said")
def test_auto_classes_give_what_those_of_transformers_give(
    transformers: ModuleType, checkpoint: str, tmp_path: Path
) -> None:
    # transformers' processor takes 24,000 Hz for granted where it is not told, and is told here.
    expected = _run(auto_classes, transformers, checkpoint, tmp_path)
    _same(_run(auto_classes, _module("kiku.hf.auto"), checkpoint, tmp_path), expected)


def _module(name: str) -> Any:
    from importlib import import_module

    return import_module(name)


def _run(program: Program, hf: Any, checkpoint: str, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return program(hf, checkpoint, folder)


def _same(found: Any, expected: Any) -> None:
    if isinstance(expected, torch.Tensor):
        assert found.shape == expected.shape
        assert np.allclose(found.numpy(), expected.numpy(), atol=2e-3)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _same(one, other)
    else:
        assert found == expected
