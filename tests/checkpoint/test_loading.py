"""Every layout loads, strictly, in the dtype that was asked for, without needless copies."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kiku.checkpoint import find, load, read_config
from kiku.config import ModelConfig
from kiku.errors import CheckpointError, ConfigError, UnsupportedConfig
from tests import tiny


def _edit_json(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))


def _edit_tensors(path: Path, edit: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def _without(name: str) -> Callable[[dict[str, Tensor]], None]:
    def edit(tensors: dict[str, Tensor]) -> None:
        del tensors[name]

    return edit


def _same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_native_layout(native_folder: Path) -> None:
    loaded = load(native_folder)
    assert loaded.config == tiny.model_config()
    assert _same(loaded.lm, tiny.lm())
    assert _same(loaded.codec, tiny.codec())
    assert loaded.vocabulary.piece(4) == tiny.PIECES[4]
    assert not loaded.lm.training
    assert not loaded.codec.training


def test_transformers_layout_has_no_pause_heads(transformers_folder: Path) -> None:
    loaded = load(transformers_folder)
    assert loaded.config.lm == tiny.lm_config(num_pause_heads=0)
    assert loaded.config.codec == tiny.codec_config()
    assert loaded.config.text_delay_s == tiny.model_config().text_delay_s
    assert _same(loaded.lm, tiny.lm())
    assert _same(loaded.codec, tiny.codec())


def test_a_loaded_network_runs_and_says_what_the_original_says(native_folder: Path) -> None:
    loaded, codec, lm = load(native_folder), tiny.codec(), tiny.lm()
    pcm = torch.randn(1, 1, 20 * codec.config.frame_size, generator=torch.manual_seed(5))
    active = torch.ones(1, dtype=torch.bool)
    with torch.inference_mode():
        state = loaded.codec.init_state(1, "cpu", torch.float32)
        codes = loaded.codec(pcm, state, active)
        assert torch.equal(codes, codec(pcm, codec.init_state(1, "cpu", torch.float32), active))
        columns = torch.cat([torch.full((1, 20, 1), 4), codes.transpose(1, 2)], dim=-1)
        ours = loaded.lm(columns, loaded.lm.init_state(1, "cpu", torch.float32), active)
        theirs = lm(columns, lm.init_state(1, "cpu", torch.float32), active)
    assert torch.equal(ours.logits, theirs.logits)
    assert ours.pauses is not None
    assert torch.equal(ours.pauses, theirs.pauses)


def test_pause_heads_are_found_though_the_config_does_not_mention_them(native_folder: Path) -> None:
    _edit_json(native_folder / "config.json", extra_heads_num_heads=..., extra_heads_dim=...)
    assert load(native_folder).config.lm.num_pause_heads == 4
    without_weights = find(native_folder, weights=False)
    assert without_weights.weights == ()
    assert read_config(without_weights).lm.num_pause_heads == 0


def test_a_config_that_promises_heads_that_are_not_there(native_folder: Path) -> None:
    def behead(tensors: dict[str, Tensor]) -> None:
        del tensors["extra_heads.2.weight"], tensors["extra_heads.3.weight"]

    _edit_tensors(native_folder / "model.safetensors", behead)
    with pytest.raises(CheckpointError, match=r"missing: extra_heads\.2\.weight \[6, 32\]"):
        load(native_folder)


@pytest.mark.parametrize("layout", ["native_folder", "transformers_folder"])
def test_one_error_lists_every_tensor_that_is_wrong(
    layout: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(layout)
    names = sorted(load_file(folder / "model.safetensors"))
    gone = [n for n in names if "norm1" in n or "input_layernorm" in n]
    gone = [n for n in gone if not n.startswith("codec")]
    bent = next(n for n in names if "linear_out" in n or "model.layers.0.mlp.fc2" in n)

    def damage(tensors: dict[str, Tensor]) -> None:
        for name in gone:
            del tensors[name]
        tensors[bent] = tensors[bent][:, 1:].contiguous()
        tensors["model.surprise"] = torch.zeros(3)

    _edit_tensors(folder / "model.safetensors", damage)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    message = str(caught.value)
    assert "4 differ" in message
    assert all(f"missing: {name}" in message for name in gone)
    assert f"wrong shape: {bent} is [32, 39], not [32, 40]" in message
    assert "unexpected: model.surprise [3]" in message
    assert str(folder / "model.safetensors") in message


def test_wrong_tensors_of_decoder_and_codec_are_one_error(native_folder: Path) -> None:
    _edit_tensors(native_folder / "model.safetensors", _without("out_norm.alpha"))
    _edit_tensors(
        native_folder / "mimi.safetensors",
        _without("downsample.conv.conv.conv.weight"),
    )
    with pytest.raises(CheckpointError, match=r"(?s)out_norm\.alpha.*downsample"):
        load(native_folder)


def test_the_same_tensor_in_two_spellings(native_folder: Path) -> None:
    def twice(tensors: dict[str, Tensor]) -> None:
        layer = "transformer.layers.0.self_attn."
        tensors[layer + "in_projs.0.weight"] = tensors[layer + "in_proj_weight"].clone()

    _edit_tensors(native_folder / "model.safetensors", twice)
    with pytest.raises(CheckpointError, match=r"twice: .*in_proj"):
        load(native_folder)


@pytest.mark.parametrize("layout", ["native_folder", "transformers_folder"])
def test_dtype(layout: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(layout)

    def halve(tensors: dict[str, Tensor]) -> None:
        # as in the published files of transformers' layout: table, head and codec stay float32
        for name in tensors:
            if not name.startswith(("codec", "lm_head", "model.embed")):
                tensors[name] = tensors[name].bfloat16()

    _edit_tensors(folder / "model.safetensors", halve)
    for dtype, expected in (
        (None, torch.float32),  # small
        ("auto", torch.bfloat16),
        ("float16", torch.float16),
        (torch.float32, torch.float32),
    ):
        loaded = load(folder, dtype=dtype)
        assert {p.dtype for p in loaded.lm.parameters()} == {expected}
        assert {t.dtype for t in loaded.codec.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("dtype", ["int8", torch.int8, "float"])
def test_a_dtype_that_cannot_be_is_refused_before_anything_is_looked_for(dtype: Any) -> None:
    with pytest.raises(ConfigError, match="bfloat16"):
        load("no/where/at/all", dtype=dtype)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is mapped")
def test_what_is_stored_right_is_mapped_not_copied(native_folder: Path) -> None:
    lm = load(native_folder).lm
    path = str(native_folder / "model.safetensors")
    mapped = [
        range(*(int(end, 16) for end in line.split()[0].split("-")))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(path)
    ]
    for name, weight in lm.named_parameters():
        assert any(weight.data_ptr() in place for place in mapped), name


def test_changing_loaded_weights_does_not_change_the_file(native_folder: Path) -> None:
    before = (native_folder / "model.safetensors").read_bytes()
    with torch.no_grad():
        load(native_folder).lm.out_norm.weight.fill_(7)
    assert (native_folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dep_q": 8}, "dep_q = 8 is not supported"),
        ({"gating": "none"}, "gating = 'none'"),
        ({"delays": [0, 1, 1, 1, 1]}, "delays must all be 0"),
        ({"quantize": True}, "quantize"),
        ({"lora": True}, "lora"),
        ({"wings": 2}, "does not know: wings"),
    ],
)
def test_native_models_that_kiku_does_not_build(
    change: dict[str, Any], message: str, native_folder: Path
) -> None:
    _edit_json(native_folder / "config.json", **change)
    with pytest.raises(UnsupportedConfig, match=message) as caught:
        load(native_folder)
    assert str(native_folder) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"num_key_value_heads": 1}, "num_key_value_heads 1"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e5}}, "'yarn'"),
        (
            {"codebook_vocab_size": 99, "audio_pad_token_id": 416},
            "codebook_vocab_size of at least 17",
        ),
    ],
)
def test_transformers_models_that_kiku_does_not_build(
    change: dict[str, Any], message: str, transformers_folder: Path
) -> None:
    _edit_json(transformers_folder / "config.json", **change)
    with pytest.raises(UnsupportedConfig, match=message):
        load(transformers_folder)


def test_a_config_that_lacks_numbers_or_has_nonsense(native_folder: Path) -> None:
    config = native_folder / "config.json"
    _edit_json(config, num_layers=..., n_q=...)
    with pytest.raises(ConfigError, match="lacks n_q, num_layers"):
        load(native_folder)
    _edit_json(config, num_layers="two", n_q=4)
    with pytest.raises(ConfigError, match="num_layers must be a whole number, not 'two'"):
        load(native_folder)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"stt_config": {"audio_delay_seconds": "x"}}, "audio_delay_seconds .*'x'"),
        ("config.json", {"stt_config": {"audio_silence_prefix_seconds": 1e999}}, "not inf"),
        ("config.json", {"stt_config": [1]}, r"not \[1\]"),
        ("config.json", {"dim": 32.0}, "dim must be a whole number, not 32.0"),
        ("config.json", {"num_heads": "2"}, "num_heads must be a whole number, not '2'"),
        ("config.json", {"dim": "32"}, "wrong type"),
        ("config.json", {"max_period": -1}, "rope_theta must be greater than 0, not -1.0"),
        ("config.json", {"max_period": "x"}, "could not convert string to float"),
        ("config.json", {"max_period": 10**400}, "too large"),
        ("config.json", {"hidden_scale": 1e999}, "infinity"),
        ("config.json", {"hidden_scale": None}, "wrong type"),
        ("config.json", {"delays": 3}, "wrong type"),
        ("config.json", {"moshi_name": 3}, "moshi_name must be the name of a file, not 3"),
        ("config.json", {"mimi_config_name": ["a"]}, "mimi_config_name must be the name of a file"),
        ("mimi_config.json", {"frame_rate": 0}, "division by zero"),
        ("mimi_config.json", {"sample_rate": "fast"}, "wrong type"),
        ("mimi_config.json", {"seanet": 3}, "wrong type"),
        ("mimi_config.json", {"transformer": ...}, "lacks 'transformer'"),
    ],
)
def test_a_native_value_that_cannot_be_is_an_error_of_its_file(
    file: str, change: dict[str, Any], message: str, native_folder: Path
) -> None:
    _edit_json(native_folder / file, **change)
    with pytest.raises(ConfigError, match=message) as caught:
        load(native_folder)
    assert str(caught.value).startswith(f"{native_folder / file}: ")


@pytest.mark.parametrize("key", ["dimension", "input_dimension"])
def test_a_codec_whose_width_is_not_stated(key: str, native_folder: Path) -> None:
    path = native_folder / "mimi_config.json"
    section = "seanet" if key == "dimension" else "quantizer"
    values = json.loads(path.read_text())[section]
    del values[key]
    _edit_json(path, **{section: values})
    with pytest.raises(ConfigError, match=f"lacks '{key}'") as caught:
        load(native_folder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"hidden_size": 32.0}, "dim must be a whole number, not 32.0"),
        ("config.json", {"rms_norm_eps": 0}, "norm_eps must be greater than 0"),
        ("config.json", {"codec_config": {"num_filters": "4"}}, "num_filters must be a whole"),
        ("config.json", {"codec_config": 7}, "wrong type"),
        ("config.json", {"vocab_size": None}, "wrong type"),
        ("preprocessor_config.json", {"audio_delay_seconds": "x"}, "audio_delay_seconds .*'x'"),
        ("preprocessor_config.json", {"audio_silence_prefix_seconds": -1}, "0 or more, not -1"),
        ("preprocessor_config.json", {"feature_extractor": 3}, "not 3"),
    ],
)
def test_a_transformers_value_that_cannot_be_is_an_error_of_its_file(
    file: str, change: dict[str, Any], message: str, transformers_folder: Path
) -> None:
    _edit_json(transformers_folder / file, **change)
    with pytest.raises(ConfigError, match=message) as caught:
        load(transformers_folder)
    assert str(caught.value).startswith(f"{transformers_folder / file}: ")


def test_the_decoder_may_read_fewer_codebooks_than_the_codec_has(native_folder: Path) -> None:
    _edit_json(native_folder / "config.json", n_q=3, delays=[0] * 4)
    _edit_tensors(native_folder / "model.safetensors", _without("emb.3.weight"))
    config = load(native_folder).config
    assert (config.lm.num_codebooks, config.codec.num_codebooks) == (3, 4)


def test_processor_config_of_transformers_5(transformers_folder: Path) -> None:
    old = transformers_folder / "preprocessor_config.json"
    values = json.loads(old.read_text()) | {"audio_silence_prefix_seconds": 0.25}
    old.unlink()
    (transformers_folder / "processor_config.json").write_text(
        json.dumps({"processor_class": "x", "feature_extractor": values})
    )
    config: ModelConfig = load(transformers_folder).config
    assert (config.text_delay_s, config.silence_prefix_s) == (0.5, 0.25)


def test_without_a_vocabulary(transformers_folder: Path) -> None:
    (transformers_folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json missing"):
        load(transformers_folder)
    loaded = load(transformers_folder, needs_vocabulary=False)
    with pytest.raises(CheckpointError, match="no vocabulary"):
        _ = loaded.vocabulary
