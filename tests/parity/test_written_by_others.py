"""Checkpoints of transformers and moshi say the same through kiku; kiku's through them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kiku.checkpoint import Loaded, load, read_mimi_decoder, save_native, save_transformers
from kiku.checkpoint.config_native import write_native, write_native_codec
from tests import tiny
from tests.parity import references as ref
from tests.parity.references import Network

pytestmark = pytest.mark.filterwarnings("ignore")

NUM_TOKENS = 60


@pytest.fixture(scope="module")
def network() -> Network:
    return ref.random_network(ref.tiny_config())


@pytest.fixture(scope="module")
def pcm(network: Network) -> Tensor:
    return ref.noise(network, NUM_TOKENS / network.config.frame_rate)


@pytest.fixture(scope="module")
def hf_model(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return ref.transformers_model(network, tmp_path_factory.mktemp("hf"))


@pytest.fixture(scope="module")
def expected(hf_model: Any, pcm: Tensor) -> list[int]:
    tokens = ref.transformers_tokens(hf_model, pcm, NUM_TOKENS)
    assert len(set(tokens)) > 5
    return tokens


def _tokens(loaded: Loaded, pcm: Tensor) -> list[int]:
    network = Network(loaded.config, loaded.codec, loaded.lm)
    return ref.kiku_tokens(network, ref.kiku_codes(network, pcm, frames_per_call=16)).tokens


def _flat(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)


def _shards(model: Any, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="30KB")
    assert not (folder / "model.safetensors").exists()
    assert len(list(folder.glob("model-*.safetensors"))) > 2


def _names_in_memory(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    state = {k: v.clone().contiguous() for k, v in model.state_dict().items()}
    assert any("encoder_seanet" in k for k in state)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize("write", [_flat, _shards, _names_in_memory])
def test_written_by_transformers(
    write: Callable[[Any, Path], None],
    hf_model: Any,
    pcm: Tensor,
    expected: list[int],
    tmp_path: Path,
) -> None:
    write(hf_model, tmp_path)
    loaded = load(tmp_path, needs_vocabulary=False)
    assert _tokens(loaded, pcm) == expected


def test_a_real_last_text_id_stays_one(hf_model: Any, pcm: Tensor, tmp_path: Path) -> None:
    """A head without a row of zeros: the last id can be said, the start id is as stated."""
    hf_model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    torch.manual_seed(3)
    weights["lm_head.weight"].normal_(0, 0.3)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    config["bos_token_id"] = 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").unlink()
    model = type(hf_model).from_pretrained(tmp_path, dtype=torch.float32).eval()
    loaded = load(tmp_path, needs_vocabulary=False)
    assert loaded.config.lm.text_vocab_size == config["vocab_size"]
    assert loaded.config.lm.initial_text_id == 1
    assert _tokens(loaded, pcm) == ref.transformers_tokens(model, pcm, NUM_TOKENS)
    save_transformers(
        tmp_path / "back",
        loaded.config,
        lm=loaded.lm.state_dict(),
        codec=loaded.codec.state_dict(),
    )
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert torch.equal(back["lm_head.weight"], weights["lm_head.weight"])
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert written["bos_token_id"] == 1


def _moshi_folder(network: Network, folder: Path, respell: Callable[[str], str]) -> None:
    """What moshi's own modules hold, in files laid out as Kyutai's."""
    lm, mimi = ref.moshi_lm(network), ref.moshi_codec(network)
    save_file(
        {respell(k): v.clone() for k, v in lm.state_dict().items()}, folder / "lm.safetensors"
    )
    codec = {respell(k): v.clone().contiguous() for k, v in mimi.state_dict().items()}
    save_file(codec, folder / "mimi.safetensors")
    config = write_native(network.config, mimi_name="mimi.safetensors", tokenizer_name="t.json")
    config["moshi_name"] = "lm.safetensors"
    (folder / "config.json").write_text(json.dumps(config))
    described = write_native_codec(network.config.codec)
    (folder / config["mimi_config_name"]).write_text(json.dumps(described))
    (folder / "t.json").write_text(tiny.vocabulary().to_tokenizer_json())


def _live(name: str) -> str:
    return name


def _stored(name: str) -> str:
    name = name.replace("in_projs.0.weight", "in_proj_weight")
    name = name.replace("out_projs.0.weight", "out_proj.weight")
    return name.replace("embedding_sum", "embed_sum").replace("cluster_usage", "cluster_size")


@pytest.mark.parametrize("respell", [_live, _stored])
def test_written_by_moshi(
    respell: Callable[[str], str],
    network: Network,
    pcm: Tensor,
    expected: list[int],
    tmp_path: Path,
) -> None:
    _moshi_folder(network, tmp_path, respell)
    loaded = load(tmp_path)
    assert loaded.config == network.config
    assert _tokens(loaded, pcm) == expected


def test_moshi_reads_what_kiku_wrote(
    network: Network, pcm: Tensor, expected: list[int], tmp_path: Path
) -> None:
    """Strictly, through moshi's own loader, with the half of the codec that kiku only carries."""
    (tmp_path / "moshi").mkdir()
    _moshi_folder(network, tmp_path / "moshi", _stored)
    loaded = load(tmp_path / "moshi")
    ours = tmp_path / "ours"
    save_native(
        ours,
        loaded.config,
        lm=loaded.lm.state_dict(),
        codec=loaded.codec.state_dict(),
        vocabulary=tmp_path / "moshi" / "t.json",
        mimi_decoder=read_mimi_decoder(loaded.files, loaded.config),
    )
    from moshi.models.loaders import CheckpointInfo

    info = CheckpointInfo.from_hf_repo(
        "unused/unused",
        moshi_weights=ours / "model.safetensors",
        mimi_weights=ours / "mimi.safetensors",
        tokenizer=ours / "tokenizer.json",
        config_path=ours / "config.json",
        mimi_config_path=ours / "mimi_config.json",
    )
    with torch.no_grad():
        codes = info.get_mimi().encode(pcm)
    lm = info.get_moshi(dtype=torch.float32)
    assert ref.moshi_tokens(lm, codes)[0] == expected


@pytest.mark.parametrize("first", ["native", "transformers"])
def test_nothing_is_lost_from_layout_to_layout(
    first: str, network: Network, hf_model: Any, tmp_path: Path
) -> None:
    """There and back again: every tensor of the first file, the unused half too, bit by bit."""
    start, middle, end = tmp_path / "start", tmp_path / "middle", tmp_path / "end"
    start.mkdir()
    if first == "native":
        _moshi_folder(network, start, _stored)
    else:
        hf_model.save_pretrained(start)
        (start / "tokenizer.json").write_text(tiny.vocabulary().to_tokenizer_json())
    _rewrite(start, middle, to_native=first == "transformers")
    _rewrite(middle, end, to_native=first == "native")
    one, two = load(start), load(end)
    assert one.config == two.config
    for a, b in ((one.lm, two.lm), (one.codec, two.codec)):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    before = read_mimi_decoder(one.files, one.config)
    after = read_mimi_decoder(two.files, two.config)
    assert len(before) > 30
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def _rewrite(source: Path, target: Path, *, to_native: bool) -> None:
    loaded = load(source)
    half = read_mimi_decoder(loaded.files, loaded.config)
    assert loaded.files.vocabulary is not None
    (save_native if to_native else save_transformers)(
        target,
        loaded.config,
        lm=loaded.lm.state_dict(),
        codec=loaded.codec.state_dict(),
        vocabulary=loaded.files.vocabulary,
        mimi_decoder=half,
    )


def test_transformers_finds_every_tensor_in_what_kiku_wrote(
    network: Network, hf_model: Any, tmp_path: Path
) -> None:
    hf_model.save_pretrained(tmp_path / "a")
    loaded = load(tmp_path / "a", needs_vocabulary=False)
    save_transformers(
        tmp_path / "b",
        loaded.config,
        lm=loaded.lm.state_dict(),
        codec=loaded.codec.state_dict(),
        mimi_decoder=read_mimi_decoder(loaded.files, loaded.config),
    )
    again, info = type(hf_model).from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    theirs, ours = hf_model.state_dict(), again.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
