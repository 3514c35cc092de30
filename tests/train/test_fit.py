"""The loop: kills, changed settings, losses that are no numbers, full disks, adapters."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from kiku.checkpoint import load
from kiku.cli import main
from kiku.errors import ConfigError, MissingExtra, TrainingError
from kiku.train.atomic_files import locked_folder
from kiku.train.augment import read_augmentation
from kiku.train.fit import fit, rate_at
from kiku.train.lora import adapted
from kiku.train.model import load_for_training
from kiku.train.settings import CodecSettings, FitSettings, TrainSettings, read_settings
from tests.train.packs import write_config, write_pack
from tests.train.recordings import write_corpus
from tests.train.runs import curve_of, quiet, state_of
from tests.train.torchrun import torchrun

LORA = '[lora]\nrank = 4\nalpha = 8\ntargets = ["q_proj", "v_proj", "fc1"]\n'
NOISE = "[loss]\nhidden_codes = 0.1\nwrong_text = 0.1\n"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack"), tiny_folder)


@pytest.fixture
def config(tmp_path: Path, pack: Path, tiny_folder: Path):
    """Writes the settings of a run and reads them."""

    def write(run: str = "run", train: str = "", more: str = "") -> FitSettings:
        path = tmp_path / f"{run}.toml"
        write_config(path, pack=pack, model=tiny_folder, run=tmp_path / run, train=train, more=more)
        return read_settings(path)

    return write


def assert_equal(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("more", [NOISE, NOISE + LORA + "dropout = 0.2\n"])
def test_a_kill_changes_nothing(config, tmp_path: Path, more: str) -> None:
    """A real SIGKILL between two checkpoints: weights, averages and curve end bit-equal."""
    train = "dev_every = 4\naccumulate = 2"
    killed = config("killed", train, more)
    program = f"""
import os, signal
from pathlib import Path
from kiku.train.fit import fit
from kiku.train.settings import read_settings
def say(line):
    if line.startswith("step 8/"):
        os.kill(os.getpid(), signal.SIGKILL)
fit(read_settings(Path({str(tmp_path / "killed.toml")!r})), on_progress=say)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert state_of(killed).step == 5
    assert [row["step"] for row in curve_of(killed)][-1] == "8"
    said: list[str] = []
    done = fit(killed, on_progress=said.append)
    assert (done.resumed_at, done.step) == (5, 12)
    assert said[0] == "continuing from step 5"
    whole = config("whole", train, more)
    fit(whole, on_progress=quiet)
    one, two = state_of(killed), state_of(whole)
    assert_equal(one.weights, two.weights)
    assert_equal(one.average, two.average)
    assert one.moments.keys() == two.moments.keys() == one.weights.keys()
    # The line of step 6 is of two steps, of which one was before the kill.
    assert curve_of(killed) == curve_of(whole)
    assert [row["step"] for row in curve_of(killed)] == ["2", "4", "6", "8", "10", "12"]
    assert curve_of(killed)[3]["dev_loss"] != ""


def test_it_learns(config) -> None:
    from dataclasses import replace

    settings = config()
    settings = replace(settings, train=replace(settings.train, steps=150, log_every=25, batch=6))
    said: list[str] = []
    fit(settings, on_progress=said.append)
    rows = curve_of(settings)
    assert float(rows[-1]["text"]) < 0.6 * float(rows[0]["text"])
    assert float(rows[-1]["pauses"]) < float(rows[0]["pauses"])
    assert float(rows[-1]["token_accuracy"]) > float(rows[0]["token_accuracy"]) + 0.2
    assert "step 150/150  loss " in said[-1]
    assert said[-1].endswith(" frames/s  0:00 left")
    # finished: nothing is done again
    before = (Path(settings.run) / "state.safetensors").stat().st_mtime_ns
    assert fit(settings, on_progress=quiet).resumed_at == 150
    assert (Path(settings.run) / "state.safetensors").stat().st_mtime_ns == before


def test_a_loss_that_is_no_number_stops(config, monkeypatch: pytest.MonkeyPatch) -> None:
    from kiku.train.training_module import TrainingModule

    settings, real, calls = config(), TrainingModule.forward, 0

    def forward(self: TrainingModule, batch: object, **how: bool) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        values = real(self, batch, **how)  # pyright: ignore
        if calls == 8:  # between two checkpoints
            values["loss"] = values["loss"] * float("nan")
        return values

    monkeypatch.setattr(TrainingModule, "forward", forward)
    with pytest.raises(
        TrainingError, match=r"step 8 was not applied: its loss is nan.*\d\d\d\.wav"
    ):
        fit(settings, on_progress=quiet)
    state = state_of(settings)
    assert state.step == 7
    assert all(bool(torch.isfinite(value).all()) for value in state.weights.values())
    assert fit(settings, on_progress=quiet).resumed_at == 7
    whole = config("whole")
    monkeypatch.undo()
    fit(whole, on_progress=quiet)
    assert_equal(state_of(settings).weights, state_of(whole).weights)


@pytest.mark.parametrize(
    ("train", "more", "key"),
    [
        ("seed = 3", "", r"train\.seed \(it was 0, and is now 3\)"),
        ("weight_decay = 0.5", "", r"train\.weight_decay"),
        ("", LORA, r"lora"),
        ("", "[loss]\npauses = 0.7", r"loss\.pauses \(it was 0\.1, and is now 0\.7\)"),
    ],
)
def test_changed_settings_are_refused(config, train: str, more: str, key: str) -> None:
    fit(config(), on_progress=quiet)
    before = state_of(config())
    with pytest.raises(TrainingError, match=f"begun with another {key}"):
        fit(config(train=train, more=more), on_progress=quiet)
    assert_equal(state_of(config()).weights, before.weights)


def test_a_changed_pack_is_refused(config, tiny_folder: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    settings = config()
    fit(settings, on_progress=quiet)
    other = write_pack(tmp_path / "other", tiny_folder, 4, 0)
    with pytest.raises(TrainingError, match="another pack"):
        fit(replace(settings, pack=str(other)), on_progress=quiet)


def test_a_pack_of_another_model_is_refused(config, tmp_path: Path) -> None:
    from dataclasses import replace

    from kiku.checkpoint import save_native
    from tests import tiny

    vocabulary = tmp_path / "tokenizer.json"
    vocabulary.write_text(tiny.vocabulary().to_tokenizer_json())
    save_native(
        tmp_path / "m", tiny.model_config(), lm=tiny.lm().state_dict(),
        codec=tiny.codec(seed=9).state_dict(), vocabulary=vocabulary,
    )  # fmt: skip
    with pytest.raises(TrainingError, match="packed for a model with another codec"):
        fit(replace(config(), model=str(tmp_path / "m")), on_progress=quiet)


def test_a_full_disk_keeps_the_checkpoint(config, monkeypatch: pytest.MonkeyPatch) -> None:
    import kiku.train.state as state

    settings, real, written = config(), state.write_tensors, 0

    def save(*given: object, **named: object) -> None:
        nonlocal written
        written += 1
        if written == 2:
            raise OSError(28, "No space left on device")
        real(*given, **named)  # pyright: ignore

    monkeypatch.setattr(state, "write_tensors", save)
    with pytest.raises(TrainingError, match=r"state\.safetensors cannot be written \(no space"):
        fit(settings, on_progress=quiet)
    assert state_of(settings).step == 5
    assert fit(settings, on_progress=quiet).resumed_at == 5
    whole = config("whole")
    fit(whole, on_progress=quiet)
    assert_equal(state_of(settings).weights, state_of(whole).weights)
    assert curve_of(settings) == curve_of(whole)


def test_computing_twice_changes_nothing(config) -> None:
    plain, twice = config("plain"), config("twice", train="checkpointing = true")
    fit(plain, on_progress=quiet)
    fit(twice, on_progress=quiet)
    one, two = state_of(plain), state_of(twice)
    for name in one.weights:
        torch.testing.assert_close(one.weights[name], two.weights[name])


@pytest.mark.parametrize("seed", [2**24, 20_260_101, 2**31])
def test_any_seed_will_do(config, seed: int) -> None:
    assert fit(config(train=f"seed = {seed}"), on_progress=quiet).step == 12


def test_one_at_a_time_trains_in_a_folder(config) -> None:
    settings = config()
    with (
        locked_folder(Path(settings.run)),
        pytest.raises(TrainingError, match="another run writes"),
    ):
        fit(settings, on_progress=quiet)
    assert not (Path(settings.run) / "curve.csv").exists()
    assert fit(settings, on_progress=quiet).step == 12


def test_accumulated_batches_are_one_step(config) -> None:
    from dataclasses import replace

    settings = config("b", train="accumulate = 4")
    one = replace(settings, train=replace(settings.train, steps=3, batch=1))
    fit(one, on_progress=quiet)
    rows = curve_of(one)
    assert rows[-1]["step"] == "3"
    assert float(rows[-1]["epoch"]) == pytest.approx(1.0)


def test_adapters_alone_are_trained(config, tiny_folder: Path) -> None:
    settings = config(more=LORA + 'also = ["out_norm"]\n')
    done = fit(settings, on_progress=quiet)
    # each of 2 layers: q, v: 4 (32 + 32), fc1: 4 (32 + 80); and a norm of 32
    assert done.weights == 2 * (2 * 4 * 64 + 4 * 112) + 32
    state = state_of(settings)
    assert any(bool(value.any()) for name, value in state.weights.items() if ".up." in name)
    lm = load_for_training(settings).lm
    assert [len(module.down) for _, _, module in adapted(lm)] == [2, 1, 2, 1]
    base = load(tiny_folder, dtype="float32").lm.state_dict()
    held = lm.state_dict()
    assert torch.equal(
        held["transformer.layers.0.attention.in_proj.base.weight"],
        base["transformer.layers.0.attention.in_proj.weight"],
    )
    with pytest.raises(TrainingError, match=r"lora\.also names 'head'"):
        load_for_training(config(more=LORA + 'also = ["head"]\n'))


def test_frozen_weights_are_coarse_in_bfloat16(config) -> None:
    settings = config(train='precision = "bfloat16"', more=LORA)
    fit(settings, on_progress=quiet)
    lm = load_for_training(settings).lm
    kinds = {w.requires_grad: w.dtype for w in lm.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    assert all(value.dtype == torch.float32 for value in state_of(settings).weights.values())
    whole = config("whole", train='precision = "bfloat16"')
    fit(whole, on_progress=quiet)
    assert all(value.dtype == torch.float32 for value in state_of(whole).weights.values())


@pytest.mark.parametrize("heads", [0, 2])
def test_other_pause_heads(config, heads: int) -> None:
    from dataclasses import replace

    settings = replace(config(), pause_heads=heads)
    fit(settings, on_progress=quiet)
    names = [name for name in state_of(settings).weights if name.startswith("pause_heads")]
    assert len(names) == heads
    old = load(settings.model, dtype="float32").lm
    new = load_for_training(settings).lm
    for a, b in zip(new.pause_heads, old.pause_heads, strict=False):
        assert torch.equal(a.weight, b.weight)
    x = torch.randint(0, 16, (1, 5, 5))
    active = torch.ones(1, dtype=torch.bool)
    states = [lm.init_state(1, "cpu", torch.float32) for lm in (old, new)]
    assert torch.equal(old(x, states[0], active).logits, new(x, states[1], active).logits)


@pytest.mark.parametrize("more", ["", LORA])
def test_new_pause_heads_learn(config, tmp_path: Path, more: str) -> None:
    """With adapters on frozen weights as well; where they could not learn, they are refused."""
    from dataclasses import replace

    from kiku.checkpoint import save_native
    from tests import tiny

    vocabulary = tmp_path / "tokenizer.json"
    vocabulary.write_text(tiny.vocabulary().to_tokenizer_json())
    bare = tmp_path / "bare"
    model = tiny.model_config()
    save_native(
        bare, replace(model, lm=tiny.lm_config(0)), lm=tiny.lm(num_pause_heads=0).state_dict(),
        codec=tiny.codec().state_dict(), vocabulary=vocabulary,
    )  # fmt: skip
    settings = replace(config(more=more), model=str(bare), pause_heads=4)
    deaf = replace(settings, loss=replace(settings.loss, pauses=0.0))
    with pytest.raises(TrainingError, match=r"new ones would learn nothing, because loss\.pauses"):
        load_for_training(deaf)
    if not more:
        alone = replace(settings, codec=CodecSettings(alone=True))
        with pytest.raises(TrainingError, match=r"the model has 0; .* because codec\.alone"):
            load_for_training(alone)
    fit(settings, on_progress=quiet)
    heads = [v for n, v in state_of(settings).weights.items() if n.startswith("pause_heads")]
    assert len(heads) == 4
    assert all(bool(head.any()) for head in heads)


def test_the_learning_rate() -> None:
    train = TrainSettings(steps=1000, lr=1.0, warmup=100, final_lr=0.1)
    assert rate_at(0, train) == pytest.approx(0.01)
    assert rate_at(99, train) == pytest.approx(1.0)
    assert rate_at(550, train) == pytest.approx(0.55, abs=1e-3)
    assert rate_at(999, train) == pytest.approx(0.1, abs=1e-3)
    rates = [rate_at(step, train) for step in range(100, 1000)]
    assert rates == sorted(rates, reverse=True)


def test_tensorboard_where_it_is_installed(config, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int | None) -> None:
            assert folder.endswith("tensorboard")
            told.append(("from", float(purge_step or 0), 0))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

        def close(self) -> None:
            told.append(("closed", 0.0, 0))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # pyright: ignore
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    settings = config()
    fit(settings, on_progress=quiet)
    losses = [(step, value) for name, value, step in told if name == "loss"]
    assert losses == [(int(r["step"]), float(r["loss"])) for r in curve_of(settings)]
    assert told[0] == ("from", 0.0, 0)
    assert told[-1][0] == "closed"
    told.clear()
    settings = config("stopped")

    def stop(line: str) -> None:
        if line.startswith("step 8/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(settings, on_progress=stop)
    fit(settings, on_progress=quiet)
    assert [value for name, value, _ in told if name == "from"] == [0.0, 6.0]


def test_the_course_is_drawn(config, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(train="dev_every = 4")
    fit(settings, on_progress=quiet)
    losses = [float(row["loss"]) for row in curve_of(settings)]
    svg = (Path(settings.run) / "curve.svg").read_text()
    line = svg.split('points="')[1].split('"')[0].split()
    assert len(line) == len(losses) == 6
    heights = [float(point.split(",")[1]) for point in line]
    top = heights[losses.index(max(losses))]
    assert heights == pytest.approx([top + 110 * (1 - x / max(losses)) for x in losses], abs=0.1)
    monkeypatch.setattr("kiku.train.curve._MOST_POINTS", 2)
    again = config("thin")
    fit(again, on_progress=quiet)
    svg = (Path(again.run) / "curve.svg").read_text()
    assert len(svg.split('points="')[1].split('"')[0].split()) < 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('pack = "p"\n[train]\nstep = 3', "did you mean 'steps'"),
        ('model = "demo"', "pack is missing"),
        ('pack = ""', "pack is empty"),
        ('pack = "p"\nrun = ""', "run is empty"),
        ('pack = "p"\nmodel = ""', "model is empty"),
        ('pack = "p"\n[train]\nlr = -1', r"train\.lr must be from"),
        ('pack = "p"\n[train]\nbetas = [-0.5, 0.9]', r"train\.betas\[0\] must be from"),
        ('pack = "p"\n[train]\nprecision = "int8"', "one of float32, bfloat16"),
        ('pack = "p"\n[lora]\ntargets = ["w"]', r"lora\.targets must be some of q_proj"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_settings(tmp_path / "c.toml")


def test_folders_count_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "c.toml").write_text('pack = "p"\nmodel = "m"\n[lora]\nstart = "a"')
    found = read_settings(tmp_path / "c.toml")
    wanted = [str(tmp_path / name) for name in ("p", "m", "run", "a")]
    assert found.lora is not None
    assert [found.pack, found.model, found.run, found.lora.start] == wanted
    (tmp_path / "d.toml").write_text('pack = "p"')
    assert read_settings(tmp_path / "d.toml").model == "demo"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the mark at the beginning, as editors of Windows write it, is none of the text."""
    (tmp_path / "base").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = tmp_path / "lessons" / "c.toml"
    path.parent.mkdir()
    text = 'pack = "~/pack"\nrun = "~/run"\nmodel = "~/base"\n[lora]\nstart = "~/start"\n'
    path.write_text(text, encoding="utf-8-sig")
    found = read_settings(path)
    assert found.lora is not None
    assert (found.pack, found.run) == (str(tmp_path / "pack"), str(tmp_path / "run"))
    assert (found.model, found.lora.start) == (str(tmp_path / "base"), str(tmp_path / "start"))
    path.write_text('noise = "~/noises"\nrooms = "rooms"', encoding="utf-8-sig")
    changes = read_augmentation(path)
    assert (changes.noise, changes.rooms) == (
        str(tmp_path / "noises"), str(path.parent / "rooms"),
    )  # fmt: skip


def test_the_command(
    tmp_path: Path, pack: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(tmp_path / "c.toml", pack=pack, model=tiny_folder, run=tmp_path / "run")
    assert main(["train", "fit", str(path)]) == 0
    assert "step 12/12  loss" in capsys.readouterr().out
    assert main(["train", "fit", str(path)]) == 0
    assert "is already finished" in capsys.readouterr().out
    assert main(["train", "fit", str(tmp_path / "none.toml")]) == 1


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import kiku.train.extra as extra

    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"'\.\[train\]"):
        extra.need_torch("kiku train fit")
    write_corpus(tmp_path, 1)
    arguments = ["train", "pack", str(tmp_path / "manifest.jsonl"), "-o", str(tmp_path / "p")]
    assert main(arguments) == 1


@pytest.mark.heavy
def test_two_processes_are_one_with_twice_the_batches(config, tmp_path: Path) -> None:
    """torchrun with two of them, against one that accumulates two batches a step."""
    alone, together = config("alone", train="accumulate = 2"), config("together")
    fit(alone, on_progress=quiet)
    ran = torchrun("-m", "kiku", "train", "fit", str(tmp_path / "together.toml"))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("step 12/12") == 1  # one of them speaks
    one, two = state_of(alone), state_of(together)
    for name in one.weights:
        torch.testing.assert_close(one.weights[name], two.weights[name], atol=1e-4, rtol=1e-3)
    for a, b in zip(curve_of(alone), curve_of(together), strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), rel=1e-3)
    with pytest.raises(TrainingError, match="another processes"):
        fit(together, on_progress=quiet)
