"""What was said before is kept: the divergence, the decoder as it was, whole runs."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kiku.checkpoint import load
from kiku.errors import ConfigError, TrainingError
from kiku.lm import LM
from kiku.nn.state import all_active
from kiku.train.batches import TrainingBatch, collate
from kiku.train.examples import PackOptions
from kiku.train.fit import fit
from kiku.train.folders import read_rows
from kiku.train.lora import adapt
from kiku.train.model import enable_checkpointing, load_for_training, trained_weights
from kiku.train.pack import pack
from kiku.train.reference import ReferenceDecoder
from kiku.train.settings import FitSettings, LoRASettings, LossSettings, read_settings
from kiku.train.shards import PackReader
from kiku.train.training_module import TrainingModule, columns_of
from tests import tiny
from tests.train.packs import write_config, write_pack
from tests.train.recordings import write_corpus
from tests.train.runs import curve_of, quiet, state_of
from tests.train.test_training_module import batch as two_examples
from tests.train.torchrun import torchrun

SIZE = len(tiny.PIECES)
LORA = "[lora]\nrank = 4\nalpha = 8\ndropout = 0.2\nnew_pieces = 3\n"
KEEP = "[loss]\nhidden_codes = 0.1\nwrong_text = 0.1\nkeep = 2.0\n"


def marked_batch(*marks: bool) -> TrainingBatch:
    return replace(two_examples(), keep=torch.tensor(marks))


def taught(new: range = range(0), dropout: float = 0.0) -> LM:
    """A tiny decoder with adapters."""
    lm = tiny.lm()
    adapt(lm, LoRASettings(rank=4, dropout=dropout), new)
    return lm.train()


def disturb(lm: LM, by: float = 0.2) -> None:
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in trained_weights(lm).values():
            weight.add_(by * torch.randn_like(weight))


def said(lm: LM, columns: torch.Tensor) -> torch.Tensor:
    state = lm.init_state(len(columns), "cpu", torch.float32, remember=False)
    return lm(columns, state, all_active(len(columns))).logits


def columns(seed: int = 0) -> torch.Tensor:
    one = two_examples(seed=seed)
    return columns_of(one.text, one.codes, tiny.lm_config())


@pytest.mark.parametrize("new", [range(0), range(SIZE - 3, SIZE), range(4, 7)])
def test_the_divergence_is_the_plain_sum(new: range) -> None:
    torch.manual_seed(0)
    before, now = 3 * torch.randn(2, 5, SIZE), 3 * torch.randn(2, 5, SIZE)
    found = ReferenceDecoder(tiny.lm(), new).divergence(before, now)
    old = [i for i in range(SIZE) if i not in new]
    for row in range(2):
        for t in range(5):
            p = [math.exp(float(before[row, t, i])) for i in old]
            q = [math.exp(float(x)) for x in now[row, t]]
            wanted = sum(
                a / sum(p) * math.log(a / sum(p) / (q[i] / sum(q)))
                for a, i in zip(p, old, strict=True)
            )
            assert float(found[row, t]) == pytest.approx(wanted, rel=1e-4)


def test_chance_that_is_given_to_a_new_piece_costs() -> None:
    logits = torch.randn(SIZE)
    more = logits.clone()
    more[-1] = 9.0
    share = float(more.softmax(-1)[-1])
    reference = ReferenceDecoder(tiny.lm(), range(SIZE - 1, SIZE))
    assert float(reference.divergence(logits, more)) == pytest.approx(
        -math.log(1 - share), rel=1e-3
    )
    assert float(reference.divergence(more, more)) == pytest.approx(-math.log(1 - share), rel=1e-3)
    # What the decoder gave to a piece of which it knew nothing is not to be kept.
    assert float(ReferenceDecoder(tiny.lm(), range(0)).divergence(more, more)) == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_with_its_old_weights_it_says_exactly_what_it_said(checkpointing: bool) -> None:
    lm = taught(range(SIZE - 3, SIZE), dropout=0.5)
    reference = ReferenceDecoder(lm, range(SIZE - 3, SIZE))
    if checkpointing:
        enable_checkpointing(lm)
    disturb(lm)
    now = {name: weight.clone() for name, weight in trained_weights(lm).items()}
    drawn = torch.get_rng_state()
    found = reference.logits(columns(), torch.float32)
    assert torch.equal(torch.get_rng_state(), drawn)
    plain = said(tiny.lm(), columns())
    assert torch.equal(found[..., :-3], plain[..., :-3])
    torch.testing.assert_close(found, plain)  # rows of new pieces are a product of their own
    assert not torch.equal(found, said(lm.eval(), columns()))
    assert not found.requires_grad
    lm.train()
    reference.logits(columns(), torch.float32)
    assert all(module.training for module in lm.modules())
    assert all(torch.equal(now[name], w) for name, w in trained_weights(lm).items())
    # No second copy of what is frozen.
    assert reference.weights.keys() == now.keys()


def test_a_decoder_without_adapters_is_held_twice() -> None:
    lm = tiny.lm().requires_grad_(True)
    reference = ReferenceDecoder(lm, range(0))
    disturb(lm)
    assert torch.equal(reference.logits(columns(), torch.float32), said(tiny.lm(), columns()))


def test_in_bfloat16_as_well() -> None:
    lm = taught().bfloat16()
    for weight in trained_weights(lm).values():
        weight.data = weight.data.float()
    reference = ReferenceDecoder(lm, range(0))
    disturb(lm)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = reference.logits(columns(), torch.bfloat16)
        plain = tiny.lm().bfloat16()
        state = plain.init_state(2, "cpu", torch.bfloat16, remember=False)
        wanted = plain(columns(), state, all_active(2)).logits
    assert torch.equal(found, wanted.float())


def training_module(lm: LM, new: range = range(0), **settings: float) -> TrainingModule:
    reference = ReferenceDecoder(lm, new) if settings.get("keep") else None
    return TrainingModule(
        lm, LossSettings(pauses=0.3, **settings), 3, torch.float32, reference=reference
    )


def test_a_marked_example_is_kept_and_teaches_no_text() -> None:
    one, lm = marked_batch(True, False), taught()
    whole = training_module(lm, keep=2.5)
    disturb(lm)
    with torch.no_grad():
        values = whole(one)
        logits, before = said(lm, columns()), said(tiny.lm(), columns())
    known = one.text != -1
    p, q = before.log_softmax(-1), logits.log_softmax(-1)
    moved = float((p.exp() * (p - q)).sum(-1)[0][known[0]].sum())
    weights = torch.where(one.text == 3, 0.5, 1.0)[1][known[1]]
    lost = -q[1][known[1]].gather(-1, one.text[1][known[1]][:, None])[:, 0]
    text = float((weights * lost).sum())
    assert moved > 0.1
    assert float(values["keep"]) == pytest.approx(moved, rel=1e-4)
    assert int(values["kept"]) == int(known[0].sum()) == 10
    assert float(values["text"]) == pytest.approx(text / float(weights.sum()), rel=1e-4)
    frames = (text + 2.5 * moved) / (float(weights.sum()) + 10)
    pauses = float(training_module(lm)(replace(one, keep=None))["pauses"].detach())
    assert float(values["pauses"]) == pauses
    assert float(values["loss"]) == pytest.approx(frames + 0.3 * pauses, rel=1e-4)


@torch.no_grad()
def test_without_the_weight_marks_mean_nothing() -> None:
    one, marked = two_examples(), marked_batch(True, True)
    plain = {name: float(value) for name, value in training_module(taught())(one).items()}
    assert {
        name: float(value) for name, value in training_module(taught())(marked).items()
    } == plain
    assert float(training_module(taught(), keep=3.0)(one)["loss"]) == plain["loss"]
    kept = training_module(taught(), keep=3.0)(marked)
    assert float(kept["text"]) == float(kept["keep"]) == 0.0


@torch.no_grad()
def test_both_read_the_same() -> None:
    """Codes that are hidden, text that is wrong: nothing has moved before the first step."""
    whole = training_module(taught(dropout=0.0), hidden_codes=0.5, wrong_text=0.5, keep=1.0)
    assert float(whole(marked_batch(True, True))["keep"]) == 0.0


def moved_by_a_lesson(keep: float) -> tuple[float, float]:
    """How far what is said of a kept example goes while another one is learned, and how well that
    is learned in the end."""
    lm = tiny.lm().requires_grad_(True)
    whole = training_module(lm, keep=keep)
    one = replace(marked_batch(True, False), pauses=torch.full((2, 14, 4), -100))
    old = said(tiny.lm(), columns())[0]
    learned = one if keep else TrainingBatch(one.codes[1:], one.text[1:], one.pauses[1:], (1,))
    optimizer = torch.optim.AdamW(lm.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        values = whole(learned)
        values["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        gone = ReferenceDecoder(lm, range(0)).divergence(old, said(lm, columns())[0])[4:]
        return float(gone.mean()), float(values["text"])


def test_an_unrelated_lesson_moves_what_is_kept_less() -> None:
    alone, learned = moved_by_a_lesson(0.0)
    kept, also_learned = moved_by_a_lesson(20.0)
    assert kept < 0.2 * alone
    assert max(learned, also_learned) < 0.3


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack"), tiny_folder, 8, 3, marked=2)


@pytest.fixture
def config(tmp_path: Path, packed: Path, tiny_folder: Path):
    def write(run: str, more: str = KEEP + LORA, train: str = "") -> FitSettings:
        path = tmp_path / f"{run}.toml"
        write_config(
            path, pack=packed, model=tiny_folder, run=tmp_path / run, train=train, more=more
        )
        return read_settings(path)

    return write


@pytest.mark.parametrize("more", [KEEP + LORA, KEEP])
def test_a_stop_changes_nothing(config, more: str) -> None:
    train = "dev_every = 4\naccumulate = 2"
    stopped, whole = config("stopped", more, train), config("whole", more, train)

    def stop(line: str) -> None:
        if line.startswith("step 8/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(stopped, on_progress=stop)
    assert state_of(stopped).step == 5
    assert fit(stopped, on_progress=quiet).resumed_at == 5
    lines: list[str] = []
    fit(whole, on_progress=lines.append)
    one, two = state_of(stopped), state_of(whole)
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in two.weights)
    assert all(torch.equal(one.average[name], two.average[name]) for name in two.average)
    curve = curve_of(whole)
    assert curve_of(stopped) == curve
    assert all(float(row["keep"]) > 0 for row in curve)
    assert [float(row["dev_keep"]) > 0 for row in curve if row["dev_keep"]] == [True] * 3
    assert f"change from before {float(curve[0]['keep']):.4f}" in lines[1]


def test_with_checkpointing_and_in_bfloat16(config) -> None:
    plain = config("plain", KEEP)
    twice = config("twice", KEEP, "checkpointing = true")
    fit(plain, on_progress=quiet)
    fit(twice, on_progress=quiet)
    one, two = state_of(plain), state_of(twice)
    for name in one.weights:
        torch.testing.assert_close(one.weights[name], two.weights[name])
    coarse = config("coarse", train='precision = "bfloat16"\ncheckpointing = true')
    fit(coarse, on_progress=quiet)
    assert math.isfinite(float(curve_of(coarse)[-1]["loss"]))
    assert 0 < float(curve_of(coarse)[0]["keep"]) < 1


def test_a_run_keeps_what_is_marked(config) -> None:
    """The same pack, learned with and without the weight: what is marked stays nearer."""
    gone: list[float] = []
    for name, keep in (("free", 0.0), ("held", 20.0)):
        settings = config(name, f"[loss]\nkeep = {keep}\n", "ema = 0.0")
        settings = replace(settings, train=replace(settings.train, steps=30, lr=3e-3))
        fit(settings, on_progress=quiet)
        lm = load_for_training(settings).lm
        reference = ReferenceDecoder(lm, range(0))
        reader = PackReader(Path(settings.pack))
        marked = collate(reader, [i for i in range(len(reader)) if reader.keep[i]])
        read = columns_of(marked.text, marked.codes, lm.config)
        with torch.no_grad():
            for key, weight in trained_weights(lm).items():
                weight.copy_(state_of(settings).weights[key])
            moved = reference.divergence(reference.logits(read, torch.float32), said(lm, read))
        gone.append(float(moved[marked.text != -1].mean()))
    assert gone[1] < 0.3 * gone[0]


def test_only_what_its_vocabulary_calls_new_is_new(config, tiny_folder: Path) -> None:
    assert load_for_training(config("a")).new == range(SIZE - 3, SIZE)
    assert load_for_training(config("b", KEEP)).new == range(0)
    assert load_for_training(config("c", KEEP + LORA.replace("= 3", "= 0"))).new == range(0)


def test_a_run_that_was_begun_before_there_was_the_key_goes_on(config) -> None:
    from kiku.train.state import save_state

    settings = config("old", "", "ema = 0.9")
    short = replace(settings, train=replace(settings.train, save_every=6))
    fit(short, on_progress=quiet)
    state = state_of(settings)
    del state.about["curve"]["loss.keep"], state.about["start"]
    save_state(Path(settings.run), state)
    assert fit(settings, on_progress=quiet).resumed_at == 12
    with pytest.raises(TrainingError, match=r"another loss\.keep \(it was 0\.0, and is now 2\.0\)"):
        fit(config("old", "[loss]\nkeep = 2.0\n", "ema = 0.9"), on_progress=quiet)


def test_another_adapter_to_start_from_is_refused(config, tmp_path: Path) -> None:
    from kiku.train.export import export

    for name, more in (("one", ""), ("two", "seed = 1")):
        first = config(name, LORA.replace("new_pieces = 3\n", "new_pieces = 0\n"), more)
        fit(first, on_progress=quiet)
        export(Path(first.run), tmp_path / f"{name}-adapter", layout="adapter")
    start = LORA.replace("new_pieces = 3", f'new_pieces = 0\nstart = "{tmp_path}/one-adapter"')
    settings = config("on", KEEP + start)
    fit(settings, on_progress=quiet)
    assert fit(settings, on_progress=quiet).resumed_at == 12
    for file in (tmp_path / "two-adapter").iterdir():
        (tmp_path / "one-adapter" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(TrainingError, match=r"another lora\.start \(whose content"):
        fit(settings, on_progress=quiet)


def test_nothing_to_keep(config, tmp_path: Path, tiny_folder: Path) -> None:
    bare = write_pack(tmp_path / "bare", tiny_folder, 3, 0)
    settings = replace(config("run"), pack=str(bare))
    with pytest.raises(TrainingError, match=r"loss\.keep is 2, but no example of .* is marked"):
        fit(settings, on_progress=quiet)
    rows = read_rows(write_corpus(tmp_path / "late", 3, marked=1))
    pack(rows, load(tiny_folder), tmp_path / "late" / "pack", PackOptions(delay_s=0.9))
    settings = replace(settings, pack=str(tmp_path / "late" / "pack"))
    with pytest.raises(TrainingError, match=r"0\.5 s after the sound, .* asks for text 0\.9 s"):
        fit(settings, on_progress=quiet)


@pytest.mark.parametrize("keep", ["-0.1", "1001"])
def test_the_weight_has_bounds(tmp_path: Path, keep: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'pack = "p"\n[loss]\nkeep = {keep}\n')
    with pytest.raises(ConfigError, match=r"loss\.keep must be from 0 to 1000"):
        read_settings(path)


@pytest.mark.heavy
def test_two_processes_keep_as_one_does(config, tmp_path: Path) -> None:
    alone, together = config("alone", train="accumulate = 2"), config("together")
    fit(alone, on_progress=quiet)
    ran = torchrun("-m", "kiku", "train", "fit", str(tmp_path / "together.toml"))
    assert ran.returncode == 0, ran.stderr
    one, two = state_of(alone), state_of(together)
    for name in one.weights:
        torch.testing.assert_close(one.weights[name], two.weights[name], atol=1e-4, rtol=1e-3)
    for a, b in zip(curve_of(alone), curve_of(together), strict=True):
        assert float(a["keep"]) == pytest.approx(float(b["keep"]), rel=1e-3)
