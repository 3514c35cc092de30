"""`kiku.hf.auto`: one of transformers' models, with kiku's values."""

import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from kiku.checkpoint.corrections import CorrectedValue
from kiku.errors import CheckpointError
from kiku.hf import KyutaiSpeechToTextForConditionalGeneration, KyutaiSpeechToTextProcessor
from tests.conftest import ROOT
from tests.hf.tiny_checkpoint import FRAME, RATE, VOCAB_SIZE, columns, noise

FRAMES = 20


@pytest.fixture(scope="session")
def auto(transformers: ModuleType) -> ModuleType:
    """The module, imported late: transformers warns while it is."""
    import kiku.hf.auto

    return kiku.hf.auto


@pytest.fixture(scope="session")
def model(auto: ModuleType, saved: Path) -> Any:
    """The tiny checkpoint; not to be changed."""
    return auto.AutoModelForSpeechSeq2Seq.from_pretrained(saved)


@pytest.fixture
def own_model(auto: ModuleType, saved: Path) -> Any:
    """The tiny checkpoint, to be changed."""
    return auto.AutoModelForSpeechSeq2Seq.from_pretrained(saved)


@pytest.fixture(scope="session")
def sound() -> torch.Tensor:
    """Two rows of noise."""
    return torch.from_numpy(noise(2 * FRAMES * FRAME)).view(2, 1, -1)


@pytest.fixture(scope="session")
def expected(ours: KyutaiSpeechToTextForConditionalGeneration, sound: torch.Tensor) -> torch.Tensor:
    """What kiku.hf hears there."""
    return ours.generate(input_values=sound)


def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    import kiku.hf.auto.modeling as modeling

    monkeypatch.setattr(modeling, "engine_around", None)


def test_it_is_one_of_transformers_models(model: Any, theirs: Any) -> None:
    assert isinstance(model, type(theirs))
    assert isinstance(model.model, type(theirs.model))
    assert model.state_dict().keys() == theirs.state_dict().keys()


def test_the_likeliest_ids_come_from_the_driver(
    model: Any, sound: torch.Tensor, expected: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(model), "forward", None)
    assert model.generate(input_values=sound).equal(expected)


def test_transformers_own_way_gives_the_same_ids(
    model: Any, sound: torch.Tensor, expected: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_driver(monkeypatch)
    out = model.generate(input_values=sound, return_dict_in_generate=True, output_scores=True)
    assert out.sequences.equal(expected)
    assert len(out.scores) == FRAMES
    assert out.past_key_values.get_seq_length() == FRAMES


@pytest.mark.parametrize("more", [{}, {"return_dict_in_generate": True}, {"num_beams": 2}])
def test_rows_end_with_their_own_sound_either_way(
    model: Any, sound: torch.Tensor, expected: torch.Tensor, more: dict[str, Any]
) -> None:
    mask = torch.ones(2, FRAMES * FRAME, dtype=torch.int32)
    mask[1, 12 * FRAME :] = 0
    out = model.generate(input_values=sound, padding_mask=mask, **more)
    ids = getattr(out, "sequences", out)
    assert (ids[1, 13:] == 3).all()
    if "num_beams" not in more:
        assert ids[0].equal(expected[0])
        assert ids[1, :13].equal(expected[1, :13])


def test_a_window_of_sound_is_not_read_twice(
    own_model: Any, sound: torch.Tensor, expected: torch.Tensor
) -> None:
    own_model.generation_config.audio_window_size = 1  # as published
    out = own_model.generate(input_values=sound, return_dict_in_generate=True)
    assert own_model.generate(input_values=sound).equal(expected)
    assert out.sequences.equal(expected)


def test_the_published_start_id_stands_for_the_trained_row(
    own_model: Any, sound: torch.Tensor, expected: torch.Tensor
) -> None:
    own_model.config.bos_token_id = own_model.generation_config.bos_token_id = 48000
    for more in ({}, {"return_dict_in_generate": True}):
        out = own_model.generate(input_values=sound, **more)
        ids = getattr(out, "sequences", out)
        assert (ids[:, 0] == 48000).all()
        assert ids[:, 1:].equal(expected[:, 1:])


def test_codes_are_the_same_in_autocast(own_model: Any, sound: torch.Tensor) -> None:
    wanted = own_model._codes(sound)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert own_model._codes(sound).equal(wanted)
        own_model.codec_model.downsample.register_forward_hook(lambda *_: None)
        assert own_model._codes(sound).equal(wanted)  # by transformers' own codec


def test_changed_weights_are_heard(own_model: Any, sound: torch.Tensor) -> None:
    before = own_model.generate(input_values=sound)
    with torch.no_grad():
        own_model.model.layers[0].self_attn.q_proj.linear.weight.data.mul_(-3)
        own_model.model.layers[1].mlp.fc1.weight.data.mul_(2)
    after = own_model.generate(input_values=sound)
    assert not after.equal(before)
    assert after.equal(
        own_model.generate(input_values=sound, return_dict_in_generate=True).sequences
    )


def test_a_hook_is_called(own_model: Any, sound: torch.Tensor) -> None:
    calls: list[int] = []
    own_model.model.norm.register_forward_hook(lambda *_: calls.append(1))
    own_model.generate(input_values=sound)
    assert len(calls) == FRAMES


def test_a_pad_that_is_a_code_as_well_is_looked_up_as_transformers_does(
    auto: ModuleType, own_model: Any, sound: torch.Tensor, tmp_path: Path
) -> None:
    own_model.config.audio_pad_token_id = 16  # the code that stands in the first column, too
    own_model.save_pretrained(tmp_path)
    model = auto.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path)
    assert model.config.audio_pad_token_id == 16
    given = model.generate(input_values=sound)
    wanted = model.generate(input_values=sound, return_dict_in_generate=True).sequences
    assert given.equal(wanted)


def test_limits_of_a_config_count(model: Any, sound: torch.Tensor, auto: ModuleType) -> None:
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=4)
    for more in ({}, {"return_dict_in_generate": True}):
        out = model.generate(input_values=sound, generation_config=config, **more)
        assert getattr(out, "sequences", out).shape == (2, 5)


@pytest.mark.parametrize("more", [{}, {"num_beams": 2}])
def test_no_sound_is_a_clear_error(model: Any, more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="input_values"):
        model.generate(**more)
    with pytest.raises(ValueError, match="at least one frame"):
        model.generate(input_values=torch.zeros(1, 1, FRAME - 1), **more)


def test_beams_samples_and_assistants_are_transformers(
    model: Any, sound: torch.Tensor, expected: torch.Tensor
) -> None:
    torch.manual_seed(0)
    drawn = model.generate(input_values=sound, do_sample=True, temperature=5.0)
    assert not drawn.equal(expected)
    torch.manual_seed(0)
    assert drawn.equal(model.generate(input_values=sound, do_sample=True, temperature=5.0))
    assert model.generate(input_values=sound, num_beams=3).shape == expected.shape
    one = sound[:1]
    assert model.generate(input_values=one, assistant_model=model).equal(expected[:1])


def test_generation_goes_on_from_a_past(
    model: Any, sound: torch.Tensor, expected: torch.Tensor
) -> None:
    start = model.generate(input_values=sound, max_new_tokens=6, return_dict_in_generate=True)
    rest = model.generate(
        input_values=sound, input_ids=start.sequences, past_key_values=start.past_key_values,
        max_new_tokens=5,
    )  # fmt: skip
    assert rest.equal(expected[:, :12])


def test_forward_keeps_to_the_window(model: Any, ours: Any) -> None:
    ids = columns(2, 40)
    theirs, plain = model(ids).logits, ours(ids).logits
    torch.testing.assert_close(theirs, plain, atol=1e-4, rtol=1e-4)
    mask = torch.ones(2, 40, dtype=torch.int64)
    mask[1, :7] = 0
    padded = model(ids, attention_mask=mask).logits[1, 7:]
    alone = ours(ids[1:, 7:]).logits[0]
    torch.testing.assert_close(padded, alone, atol=1e-4, rtol=1e-4)


def test_the_filler_is_never_said_and_has_no_share_in_the_loss(model: Any, ours: Any) -> None:
    ids = columns(2, 9)
    ids[..., 0].clamp_(max=VOCAB_SIZE - 2)
    labels = ids[..., 0]
    out, plain = model(ids, labels=labels), ours(ids, labels=labels)
    assert (out.logits[..., -1] == -torch.inf).all()
    torch.testing.assert_close(out.loss, plain.loss)


def test_config_errors_of_published_files_are_corrected(
    auto: ModuleType, transformers: ModuleType, tmp_path: Path
) -> None:
    transformers.KyutaiSpeechToTextConfig(
        vocab_size=8001, num_hidden_layers=16, num_attention_heads=16, sliding_window=375
    ).save_pretrained(tmp_path)
    with pytest.warns(CorrectedValue) as found:
        config = auto.AutoConfig.from_pretrained(tmp_path)
    assert config.sliding_window == 750
    assert config.audio_pad_token_id == 73569
    assert config.bos_token_id == 48000
    assert {str(one.message).split(": ")[1].split()[0] for one in found} == {
        "audio_pad_token_id", "sliding_window",
    }  # fmt: skip
    assert auto.KyutaiSpeechToTextConfig().rope_parameters["rope_theta"] == 100_000


def test_saving_and_loading_back_in_all_three(
    auto: ModuleType,
    theirs: Any,
    own_model: Any,
    sound: torch.Tensor,
    expected: torch.Tensor,
    tmp_path: Path,
) -> None:
    own_model.save_pretrained(tmp_path)
    again = auto.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path)
    assert again.generate(input_values=sound).equal(expected)
    plain = KyutaiSpeechToTextForConditionalGeneration.from_pretrained(tmp_path)
    assert plain.generate(input_values=sound).equal(expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = type(theirs).from_pretrained(tmp_path)
    for (name, one), other in zip(
        theirs.state_dict().items(), back.state_dict().values(), strict=True
    ):
        assert one.equal(other), name


def test_a_native_checkpoint_can_be_used(auto: ModuleType) -> None:
    model = auto.AutoModelForSpeechSeq2Seq.from_pretrained("demo")
    plain = KyutaiSpeechToTextForConditionalGeneration.from_pretrained("demo")
    values = torch.from_numpy(noise(12 * 1920)).view(1, 1, -1)
    assert model.generate(input_values=values).equal(plain.generate(input_values=values))
    processor = auto.AutoProcessor.from_pretrained("demo")
    assert processor.feature_extractor.audio_delay_seconds > 0


def _reports(auto: ModuleType, source: Any, caplog: pytest.LogCaptureFixture) -> str:
    from transformers.utils import logging

    logger, before = logging.get_logger("transformers"), logging.get_verbosity()
    logger.addHandler(caplog.handler)  # it hands nothing on
    logging.set_verbosity_warning()  # as it is, where no other test has changed it
    try:
        caplog.clear()
        auto.AutoModelForSpeechSeq2Seq.from_pretrained(source)
    finally:
        logger.removeHandler(caplog.handler)
        logging.set_verbosity(before)
    return caplog.text


def test_the_half_of_the_codec_that_is_not_used_is_not_missed(
    auto: ModuleType, own_model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Kyutai's own files have it not. Whatever else is missing is reported."""
    assert "MISSING" not in _reports(auto, "demo", caplog)
    own_model.lm_head = None
    own_model.save_pretrained(tmp_path)
    told = _reports(auto, tmp_path, caplog)
    assert "lm_head" in told
    assert "MISSING" in told


def test_only_kyutais_own_files_may_lack_what_makes_sound(
    auto: ModuleType, own_model: Any, tmp_path: Path
) -> None:
    load, lacks = auto.AutoModelForSpeechSeq2Seq.from_pretrained, "codec_model.decoder."
    _, told = load("demo", output_loading_info=True)
    assert not told["missing_keys"]
    weights = own_model.state_dict()
    rest = {name: one for name, one in weights.items() if not name.startswith(lacks)}
    own_model.save_pretrained(tmp_path, state_dict=rest)
    _, told = load(tmp_path, output_loading_info=True)
    assert set(told["missing_keys"]) == weights.keys() - rest.keys() != set()


def test_the_demo_by_transformers_has_no_revision_either(auto: ModuleType) -> None:
    with pytest.raises(CheckpointError, match="it has no revision 'v1'"):
        auto.AutoModelForSpeechSeq2Seq.from_pretrained("demo", revision="v1")


def test_times_of_chunks_are_whole_milliseconds(auto: ModuleType) -> None:
    recognise = auto.pipeline("automatic-speech-recognition", model="demo")
    found = recognise(str(ROOT / "examples" / "digits.wav"), return_timestamps="word")
    times = [time for one in found["chunks"] for time in one["timestamp"]]
    assert len(times) == 12
    assert [float(f"{time:.3f}") for time in times] == times


def test_the_processor_hears_what_kikus_hears(
    auto: ModuleType, saved: Path, processor: KyutaiSpeechToTextProcessor
) -> None:
    found = auto.AutoProcessor.from_pretrained(saved)
    rows = [noise(700), noise(400, seed=1)]
    for one in (rows, rows[0], {"array": rows[0].astype(np.float64), "sampling_rate": RATE}):
        theirs, ours = found(one), processor(one)
        assert theirs.keys() == ours.keys()
        assert all(theirs[key].equal(ours[key]) for key in ours)
    ids = torch.tensor([[39, 4, 5, 21, 3, 6]])
    assert found.words(ids)[0][0].text == processor.words(ids)[0][0].text
    assert found.words(ids)[0][0].end == processor.words(ids)[0][0].end


def test_a_pipeline_transcribes(
    auto: ModuleType, saved: Path, ours: Any, processor: KyutaiSpeechToTextProcessor
) -> None:
    recognise = auto.pipeline("automatic-speech-recognition", model=str(saved))
    rows = [noise(2000), noise(1500, seed=1)]
    expected = processor.batch_decode(ours.generate(**processor(rows)), skip_special_tokens=True)
    assert recognise(rows[0])["text"] == expected[0]
    assert [one["text"] for one in recognise(rows, batch_size=2)] == expected
    row = {"array": rows[0], "sampling_rate": RATE, "path": None}
    timed = recognise(row, return_timestamps="word", chunk_length_s=30)
    assert timed["text"] == expected[0]
    for stereo in (np.stack([rows[0]] * 2), np.stack([rows[0]] * 2, axis=1)):
        assert recognise({**row, "array": stereo})["text"] == expected[0]
    (words,) = processor.words(ours.generate(**processor(rows[0])))
    assert [one["timestamp"] for one in timed["chunks"]] == [
        (round(w.start, 3), round(w.end, 3)) for w in words
    ]
    with pytest.raises(ValueError, match="return_timestamps"):
        recognise(rows[0], return_timestamps="char")


def test_other_models_pass_through(
    auto: ModuleType, transformers: ModuleType, tmp_path: Path
) -> None:
    config = transformers.GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=10)
    transformers.GPT2Model(config).save_pretrained(tmp_path)
    assert type(auto.AutoModel.from_pretrained(tmp_path)) is transformers.GPT2Model
    assert type(auto.AutoConfig.from_pretrained(tmp_path)) is transformers.GPT2Config
    assert type(auto.AutoModel.from_config(config)) is transformers.GPT2Model


def test_training_by_trainer_saves_and_loads_back(
    own_model: Any, auto: ModuleType, transformers: ModuleType, sound: torch.Tensor, tmp_path: Path
) -> None:
    class Rows(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
            ids = columns(1, 10, seed=i)[0]
            ids[..., 0].clamp_(max=VOCAB_SIZE - 2)
            return {"input_ids": ids, "labels": ids[..., 0]}

    before = {name: one.clone() for name, one in own_model.state_dict().items()}
    arguments = transformers.TrainingArguments(
        output_dir=tmp_path, max_steps=2, per_device_train_batch_size=2, learning_rate=0.01,
        report_to=[], use_cpu=True, save_strategy="steps", save_steps=2, disable_tqdm=True,
        gradient_checkpointing=True, logging_strategy="no",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = transformers.Trainer(own_model, arguments, train_dataset=Rows())
        trainer.train()
    own_model.eval()
    changed = {name for name, one in own_model.state_dict().items() if not one.equal(before[name])}
    assert "model.layers.0.self_attn.q_proj.linear.weight" in changed
    again = auto.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "checkpoint-2")
    ids = own_model.generate(input_values=sound)
    assert again.generate(input_values=sound).equal(ids)


def test_adapters_are_exchangeable_with_transformers(
    own_model: Any, theirs: Any, auto: ModuleType, saved: Path, sound: torch.Tensor, tmp_path: Path
) -> None:
    import peft

    config = peft.LoraConfig(target_modules=r".*\.(q_proj|v_proj)\.linear|.*\.fc1", r=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(own_model, config)
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
        adapted.save_pretrained(tmp_path)
        ids = adapted.generate(input_values=sound)
        fresh = type(theirs).from_pretrained(saved)
        other = peft.PeftModel.from_pretrained(fresh, tmp_path).eval()
        batch = columns(1, 6)
        torch.testing.assert_close(
            adapted(batch).logits[..., :-1], other(batch).logits[..., :-1], atol=1e-5, rtol=1e-5
        )
        merged = adapted.merge_and_unload()
    assert merged.generate(input_values=sound).equal(ids)
    plain = auto.AutoModelForSpeechSeq2Seq.from_pretrained(saved)
    assert not plain.generate(input_values=sound).equal(ids)


@pytest.mark.heavy  # another process that imports transformers
def test_registered_classes_are_those_of_transformers_auto(
    auto: ModuleType, transformers: ModuleType, saved: Path
) -> None:
    import subprocess
    import sys

    program = (
        "import warnings; warnings.simplefilter('ignore'); import kiku.hf.auto, transformers\n"
        f"before = transformers.AutoModelForSpeechSeq2Seq.from_pretrained({str(saved)!r})\n"
        "kiku.hf.auto.register()\n"
        f"after = transformers.AutoModelForSpeechSeq2Seq.from_pretrained({str(saved)!r})\n"
        f"processor = transformers.AutoProcessor.from_pretrained({str(saved)!r})\n"
        "after_that = transformers.KyutaiSpeechToTextModel, type(processor.feature_extractor)\n"
        "kinds = (type(before), type(after), type(processor), *after_that)\n"
        "print(*(one.__module__.split('.')[0] for one in kinds))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["transformers", *["kiku"] * 4]
