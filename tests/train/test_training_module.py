"""What the decoder reads and is asked, against listening and against sums by hand."""

import numpy as np
import pytest
import torch

from kiku.nn.state import all_active
from kiku.train.batches import TrainingBatch
from kiku.train.settings import LossSettings
from kiku.train.training_module import TrainingModule, columns_of
from tests import tiny


def batch(length: int = 14, seed: int = 0) -> TrainingBatch:
    rng = np.random.default_rng(seed)
    codes = torch.from_numpy(rng.integers(0, 16, (2, 4, length)))
    text = torch.full((2, length), 3)
    text[:, 6:8] = torch.tensor([0, 5])
    text[0, :4] = -1
    codes[1, :, 10:] = -1
    text[1, 10:] = -1
    pauses = torch.from_numpy(rng.integers(0, 6, (2, length, 4)))
    pauses[1, 10:] = -100
    return TrainingBatch(codes, text, pauses, (0, 1))


def training_module(**settings: float) -> TrainingModule:
    return TrainingModule(tiny.lm(), LossSettings(**settings), 3, torch.float32)


def test_positions_are_those_of_listening() -> None:
    """Frame by frame with a memory, the decoder says what it says of the whole at once."""
    one, lm = batch(), tiny.lm()
    columns = columns_of(one.text, one.codes, lm.config)
    state, active = lm.init_state(2, "cpu", torch.float32), all_active(2)
    column = lm.initial_column(2, "cpu")
    for t in range(14):
        assert torch.equal(columns[:, t : t + 1], column)
        out = lm(column, state, active)
        column = torch.cat([one.text[:, t : t + 1], one.codes[:, :, t]], dim=1)[:, None]
    whole = lm(columns, lm.init_state(2, "cpu", torch.float32, remember=False), active)
    torch.testing.assert_close(whole.logits[0, -1], out.logits[0, 0], atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_weighted_mean_over_what_is_known() -> None:
    one, whole = batch(), training_module(pad_weight=0.5, pauses=0.3)
    values = whole(one)
    lm = whole.lm
    out = lm(
        columns_of(one.text, one.codes, lm.config),
        lm.init_state(2, "cpu", torch.float32, remember=False), all_active(2),
    )  # fmt: skip
    logprobs = out.logits.log_softmax(-1)
    total, weights, right = 0.0, 0.0, 0
    for row in range(2):
        for t, token in enumerate(one.text[row].tolist()):
            if token >= 0:
                weight = 0.5 if token == 3 else 1.0
                total -= weight * float(logprobs[row, t, token])
                weights += weight
                right += token != 3 and int(out.logits[row, t].argmax()) == token
    assert float(values["text"]) == pytest.approx(total / weights, rel=1e-5)
    known = one.pauses != -100
    picked = lm.pause_logits(out.hidden).log_softmax(-1)
    picked = picked.gather(-1, one.pauses.clamp(min=0)[..., None])[..., 0][known]
    assert float(values["pauses"]) == pytest.approx(-float(picked.mean()), rel=1e-5)
    assert float(values["loss"]) == pytest.approx(
        float(values["text"]) + 0.3 * float(values["pauses"]), rel=1e-6
    )
    assert (int(values["spoken"]), int(values["right"])) == (4, right)


def test_padding_changes_nothing() -> None:
    one = batch()
    longer = TrainingBatch(
        torch.nn.functional.pad(one.codes, (0, 5), value=-1),
        torch.nn.functional.pad(one.text, (0, 5), value=-1),
        torch.nn.functional.pad(one.pauses, (0, 0, 0, 5), value=-100),
        one.numbers,
    )
    short, long = training_module()(one), training_module()(longer)
    for key in short:
        torch.testing.assert_close(short[key], long[key])
    assert one.num_frames == longer.num_frames == 24


def test_a_batch_that_asks_nothing_is_worth_nothing() -> None:
    one = batch()
    empty = TrainingBatch(
        one.codes, torch.full_like(one.text, -1), torch.full_like(one.pauses, -100), ()
    )
    values = training_module()(empty)
    assert float(values["loss"]) == 0.0


def test_what_is_hidden_and_spoiled() -> None:
    one, whole = batch(400), training_module(hidden_codes=0.3, wrong_text=0.5)
    torch.manual_seed(0)
    hidden = whole._hidden(one.codes)
    share = float((hidden == -1)[0].float().mean())
    assert 0.3 < share < 0.5  # 1 - 0.7 * 0.85
    assert torch.equal(hidden[hidden != -1], one.codes[hidden != -1])
    corrupted = whole._corrupted(one.text)
    assert torch.equal(corrupted == -1, one.text == -1)
    pads = (one.text == 3) & (corrupted != 3)
    assert 0.02 < float(pads[0].float().mean()) < 0.1  # half of a fifth of a half
    assert torch.equal(training_module()._hidden(one.codes), one.codes)
    torch.manual_seed(0)
    a = whole(one, plain=True)["loss"]
    assert float(a) == float(training_module()(one)["loss"])
    assert float(whole(one)["loss"]) != float(a)
