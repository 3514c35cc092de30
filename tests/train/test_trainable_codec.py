"""A codec that learns: what it hears, the gradient through its choices, whole runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kiku.checkpoint import load
from kiku.codec import MimiEncoder
from kiku.errors import ConfigError, TrainingError
from kiku.nn.state import all_active
from kiku.train.batches import Batches, TrainingBatch
from kiku.train.export import export
from kiku.train.fit import fit
from kiku.train.reference import ReferenceDecoder
from kiku.train.settings import FitSettings, LossSettings, read_settings
from kiku.train.shards import PackReader
from kiku.train.trainable_codec import SoftCodes, TrainableCodec, straight_through
from kiku.train.training_module import TrainingModule
from tests import tiny
from tests.train.packs import write_config, write_pack
from tests.train.runs import curve_of, quiet, state_of

CODEC = "[codec]\nlr = 1e-2\n"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack"), tiny_folder, marked=3, sound=True)


@pytest.fixture
def config(tmp_path: Path, pack: Path, tiny_folder: Path):
    """Writes the settings of a run and reads them."""

    def write(run: str = "run", train: str = "", more: str = CODEC) -> FitSettings:
        path = tmp_path / f"{run}.toml"
        write_config(path, pack=pack, model=tiny_folder, run=tmp_path / run, train=train, more=more)
        return read_settings(path)

    return write


@pytest.fixture
def batch(pack: Path) -> TrainingBatch:
    return Batches(PackReader(pack), 4, 0, sound=True)[0]


def learning(
    codec: MimiEncoder, *, checkpointing: bool = False, temperature: float = 1.0
) -> TrainableCodec:
    return TrainableCodec(codec.requires_grad_(True), 4, temperature, checkpointing=checkpointing)


def training_module(
    trainable: TrainableCodec | None, reference: ReferenceDecoder | None = None, **settings: float
) -> TrainingModule:
    lm = tiny.lm() if reference is None else reference.lm
    how = LossSettings(**settings)
    return TrainingModule(lm, how, 3, torch.float32, reference=reference, codec=trainable)


def test_what_is_heard_is_what_a_stream_hears(batch: TrainingBatch) -> None:
    """Frame by frame, with a memory: the very codes. Also where rows are heard one by one."""
    assert batch.sound is not None
    codec = tiny.codec()
    alone, again = learning(codec)(batch.sound), learning(codec, checkpointing=True)(batch.sound)
    state, active = codec.init_state(4, "cpu", torch.float32), all_active(4)
    with torch.no_grad():
        frames = [codec(one[:, None], state, active) for one in batch.sound.split(80, dim=1)]
    assert torch.equal(alone.codes, torch.cat(frames, dim=-1))
    assert torch.equal(again.codes, alone.codes)
    known = batch.codes >= 0
    assert torch.equal(alone.codes[known], batch.codes[known])
    assert len(alone.codes.unique()) > 8
    assert [one.shape for one in alone.probabilities] == [(4, known.shape[-1], 16)] * 4
    with torch.no_grad():
        assert learning(codec)(batch.sound).probabilities == ()


def test_fewer_codebooks_than_there_are(batch: TrainingBatch) -> None:
    assert batch.sound is not None
    trainable = TrainableCodec(tiny.codec().requires_grad_(True), 2, 1.0)
    soft = trainable(batch.sound)
    assert torch.equal(soft.codes, learning(tiny.codec())(batch.sound).codes[:, :2])
    assert len(soft.probabilities) == 2


def soft_means(codec: MimiEncoder, tables: list[Tensor], sound: Tensor, codes: Tensor) -> Tensor:
    """The sum of the mean embeddings of all choices, the entries that were taken off as they were:
    by distances, and with numbers of its own."""
    state = codec.init_state(len(sound), "cpu", torch.float32, remember=False)
    latents = codec.latents(sound[:, None], state, all_active(len(sound)))
    total = torch.zeros(())
    for k, table in enumerate(tables):
        rvq = codec.quantizer.semantic if k == 0 else codec.quantizer.acoustic
        books = rvq.codebooks
        first = 0 if k == 0 else 1
        residual = rvq.input_proj(latents).transpose(1, 2)
        for i in range(k - first):
            residual = residual - books[i][codes[:, first + i].clamp(min=0)]
        book = books[k - first]
        distances = (residual[:, :, None] - book).square().sum(-1)
        apart = (book[:, None] - book).square().sum(-1) + 1e9 * torch.eye(len(book))
        spacing = apart.min(1).values.sort().values[7]  # the lower median of 16
        probabilities = (-distances / (0.7 * spacing)).softmax(-1)
        total = total + (probabilities @ table[:16]) * (codes[:, k] >= 0)[..., None]
    return total


def test_the_gradient_is_that_of_soft_choices(
    batch: TrainingBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against finite differences of a loss in which the decoder reads the hard codes' embeddings,
    and besides them by how much the soft ones have moved."""
    assert batch.sound is not None
    trainable = learning(tiny.codec(), temperature=0.7)
    module = training_module(trainable, pauses=0.3)
    module(batch)["loss"].backward()
    weights = dict(trainable.codec.named_parameters())
    assert all(one.grad is not None and bool(one.grad.any()) for one in weights.values())
    gradient = {name: one.grad.clone() for name, one in weights.items() if one.grad is not None}
    length = sum(float(one.square().sum()) for one in gradient.values()) ** 0.5

    with torch.no_grad():
        codes = trainable(batch.sound).codes.masked_fill(batch.codes < 0, -1)
        tables = [one.weight.detach() for one in module.lm.code_embeddings]
        was = soft_means(trainable.codec, tables, batch.sound, codes)
        fixed = training_module(None, pauses=0.3)

        def loss(step: float) -> float:
            for name, weight in weights.items():
                weight += step / length * gradient[name]
            assert batch.sound is not None
            moved = soft_means(trainable.codec, tables, batch.sound, codes) - was
            for name, weight in weights.items():
                weight -= step / length * gradient[name]
            monkeypatch.setattr("kiku.train.training_module.straight_through", lambda *given: moved)
            return float(fixed(replace(batch, codes=codes))["loss"])

        slope = (loss(2e-3) - loss(-2e-3)) / 4e-3
    assert slope == pytest.approx(length, rel=0.02)


def test_the_nudge_is_nothing_but_a_gradient(batch: TrainingBatch) -> None:
    assert batch.sound is not None
    soft = learning(tiny.codec())(batch.sound)
    codes = soft.codes.clone()
    codes[:, 1:] = -1
    tables = tiny.lm().code_embeddings.requires_grad_(True)
    found = straight_through(soft, codes, tables)
    assert found is not None
    assert not found.any()
    wanted = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    first, second = torch.autograd.grad(
        (found * wanted).sum(), [soft.probabilities[0], soft.probabilities[1]], retain_graph=True
    )
    torch.testing.assert_close(first, wanted @ tables[0].weight[:16].T)
    assert not second.any()  # what is hidden has none
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(found.sum(), tables[0].weight)
    assert straight_through(SoftCodes(codes, ()), codes, tables) is None


def test_the_decoder_learns_what_it_learns_of_codes(batch: TrainingBatch) -> None:
    """Loss and gradient of the decoder are to the bit those of a codec that does not learn."""
    found = []
    for trainable in (learning(tiny.codec()), None):
        module = training_module(trainable)
        module.lm.requires_grad_(True)
        values = module(batch)
        values["loss"].backward()
        found.append((values["loss"], [one.grad for one in module.lm.parameters()]))
    assert torch.equal(found[0][0], found[1][0])
    assert all(map(torch.equal, found[0][1], found[1][1]))


def test_computing_twice_changes_nothing(batch: TrainingBatch) -> None:
    gradients, calls = [], list[int]()
    for checkpointing in (False, True):
        trainable = learning(tiny.codec(), checkpointing=checkpointing)
        real = trainable.codec.latents

        def latents(*given, real=real) -> Tensor:
            calls.append(len(given[0]))
            return real(*given)

        trainable.codec.latents = latents  # pyright: ignore
        training_module(trainable)(batch)["loss"].backward()
        gradients.append([one.grad for one in trainable.codec.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    assert calls == [4] + 8 * [1]


def test_text_teaches_what_was_heard_before_it(batch: TrainingBatch) -> None:
    """A token hangs on the frames before its own, the last of them included, and on no other."""
    assert batch.sound is not None
    text = batch.text.clone()
    text[:, 11:] = -1
    sound = batch.sound.clone().requires_grad_(True)
    known = replace(batch, sound=sound, text=text)
    training_module(learning(tiny.codec()), pauses=0.0)(known)["loss"].backward()
    assert sound.grad is not None
    frames = sound.grad.view(4, -1, 80).abs().amax((0, 2))
    assert bool(frames[9])
    assert not frames[10:].any()


def test_what_was_said_before_was_said_of_what_was_heard_before(batch: TrainingBatch) -> None:
    """A model is held to what it said of the pack's codes, whatever its codec hears by now."""
    marked = replace(batch, keep=torch.ones(4, dtype=torch.bool))
    codec = tiny.codec()
    module = training_module(learning(codec), ReferenceDecoder(tiny.lm(), range(0)), keep=1.0)
    assert float(module(marked)["keep"].detach()) == pytest.approx(0.0, abs=1e-4)
    with torch.no_grad():
        codec.downsample.conv.weight.mul_(-1)
    values = module(marked)
    assert float(values["keep"].detach()) > 1.0
    values["loss"].backward()
    assert codec.downsample.conv.weight.grad is not None


def test_the_codec_alone_learns(config, tiny_folder: Path) -> None:
    """The loss falls, and nothing but the codec has changed."""
    settings = config(more=f"{CODEC}alone = true\n")
    settings = replace(settings, train=replace(settings.train, steps=60, log_every=10, batch=6))
    done = fit(settings, on_progress=quiet)
    losses = [float(row["text"]) for row in curve_of(settings)]
    assert losses[-1] < 0.9 * losses[0]
    before = load(tiny_folder, dtype="float32")
    names = {name for name, _ in before.codec.named_parameters()}
    state = state_of(settings)
    assert set(state.weights) == {f"codec.{name}" for name in names}
    assert done.weights == sum(one.numel() for one in before.codec.parameters())
    export(Path(settings.run), Path(settings.run).with_name("model"), which="last", dtype="float32")
    after = load(Path(settings.run).with_name("model"), dtype="float32")
    assert all(map(torch.equal, before.lm.parameters(), after.lm.parameters()))
    held, changed = before.codec.state_dict(), after.codec.state_dict()
    for name in held:
        assert torch.equal(held[name], changed[name]) == (name not in names), name


def test_parts_of_the_codec(config, tiny_folder: Path) -> None:
    settings = config(more=CODEC + 'parts = ["transformer", "quantizer"]\n')
    fit(settings, on_progress=quiet)
    names = [name for name in state_of(settings).weights if name.startswith("codec.")]
    assert {name.split(".")[1] for name in names} == {"transformer", "quantizer"}
    # Beside them the decoder has learned, at its own rate.
    lm = load(tiny_folder, dtype="float32").lm.state_dict()
    weights = state_of(settings).weights
    assert not torch.equal(weights["text_head.weight"], lm["text_head.weight"])


def test_the_codecs_rate_is_its_own(config, tiny_folder: Path) -> None:
    settings = config(more="[codec]\nlr = 0.0\n")
    fit(settings, on_progress=quiet)
    codec = load(tiny_folder, dtype="float32").codec.state_dict()
    for name, value in state_of(settings).weights.items():
        if name.startswith("codec."):
            assert torch.equal(value, codec[name.removeprefix("codec.")])


@pytest.mark.parametrize("train", ["", "checkpointing = true\n"])
def test_a_run_goes_on_to_the_bit(config, train: str) -> None:
    more = "[loss]\nkeep = 2.0\nhidden_codes = 0.1\nwrong_text = 0.1\n" + CODEC
    train += "dev_every = 4\n"

    def stop(line: str) -> None:
        if line.startswith("step 8/"):
            raise KeyboardInterrupt

    stopped, whole = config("stopped", train, more), config("whole", train, more)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, on_progress=stop)
    assert fit(stopped, on_progress=quiet).resumed_at == 5
    fit(whole, on_progress=quiet)
    one, two = state_of(stopped), state_of(whole)
    for a, b in ((one.weights, two.weights), (one.average, two.average)):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert curve_of(stopped) == curve_of(whole)
    assert any(name.startswith("codec.seanet.") for name in one.weights)
    # The look at dev heard with the averaged codec.
    assert curve_of(whole)[-1]["dev_loss"] != ""
    with pytest.raises(TrainingError, match=r"another codec\.lr \(it was 0\.01, and is now 0\.5\)"):
        fit(config("whole", train, more.replace("1e-2", "0.5")), on_progress=quiet)


def test_dev_is_heard_with_the_averaged_codec(config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder is as it was: a look with the old codec would tell the loss of the beginning."""
    settings = config(more=f"{CODEC}alone = true\n", train="dev_every = 4\nema = 0.5\n")
    fit(settings, on_progress=quiet)
    rows = [row["dev_loss"] for row in curve_of(settings) if row["dev_loss"]]
    assert len(set(rows)) == 3


def test_a_pack_without_sound_is_refused(config, tmp_path: Path, tiny_folder: Path) -> None:
    silent = write_pack(tmp_path / "silent", tiny_folder, 3, 0)
    with pytest.raises(TrainingError, match="has no sound: pack the manifest again with --sound"):
        fit(replace(config(), pack=str(silent)), on_progress=quiet)


def test_an_adapter_has_no_place_for_a_codec(config, tmp_path: Path) -> None:
    settings = config(more=f"[lora]\nrank = 2\n{CODEC}")
    fit(settings, on_progress=quiet)
    with pytest.raises(TrainingError, match="also trained the codec, which PEFT"):
        export(Path(settings.run), tmp_path / "a", layout="adapter")
    assert export(Path(settings.run), tmp_path / "m").step == 12


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[codec]\nparts = ["codebooks"]', "must be some of seanet, transformer"),
        ("[codec]\nparts = []", "must be some of seanet, transformer"),
        ("[codec]\ntemperature = 0.0", r"codec\.temperature must be from"),
        ("[codec]\nlr = -1.0", r"codec\.lr must be from"),
        ("[codec]\nalone = true\n[lora]\nrank = 2", r"codec\.alone does not train the decoder"),
        ("[codec]\ntrain = true", "train"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.toml").write_text(f'pack = "p"\n{text}')
    with pytest.raises(ConfigError, match=said):
        read_settings(tmp_path / "c.toml")


def test_entries_in_one_place_are_no_neighbours() -> None:
    codec = tiny.codec()
    books = codec.quantizer.semantic.codebooks
    with torch.no_grad():
        spread = torch.from_numpy(np.arange(6, dtype=np.float32) * 3)
        books.zero_()
        books[0, :6, 0] = spread
        codec.quantizer.semantic.refresh()
    assert float(TrainableCodec(codec, 1, 2.0).softness[0]) == pytest.approx(18.0)
