"""Checkpoints go from transformers to kiku and back, in every dtype, with nothing lost."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kiku.checkpoint import save_native
from kiku.checkpoint.corrections import CorrectedValue
from kiku.errors import CheckpointError, ConfigError, InputError, UnsupportedConfig
from kiku.hf import (
    KyutaiSpeechToTextConfig,
    KyutaiSpeechToTextForConditionalGeneration,
    KyutaiSpeechToTextModel,
    KyutaiSpeechToTextProcessor,
)
from tests import tiny
from tests.hf.tiny_checkpoint import CONFIG, FRAME, VOCAB_SIZE, columns, noise, randomise

Ours = KyutaiSpeechToTextForConditionalGeneration
SOUND = torch.from_numpy(noise(40 * FRAME))[None, None]


def test_there_and_back_again(
    transformers: ModuleType,
    saved: Path,
    ours: Ours,
    processor: KyutaiSpeechToTextProcessor,
    tmp_path: Path,
) -> None:
    """theirs -> ours -> theirs: the same tensors, Mimi's decoder too, and the same tokens."""
    ours.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    before, after = (
        load_file(saved / "model.safetensors"),
        load_file(tmp_path / "model.safetensors"),
    )
    assert before.keys() == after.keys()
    assert sum(name.startswith("codec_model.decoder") for name in after) > 10
    for name, tensor in before.items():
        # A codebook is the quotient of these two; only the quotient is kept.
        if "embed_sum" in name:
            usage = name.replace("embed_sum", "cluster_usage")
            torch.testing.assert_close(
                after[name] / after[usage][:, None], tensor / before[usage][:, None]
            )
        elif "cluster_usage" not in name:
            torch.testing.assert_close(after[name], tensor, atol=0, rtol=0)
    model, info = transformers.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    wanted = ours.generate(input_values=SOUND)
    torch.testing.assert_close(model.generate(input_values=SOUND, bad_words_ids=[[39]]), wanted)
    theirs = transformers.KyutaiSpeechToTextProcessor.from_pretrained(tmp_path)
    assert theirs.batch_decode(wanted, skip_special_tokens=True) == processor.batch_decode(
        wanted, skip_special_tokens=True
    )
    torch.testing.assert_close(Ours.from_pretrained(tmp_path).generate(input_values=SOUND), wanted)


def test_the_small_files_keep_what_they_said(saved: Path, ours: Ours, tmp_path: Path) -> None:
    ours.save_pretrained(tmp_path)
    for name in ("config.json", "generation_config.json"):
        before, after = (json.loads((folder / name).read_text()) for folder in (saved, tmp_path))
        for key in ("transformers_version", "_from_model_config", "codec__from_model_config"):
            before.pop(key, None), after.pop(key, None)
        before.get("codec_config", {}).pop("_frame_rate", None)
        assert {key: value for key, value in after.items() if key in before} == {
            key: value for key, value in before.items() if key in after
        }
        lost = {
            key for key in before if key not in after and before[key] not in (None, False, True)
        }
        assert not lost


def test_generation_values_come_along(
    transformers: ModuleType, saved: Path, tmp_path: Path
) -> None:
    """The published checkpoints' values, which steer transformers and not us, survive."""
    folder = tmp_path / "published"
    shutil.copytree(saved, folder)
    values = {
        "audio_window_size": 1, "bos_token_id": 48_000, "pad_token_id": 3, "codec_use_cache": True,
        "cache_implementation": "sliding_window", "codec_cache_implementation": "sliding_window",
    }  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps(values))
    model = Ours.from_pretrained(folder)
    plain = Ours.from_pretrained(saved).generate(input_values=SOUND)
    tokens = model.generate(input_values=SOUND)
    assert tokens[0, 0] == 48_000
    torch.testing.assert_close(tokens[:, 1:], plain[:, 1:])
    model.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "generation_config.json").read_text())
    assert written == values
    theirs = transformers.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(
        tmp_path / "again"
    )
    assert theirs.generation_config.audio_window_size == 1
    assert theirs.codec_model.generation_config.use_cache is True


def test_a_model_from_a_config_goes_to_transformers(
    transformers: ModuleType, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Ours(KyutaiSpeechToTextConfig(**CONFIG))
    model.save_pretrained(tmp_path)
    theirs = transformers.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(tmp_path)
    ids = columns(2, 8)
    with torch.no_grad():
        wanted = theirs(input_ids=ids).logits[..., :-1]
        torch.testing.assert_close(model(ids).logits[..., :-1], wanted, atol=1e-5, rtol=0)


def test_a_native_checkpoint_goes_to_transformers(transformers: ModuleType, tmp_path: Path) -> None:
    native = tmp_path / "native"
    config = replace(tiny.model_config(), lm=tiny.lm_config(num_pause_heads=0))
    codec, lm, vocabulary = tiny.codec(), tiny.lm(num_pause_heads=0), tmp_path / "tokenizer.json"
    vocabulary.write_text(tiny.vocabulary().to_tokenizer_json())
    save_native(
        native, config, lm=lm.state_dict(), codec=codec.state_dict(), vocabulary=vocabulary
    )  # fmt: skip
    model, processor = (
        Ours.from_pretrained(native),
        KyutaiSpeechToTextProcessor.from_pretrained(native),
    )
    assert processor.feature_extractor.audio_delay_seconds == 0.5
    model.save_pretrained(tmp_path / "theirs")
    processor.save_pretrained(tmp_path / "theirs")
    inputs = processor(noise(2000))
    wanted = model.generate(**inputs)
    their_model = transformers.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(
        tmp_path / "theirs"
    )
    their_processor = transformers.KyutaiSpeechToTextProcessor.from_pretrained(tmp_path / "theirs")
    their_inputs = their_processor(audio=noise(2000), sampling_rate=config.sample_rate)
    torch.testing.assert_close(their_inputs["input_values"], inputs.input_values)
    start = int(wanted[0, 0])
    torch.testing.assert_close(
        their_model.generate(**their_inputs, bad_words_ids=[[start]]), wanted
    )
    assert their_processor.batch_decode(wanted, skip_special_tokens=True) == processor.batch_decode(
        wanted, skip_special_tokens=True
    )


DTYPES = [
    ("bfloat16", torch.bfloat16),
    (torch.float16, torch.float16),
    ("auto", torch.float32),
    (None, torch.float32),
]


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize(("asked", "given"), DTYPES)
def test_the_decoder_takes_the_dtype_the_codec_does_not(
    saved: Path, name: str, asked: Any, given: torch.dtype
) -> None:
    model = Ours.from_pretrained(saved, **{name: asked})
    assert model.dtype == given == model.config.dtype
    assert {weight.dtype for weight in model.model.lm.parameters()} == {given}
    assert {weight.dtype for weight in model.codec_model.parameters()} == {torch.float32}


def test_auto_is_what_the_config_says(saved: Path, tmp_path: Path) -> None:
    Ours.from_pretrained(saved, dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert Ours.from_pretrained(tmp_path, torch_dtype="auto").dtype == torch.bfloat16
    assert Ours.from_pretrained(tmp_path).dtype == torch.bfloat16
    assert Ours.from_pretrained(tmp_path, dtype="float32").dtype == torch.float32
    stored = {
        name: tensor.dtype for name, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    assert stored["model.norm.weight"] == torch.bfloat16
    assert stored["codec_model.encoder.layers.0.conv.weight"] == torch.float32


def test_a_cast_leaves_the_codec_exact(saved: Path) -> None:
    model, exact = Ours.from_pretrained(saved), Ours.from_pretrained(saved)
    codec = {name: weight.clone() for name, weight in model.codec_model.state_dict().items()}
    for cast in (model.to(torch.bfloat16), model.half(), model.bfloat16()):
        assert cast is model
        for name, weight in model.codec_model.state_dict().items():
            assert torch.equal(weight, codec[name])
    assert model.dtype == torch.bfloat16
    with torch.no_grad():
        given, wanted = model(columns(1, 10)).logits, exact(columns(1, 10)).logits
    assert given.dtype == torch.bfloat16
    torch.testing.assert_close(given[..., :-1].float(), wanted[..., :-1], atol=0.15, rtol=0.05)
    tokens = model.generate(input_values=SOUND.bfloat16().float())
    assert tokens.shape == (1, 41)
    moved = model.to("meta")
    assert moved.device.type == "meta" == moved.codec_model.downsample.conv.weight.device.type


@pytest.mark.parametrize(
    "where", [None, "cpu", torch.device("cpu"), {"": "cpu"}, {"model": "cpu", "codec_model": "cpu"}]
)
def test_device_maps_of_one_device(saved: Path, where: Any) -> None:
    assert Ours.from_pretrained(saved, device_map=where).device.type == "cpu"


def test_what_cannot_be_loaded_is_said(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedConfig, match="one device"):
        Ours.from_pretrained(saved, device_map={"model": "cpu", "codec_model": "cuda:0"})
    with pytest.raises(InputError, match="does not know colour"):
        Ours.from_pretrained(saved, colour="red")
    with pytest.raises(ConfigError, match="no device 'bogus'"):
        Ours.from_pretrained(saved, device_map="bogus")
    with pytest.raises(ConfigError, match="dtype must be one of"):
        Ours.from_pretrained(saved, dtype="int8")
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        Ours.from_pretrained(tmp_path)
    with pytest.raises(UnsupportedConfig, match="safetensors only"):
        Ours.from_pretrained(saved).save_pretrained(tmp_path, safe_serialization=False)


def test_numbers_can_be_changed_while_loading(theirs: Any, saved: Path) -> None:
    ids = columns(1, 30)
    narrow = Ours.from_pretrained(saved, sliding_window=4, attn_implementation="sdpa")
    assert narrow.config.sliding_window == 4
    wide = Ours.from_pretrained(
        saved, config=KyutaiSpeechToTextConfig(**{**CONFIG, "sliding_window": 30})
    )
    with torch.no_grad():
        full = theirs(input_ids=ids).logits
        torch.testing.assert_close(wide(ids).logits[..., :-1], full[..., :-1], atol=1e-4, rtol=0)
        assert not torch.allclose(narrow(ids).logits[..., :-1], full[..., :-1], atol=1e-2)
    codec = dict(CONFIG["codec_config"], sliding_window=200)
    other = Ours.from_pretrained(saved, codec_config=codec)
    assert other.codec_model.config.transformer.window == 200
    assert other.generate(input_values=SOUND).shape == (1, 41)


@pytest.mark.parametrize("pad", [16, 5])
def test_a_pad_that_hides_an_id_is_settled_before_anything_is_computed(
    tmp_path: Path, pad: int
) -> None:
    with pytest.warns(CorrectedValue, match=f"audio_pad_token_id is {pad}, 176 is used"):
        made = Ours(KyutaiSpeechToTextConfig(**{**CONFIG, "audio_pad_token_id": pad}))
    ids = columns(1, 9)
    ids[0, 2:4] = pad
    with torch.no_grad():
        wanted = made(ids).logits
        made.save_pretrained(tmp_path)
        again = Ours.from_pretrained(tmp_path)
        torch.testing.assert_close(again(ids).logits, wanted)
        hidden = ids.masked_fill(ids == pad, 176)
        assert not torch.allclose(again(hidden).logits[..., :-1], wanted[..., :-1], atol=1e-3)
    assert again.config.audio_pad_token_id == made.config.audio_pad_token_id == 176


def test_sizes_are_theirs(theirs: Any, saved: Path) -> None:
    ours = Ours.from_pretrained(saved)
    own, tables = ours.num_parameters(), ours.model.lm
    embedded = sum(p.numel() for p in tables.text_embedding.parameters())
    embedded += sum(p.numel() for p in tables.code_embeddings.parameters())
    assert embedded == (VOCAB_SIZE + 8 * 17) * 32
    assert ours.num_parameters(exclude_embeddings=True) == own - embedded
    tables.requires_grad_(False)
    assert ours.num_parameters(True) == own - sum(p.numel() for p in tables.parameters())
    assert ours.get_memory_footprint(return_buffers=False) == 4 * own
    assert ours.get_memory_footprint() > 4 * own
    half = ours.to(torch.bfloat16)
    assert half.get_memory_footprint(False) == 4 * own - 2 * sum(
        p.numel() for p in tables.parameters()
    )


@pytest.mark.parametrize("kind", [Ours, KyutaiSpeechToTextModel])
def test_other_weights_can_be_saved(saved: Path, tmp_path: Path, kind: Any) -> None:
    model = kind.from_pretrained(saved)
    state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=state)
    for name, tensor in kind.from_pretrained(tmp_path).state_dict().items():
        if "codebook" not in name:  # saved as sums and counts
            torch.testing.assert_close(tensor, state[name], msg=name)
    state.pop(next(iter(state)))
    with pytest.raises(InputError, match="1 are missing or unknown"):
        model.save_pretrained(tmp_path, state_dict=state)


def test_what_programs_ask_of_a_model(ours: Ours) -> None:
    trunk = ours.model
    assert Ours.can_generate()
    assert not KyutaiSpeechToTextModel.can_generate()
    assert ours.base_model is trunk.base_model is getattr(ours, ours.base_model_prefix)
    assert ours.config_class is type(ours.config)
    assert ours.config.get_text_config() is ours.config
    assert not ours.config.is_encoder_decoder
    assert "is_encoder_decoder" not in ours.config.to_dict()
    made = Ours._from_config(KyutaiSpeechToTextConfig(**CONFIG), attn_implementation="sdpa")
    assert made.num_parameters() == ours.num_parameters()


def test_a_decoder_of_more_codes_than_the_codec_gives(
    transformers: ModuleType, tmp_path: Path
) -> None:
    """A codec of fewer than 2,048 codes beside the default codebook_vocab_size of 2,049."""
    rows = 2049
    values = {
        **CONFIG, "codebook_vocab_size": rows, "audio_bos_token_id": rows - 1,
        "audio_pad_token_id": VOCAB_SIZE + 8 * rows,
    }  # fmt: skip
    theirs = transformers.KyutaiSpeechToTextForConditionalGeneration(
        transformers.KyutaiSpeechToTextConfig(**values)
    ).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Ours.from_pretrained(tmp_path / "theirs")
    wanted = theirs.generate(input_values=SOUND, bad_words_ids=[[VOCAB_SIZE - 1]])
    torch.testing.assert_close(ours.generate(input_values=SOUND), wanted)
    ours.save_pretrained(tmp_path / "ours")
    again = Ours.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(again.generate(input_values=SOUND), wanted)
    for wrong in ({"codebook_vocab_size": 16}, {"audio_bos_token_id": 16}):
        with pytest.raises(UnsupportedConfig, match="needs a codebook_vocab_size of at least 17"):
            KyutaiSpeechToTextConfig(**{**values, **wrong}).to_model_config()


def test_loading_info_on_request(saved: Path) -> None:
    model, info = Ours.from_pretrained(saved, output_loading_info=True)
    assert isinstance(model, Ours)
    assert not any(info.values())


def test_a_processor_that_was_saved_first_is_left_alone(
    ours: Ours, processor: KyutaiSpeechToTextProcessor, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    processor.save_pretrained(tmp_path / "a")
    changed = KyutaiSpeechToTextProcessor.from_pretrained(tmp_path / "a", audio_delay_seconds=9.0)
    changed.save_pretrained(tmp_path / "a")
    ours.save_pretrained(tmp_path / "a")
    assert (
        KyutaiSpeechToTextProcessor.from_pretrained(
            tmp_path / "a"
        ).feature_extractor.audio_delay_seconds
        == 9.0
    )
    (tmp_path / "a" / "preprocessor_config.json").unlink()
    ours.save_pretrained(tmp_path / "a")  # as transformers 5 leaves it: processor_config.json only
    assert (
        KyutaiSpeechToTextProcessor.from_pretrained(
            tmp_path / "a"
        ).feature_extractor.audio_delay_seconds
        == 9.0
    )


def test_the_demo_loads_by_name() -> None:
    try:
        model = Ours.from_pretrained("demo", device_map="cpu", torch_dtype="auto")
    except CheckpointError as error:
        pytest.skip(str(error))
    processor = KyutaiSpeechToTextProcessor.from_pretrained("demo")
    inputs = processor(noise(24_000))
    assert inputs.to("cpu") is inputs
    tokens = model.generate(**inputs)
    assert tokens.shape == (1, 1 + inputs.input_values.shape[-1] // 1920)
    assert isinstance(processor.batch_decode(tokens, skip_special_tokens=True)[0], str)
