"""The loop: a run that was killed ends as one that was not."""

import json

import pytest
import torch
from torch import nn

from recipes.demo.fit import Fit, Plan


def batch(step: int) -> torch.Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(step))


def loss(model: nn.Module, x: torch.Tensor, progress: float) -> dict[str, torch.Tensor]:
    out = model(x + 0.1 * torch.randn_like(x))  # draws from torch's own generator, as training does
    return {"loss": (out.squeeze(-1) - x.sum(-1)).square().mean() * (1 + progress)}


def plan(**changes: object) -> Plan:
    numbers = dict(
        name="tiny",
        max_steps=12,
        budget_s=1e6,
        peak_lr=1e-2,
        warmup_steps=3,
        log_every=4,
        workers=0,
    )
    return Plan(**{**numbers, **changes})  # pyright: ignore[reportArgumentType]


def fresh() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def test_resuming_is_exact(tmp_path) -> None:
    torch.manual_seed(7)
    whole = Fit(plan(), fresh(), tmp_path / "whole")
    torch.manual_seed(8)
    wanted = whole.run(batch, loss)

    first = Fit(plan(), fresh(), tmp_path / "killed")
    torch.manual_seed(8)
    for step in range(5):
        first.advance(batch(step), loss)
    first.save()
    torch.manual_seed(99)  # what another process would start with
    second = Fit(plan(), fresh(), tmp_path / "killed")
    assert second.step == 5
    given = second.run(batch, loss)
    for a, b in zip(wanted.parameters(), given.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_learns_and_logs(tmp_path) -> None:
    fit = Fit(plan(max_steps=200, log_every=50), fresh(), tmp_path)
    fit.run(batch, loss, check=lambda model: {"measured": 1.5})
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.3 * losses[0]
    assert rows[-1]["measured"] == 1.5
    assert {row["stage"] for row in rows} == {"tiny"}


def test_a_finished_run_is_not_run_again(tmp_path) -> None:
    Fit(plan(), fresh(), tmp_path).run(batch, loss)

    def never(step: int) -> torch.Tensor:
        pytest.fail("a batch was made")

    again = Fit(plan(), fresh(), tmp_path).run(never, loss)
    assert again is not None


def test_the_budget_ends_a_run(tmp_path) -> None:
    fit = Fit(plan(max_steps=10**6, budget_s=0.2), fresh(), tmp_path)
    fit.run(batch, loss)
    assert 0 < fit.step < 10**5


def test_frozen_weights_stay(tmp_path) -> None:
    model = fresh()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    fit = Fit(plan(), model, tmp_path)
    fit.run(batch, loss)
    assert torch.equal(fit.model[0].weight, before)


def test_some_parameters_learn_slower(tmp_path) -> None:
    model = fresh()
    before = [value.clone() for value in model.parameters()]
    fit = Fit(plan(weight_decay=0.0), model, tmp_path, rates={"0.": 0.1})
    fit.advance(batch(0), loss)
    moved = [
        float((now.detach() - then.detach()).abs().max())
        for now, then in zip(model.parameters(), before, strict=True)
    ]
    rate = 1e-2 / 3  # the warm-up's first step; Adam's first step is as long as the rate
    assert moved == pytest.approx([0.1 * rate, 0.1 * rate, rate, rate], rel=0.01)
