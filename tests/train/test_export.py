"""What was learned is in the model that is written; moshi, transformers and PEFT read it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import kiku
from kiku.checkpoint import Loaded, load, read_mimi_decoder, save_native, save_transformers
from kiku.cli import main
from kiku.config import ModelConfig
from kiku.errors import TrainingError
from kiku.nn.state import all_active
from kiku.train.examples import PackOptions
from kiku.train.export import export
from kiku.train.fit import fit
from kiku.train.folders import read_rows
from kiku.train.new_pieces import new_pieces_of
from kiku.train.pack import pack
from kiku.train.settings import read_settings
from kiku.train.state import read_state, save_state
from kiku.train.vocab import VocabOptions, make_vocabulary
from tests import tiny
from tests.parity import references as ref
from tests.parity.references import Network
from tests.train.packs import write_config
from tests.train.recordings import write_corpus
from tests.train.test_vocab import write_french

pytestmark = pytest.mark.filterwarnings("ignore")

LORA = "[lora]\nrank = 4\nalpha = 12\n"


def config() -> ModelConfig:
    """As the references' tests have it, at a rate that recordings can have."""
    whole = ref.tiny_config()
    return replace(whole, codec=replace(whole.codec, sample_rate=1000, strides=(4, 10)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in Kyutai's layout with both halves of the codec, as moshi wants it."""
    folder = tmp_path_factory.mktemp("base")
    network = ref.random_network(config())
    codec = ref.moshi_codec(network)
    vocabulary = folder / "tokenizer.json"
    vocabulary.write_text(tiny.vocabulary().to_tokenizer_json())
    half = {
        name: value
        for name, value in codec.state_dict().items()
        if name.startswith(("decoder", "upsample")) or "output_proj" in name
    }
    half = {
        name.replace("in_projs.0.weight", "in_proj_weight").replace("out_projs.0", "out_proj"): v
        for name, v in half.items()
    }
    save_native(
        folder, network.config, lm=network.lm.state_dict(), codec=network.codec.state_dict(),
        vocabulary=vocabulary, mimi_decoder=half,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def packed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    rows = read_rows(write_corpus(folder, 6, seconds=2.0))
    pack(rows, load(base), folder / "pack", PackOptions(delay_s=0.8))
    return folder / "pack"


def trained(folder: Path, base: Path, packed: Path, more: str = LORA) -> Path:
    """A run that moved its weights far."""
    path = write_config(
        folder / "c.toml", pack=packed, model=base, run=folder / "run",
        train="ema = 0.5", more=more,
    )  # fmt: skip
    fit(read_settings(path), on_progress=lambda line: None)
    return folder / "run"


@pytest.fixture(scope="module")
def run(base: Path, packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("lora"), base, packed)


@pytest.fixture(scope="module")
def pcm() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    loudness = torch.rand(60, 1, generator=generator) * 0.4
    return (torch.randn(60, 80, generator=generator) * loudness).view(1, 1, -1)


def network_of(folder: Path) -> tuple[Loaded, Network]:
    loaded = load(folder, dtype="float32")
    return loaded, Network(loaded.config, loaded.codec, loaded.lm)


def tokens_of(folder: Path, pcm: Tensor) -> list[int]:
    _, network = network_of(folder)
    return ref.kiku_tokens(network, ref.kiku_codes(network, pcm, frames_per_call=16)).tokens


def moshi_info(folder: Path) -> Any:
    from moshi.models.loaders import CheckpointInfo

    return CheckpointInfo.from_hf_repo(
        "unused/unused", moshi_weights=folder / "model.safetensors",
        mimi_weights=folder / "mimi.safetensors", tokenizer=folder / "tokenizer.json",
        config_path=folder / "config.json", mimi_config_path=folder / "mimi_config.json",
    )  # fmt: skip


@torch.no_grad()
def moshi_codes_of(folder: Path, pcm: Tensor) -> Tensor:
    return moshi_info(folder).get_mimi().encode(pcm)


def moshi_tokens_of(folder: Path, pcm: Tensor) -> list[int]:
    lm = moshi_info(folder).get_moshi(dtype=torch.float32)
    return ref.moshi_tokens(lm, moshi_codes_of(folder, pcm))[0]


def test_the_adapters_are_in_the_weights(run: Path, base: Path, tmp_path: Path) -> None:
    """The merged model says what the adapted one said."""
    from kiku.train.model import load_for_training
    from kiku.train.settings import FitSettings, LoRASettings

    done = export(run, tmp_path / "m", dtype="float32")
    assert (done.step, done.config.text_delay_s, done.left_out) == (12, 0.8, ())
    state = read_state(run)
    assert state is not None
    for which, held in (("average", state.average), ("last", state.weights)):
        export(run, tmp_path / which, which=which, dtype="float32")  # pyright: ignore
        settings = FitSettings("", str(base), lora=LoRASettings(rank=4, alpha=12))
        lm = load_for_training(settings).lm.eval()
        lm.load_state_dict(dict(held), strict=False)
        columns = torch.randint(0, 16, (1, 9, 7), generator=torch.Generator().manual_seed(0))
        loaded = load(tmp_path / which)
        assert loaded.config.text_delay_s == 0.8
        logits = [
            one(columns, one.init_state(1, "cpu", torch.float32), all_active(1)).logits
            for one in (lm, loaded.lm, load(base).lm)
        ]
        torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(logits[1], logits[2], atol=1e-2)


@pytest.mark.parametrize("more", ["", LORA])
def test_moshi_and_transformers_load_the_result(
    base: Path, packed: Path, pcm: Tensor, tmp_path: Path, more: str
) -> None:
    source = trained(tmp_path, base, packed, more)
    native, hf = tmp_path / "native", tmp_path / "hf"
    export(source, native, dtype="float32")
    export(source, hf, layout="transformers", dtype="float32")
    wanted = tokens_of(native, pcm)
    assert len(set(wanted)) > 2
    assert wanted != tokens_of(base, pcm)
    assert tokens_of(hf, pcm) == wanted
    assert moshi_tokens_of(native, pcm) == wanted
    model, loading = ref.transformers.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(
        hf, dtype=torch.float32, output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert ref.transformers_tokens(model.eval(), pcm, 60) == wanted


def test_moshi_and_transformers_hear_with_a_trained_codec(
    base: Path, pcm: Tensor, tmp_path: Path
) -> None:
    """The codes are those of the codec that was trained, in both layouts and in both engines; what
    makes sound of codes is copied along."""
    rows = read_rows(write_corpus(tmp_path, 6, seconds=2.0))
    pack(rows, load(base), tmp_path / "pack", PackOptions(delay_s=0.8, sound=True))
    source = trained(tmp_path, base, tmp_path / "pack", "[codec]\nlr = 0.01\n")
    native, hf = tmp_path / "native", tmp_path / "hf"
    export(source, native, dtype="float32")
    export(source, hf, layout="transformers", dtype="float32")
    state = read_state(source)
    assert state is not None
    _, network = network_of(base)
    before = ref.kiku_codes(network, pcm, frames_per_call=16)
    held = {n.removeprefix("codec."): v for n, v in state.average.items() if n[:6] == "codec."}
    network.codec.load_state_dict({**network.codec.state_dict(), **held})
    wanted = ref.kiku_codes(network, pcm, frames_per_call=1)
    assert float((wanted != before).float().mean()) > 0.05
    for folder in (native, hf):
        _, other = network_of(folder)
        assert torch.equal(ref.kiku_codes(other, pcm, frames_per_call=16), wanted)
    assert torch.equal(moshi_codes_of(native, pcm), wanted)
    tokens = tokens_of(native, pcm)
    assert moshi_tokens_of(native, pcm) == tokens
    kind = ref.transformers.KyutaiSpeechToTextForConditionalGeneration
    model = kind.from_pretrained(hf, dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(model.codec_model.encode(pcm).audio_codes, wanted)
    assert ref.transformers_tokens(model, pcm, 60) == tokens
    loaded = load(native)
    half = read_mimi_decoder(loaded.files, loaded.config)
    was = read_mimi_decoder(load(base).files, loaded.config)
    assert half.keys() == was.keys() != set()
    assert all(torch.equal(half[name], was[name]) for name in was)
    engine = kiku.load(native, engine="onnx", dtype="float32", slots=1).scheduler.engine
    slot, _ = engine.open()
    heard = engine.encode([slot], pcm[0, 0].numpy().reshape(60, -1), [60])
    assert np.array_equal(heard.T, wanted[0].numpy())


def test_kiku_listens_with_it(run: Path, tmp_path: Path, pcm: Tensor) -> None:
    """As any model: converted, in int8, through the recognizer."""
    export(run, tmp_path / "m")
    recognizer = kiku.load(tmp_path / "m")
    transcript = recognizer.transcribe(pcm[0, 0].numpy(), rate=1000)
    assert transcript.duration == pytest.approx(4.8)


def test_the_dtype(run: Path, base: Path, tmp_path: Path) -> None:
    def stored(folder: Path) -> torch.dtype:
        return load(folder, dtype="auto").lm.text_head.weight.dtype

    export(run, tmp_path / "auto")
    assert stored(tmp_path / "auto") == stored(base) == torch.float32
    export(run, tmp_path / "half", dtype="bfloat16")
    assert stored(tmp_path / "half") == torch.bfloat16


def test_pause_heads_have_no_place_in_transformers(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_rows(write_corpus(tmp_path, 3, seconds=2.0))
    pack(rows, load(tiny_folder), tmp_path / "pack", PackOptions())
    source = trained(tmp_path, tiny_folder, tmp_path / "pack", "")
    assert main(["train", "export", str(source), "-o", str(tmp_path / "m")]) == 0
    assert capsys.readouterr() == (f"{tmp_path / 'm'}\n", "")
    assert load(tmp_path / "m").config.lm.num_pause_heads == 4
    to = ["--layout", "transformers", "-o", str(tmp_path / "hf")]
    assert main(["train", "export", str(source), *to]) == 0
    assert (
        "left out, as transformers cannot store it: pause_heads.0.weight" in capsys.readouterr().err
    )
    names = {one.name for one in (tmp_path / "hf").iterdir()}
    to = ["--layout", "transformers", "-o", str(tmp_path / "m")]
    assert main(["train", "export", str(source), *to]) == 1
    assert main(["train", "export", str(source), *to, "--force"]) == 0
    assert {one.name for one in (tmp_path / "m").iterdir()} == names
    with pytest.raises(TrainingError, match="trained whole weights, not adapters"):
        export(source, tmp_path / "a", layout="adapter")


def test_a_dtype_that_there_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "export", str(tmp_path), "-o", "m", "--dtype", "fp16"]) == 2
    assert (
        "'fp16' is not known; choose one of auto, float32, float16, bfloat16"
        in capsys.readouterr().err
    )


def test_the_wrong_model_is_refused(run: Path, tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="did not start from"):
        export(run, tmp_path / "m", model=str(_other(tmp_path)))
    with pytest.raises(TrainingError, match="has no checkpoint of a run"):
        export(tmp_path, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_model_that_is_there_stays(run: Path, base: Path) -> None:
    """Also the one that the run began with."""
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    for layout in ("native", "transformers", "adapter"):
        with pytest.raises(TrainingError, match=r"already contains a model: .* \( --force \)"):
            export(run, base, layout=layout)
        with pytest.raises(TrainingError, match="is used to make the new model"):
            export(run, base, layout="native", force=True)
    with pytest.raises(TrainingError, match=r"not of a model \(.*curve"):
        export(run, run)
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before


def _other(folder: Path) -> Path:
    network = ref.random_network(config(), seed=4)
    vocabulary = folder / "v.json"
    vocabulary.write_text(tiny.vocabulary().to_tokenizer_json())
    save_native(
        folder / "other", network.config, lm=network.lm.state_dict(),
        codec=network.codec.state_dict(), vocabulary=vocabulary,
    )  # fmt: skip
    return folder / "other"


def test_an_adapter_and_back(run: Path, base: Path, packed: Path, tmp_path: Path) -> None:
    """Through PEFT's files: merged again they are the same model; another run begins with them."""
    export(run, tmp_path / "a", layout="adapter")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors", "kiku_adapter.json"]
    export(tmp_path / "a", tmp_path / "back", model=str(base), dtype="float32")
    export(run, tmp_path / "m", dtype="float32")
    one, two = load(tmp_path / "back"), load(tmp_path / "m")
    for a, b in zip(one.lm.parameters(), two.lm.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.config == two.config
    assert (one.config.text_delay_s, load(base).config.text_delay_s) == (0.8, 0.5)
    delay = tmp_path / "a" / "kiku_adapter.json"
    for text in ("{}", "[", '{"text_delay_s": -1}'):
        delay.write_text(text)
        with pytest.raises(TrainingError, match=r"kiku_adapter\.json .*: export the adapter again"):
            export(tmp_path / "a", tmp_path / "x", model=str(base))
    delay.unlink()  # an adapter of PEFT's alone
    assert export(tmp_path / "a", tmp_path / "plain", model=str(base)).config.text_delay_s == 0.5
    with pytest.raises(TrainingError, match="give --model"):
        export(tmp_path / "a", tmp_path / "x")
    from kiku.train.model import load_for_training

    start = f'start = "{tmp_path / "a"}"\n'
    path = write_config(
        tmp_path / "d.toml", pack=packed, model=base, run=tmp_path / "r", more=LORA + start
    )
    lm = load_for_training(read_settings(path)).lm
    assert any(bool(w.any()) for n, w in lm.named_parameters() if ".up." in n)
    other = '[lora]\nrank = 2\ntargets = ["q_proj"]\n'
    path = write_config(
        tmp_path / "e.toml", pack=packed, model=base, run=tmp_path / "r", more=other + start
    )
    with pytest.raises(TrainingError, match="does not contain the adapters that were asked for"):
        load_for_training(read_settings(path))


@pytest.fixture
def hf_base(base: Path, tmp_path: Path) -> Any:
    loaded, network = network_of(base)
    save_transformers(
        tmp_path / "hf_base", loaded.config, lm=network.lm.state_dict(),
        codec=network.codec.state_dict(),
    )  # fmt: skip
    return ref.transformers.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(
        tmp_path / "hf_base", dtype=torch.float32
    ).eval()


def logits_of(model: Any, columns: Tensor) -> Tensor:
    return ref.transformers_logits(model, columns)


def test_peft_reads_kikus_adapter(run: Path, hf_base: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    export(run, tmp_path / "a", layout="adapter")
    export(run, tmp_path / "m", dtype="float32")
    _, network = network_of(tmp_path / "m")
    columns = torch.randint(4, 16, (1, 12, 7), generator=torch.Generator().manual_seed(0))
    plain = logits_of(hf_base, columns)
    adapted = peft.PeftModel.from_pretrained(hf_base, tmp_path / "a")
    state = network.lm.init_state(1, "cpu", torch.float32, remember=False)
    with torch.no_grad():
        ours = network.lm(columns, state, all_active(1)).logits[0]
    theirs = logits_of(adapted, columns)[:, : ours.shape[1]]
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(theirs, plain[:, : ours.shape[1]], atol=1e-2)


def test_kiku_reads_pefts_adapter(base: Path, hf_base: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    targets = r"model\.layers\.\d+\.(self_attn\.(q|k|o)_proj\.linear|mlp\.fc2)"
    how = peft.LoraConfig(r=3, lora_alpha=7, target_modules=targets, init_lora_weights=False)
    model = peft.get_peft_model(hf_base, how)
    model.save_pretrained(tmp_path / "a")
    export(tmp_path / "a", tmp_path / "m", model=str(base), dtype="float32")
    _, network = network_of(tmp_path / "m")
    columns = torch.randint(4, 16, (1, 12, 7), generator=torch.Generator().manual_seed(0))
    state = network.lm.init_state(1, "cpu", torch.float32, remember=False)
    with torch.no_grad():
        ours = network.lm(columns, state, all_active(1)).logits[0]
    theirs = logits_of(model.eval(), columns)[:, : ours.shape[1]]
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="module")
def taught(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `grown`, the base with letters that it lacked, and `run`, which learned them
    with adapters."""
    folder = tmp_path_factory.mktemp("taught")
    rows = read_rows(write_french(folder))
    make_vocabulary(rows, str(base), folder / "grown", VocabOptions(40, any_letters=True))
    pack(rows, load(folder / "grown"), folder / "pack", PackOptions(delay_s=0.8))
    run = trained(folder, folder / "grown", folder / "pack")
    state = read_state(run)
    assert state is not None
    for name, value in state.average.items():
        if name.endswith(".rows"):  # as if it had learned more than twelve steps teach
            value.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    save_state(run, state)
    return folder


def test_moshi_and_transformers_load_a_grown_vocabulary(
    taught: Path, base: Path, pcm: Tensor, tmp_path: Path
) -> None:
    native, hf = tmp_path / "native", tmp_path / "hf"
    export(taught / "run", native, dtype="float32")
    export(taught / "run", hf, layout="transformers", dtype="float32")
    had = load(base).config.lm.text_vocab_size
    assert load(native).config.lm.text_vocab_size == load(hf).config.lm.text_vocab_size > had
    wanted = tokens_of(native, pcm)
    assert max(wanted) >= len(load(base).vocabulary)  # a new piece is written
    assert len(set(wanted)) > 2
    assert tokens_of(hf, pcm) == wanted
    assert moshi_tokens_of(native, pcm) == wanted
    model, loading = ref.transformers.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(
        hf, dtype=torch.float32, output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert ref.transformers_tokens(model.eval(), pcm, 60) == wanted
    cut = ref.transformers.PreTrainedTokenizerFast(tokenizer_file=str(hf / "tokenizer.json"))
    ids = load(native).vocabulary.encode("zéro cinq")
    assert cut.encode("zéro cinq", add_special_tokens=False) == ids
    assert cut.decode(ids) == "zéro cinq"


def test_peft_holds_the_new_rows(taught: Path, base: Path, tmp_path: Path) -> None:
    """Adapter and rows through PEFT on transformers' model; and back, PEFT's own file too."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    done = export(taught / "run", tmp_path / "a", layout="adapter")
    assert done.left_out == ()
    export(taught / "run", tmp_path / "m", dtype="float32")
    loaded, network = network_of(taught / "grown")
    save_transformers(
        tmp_path / "hf", loaded.config, lm=network.lm.state_dict(),
        codec=network.codec.state_dict(),
    )  # fmt: skip
    kind = ref.transformers.KyutaiSpeechToTextForConditionalGeneration
    model = kind.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    columns = torch.randint(4, 16, (1, 12, 7), generator=torch.Generator().manual_seed(0))
    columns[..., 0] = torch.arange(len(loaded.vocabulary) - 12, len(loaded.vocabulary))
    plain = logits_of(model, columns)
    adapted = peft.PeftModel.from_pretrained(model, tmp_path / "a")
    _, merged = network_of(tmp_path / "m")
    state = merged.lm.init_state(1, "cpu", torch.float32, remember=False)
    with torch.no_grad():
        ours = merged.lm(columns, state, all_active(1)).logits[0]
    theirs = logits_of(adapted, columns)[:, : ours.shape[1]]
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-3)
    first = loaded.vocabulary.encode("zéro")[0]
    assert not torch.allclose(theirs[:, first:], plain[:, first : ours.shape[1]], atol=1e-2)
    adapted.save_pretrained(tmp_path / "b")
    for name in ("a", "b"):
        export(tmp_path / name, tmp_path / f"{name}m", model=str(taught / "grown"), dtype="float32")
        back = load(tmp_path / f"{name}m").lm.state_dict()
        for key, value in merged.lm.state_dict().items():
            torch.testing.assert_close(back[key], value, msg=key)
    path = tmp_path / "a" / "adapter_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "modules_to_save": ["embed_tokens", "codec_model"]}))
    with pytest.raises(TrainingError, match="has other modules_to_save than"):
        export(tmp_path / "a", tmp_path / "x", model=str(taught / "grown"))
    with pytest.raises(TrainingError, match="belongs to a model with another vocabulary"):
        export(tmp_path / "b", tmp_path / "x", model=str(base))


def test_a_run_goes_on_from_rows_that_others_learned(taught: Path, tmp_path: Path) -> None:
    from kiku.train.model import load_for_training

    export(taught / "run", tmp_path / "a", layout="adapter", which="last")
    state = read_state(taught / "run")
    assert state is not None

    def start(more: str = "", model: str = "grown") -> Any:
        path = write_config(
            tmp_path / "d.toml", pack=taught / "pack", model=taught / model, run=tmp_path / "r",
            more=f'{LORA}start = "{tmp_path / "a"}"\n{more}',
        )  # fmt: skip
        return dict(load_for_training(read_settings(path)).lm.named_parameters())

    weights = start()
    for name in ("text_embedding.rows", "text_head.rows"):
        assert torch.equal(weights[name], state.weights[name])
    with pytest.raises(
        TrainingError, match=r"has trained rows of text_(embedding|head), which this"
    ):
        start("new_pieces = 2")
    whole = start('also = ["text_embedding", "text_head"]')
    new = new_pieces_of(load(taught / "grown"), -1)
    held = whole["text_head.weight"][new.start : new.stop]
    assert torch.equal(held, state.weights["text_head.rows"])


def test_adapters_of_other_kinds_are_refused(run: Path, base: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "a", layout="adapter")
    path = tmp_path / "a" / "adapter_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "use_dora": True}))
    with pytest.raises(TrainingError, match="use_dora"):
        export(tmp_path / "a", tmp_path / "m", model=str(base))
    path.write_text("{}")
    with pytest.raises(TrainingError, match="contains no adapter"):
        export(tmp_path / "a", tmp_path / "m", model=str(base))
