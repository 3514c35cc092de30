"""The training loop of every stage: schedule, averaged weights, checkpoints that resume exactly, a
log.

A batch depends only on the seed and the number of the step, so a run that was killed goes on as if
it had not been.
"""

import ctypes
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Loss = Callable[[nn.Module, Any, float], dict[str, Tensor]]
"""(model, batch, progress in 0..1) -> named losses; the one called "loss" is minimised."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of one stage.

    Attributes:
        max_steps: number of steps after which the run ends.
        budget_s: seconds of the training thread's own processor time after which the run ends, if
            this comes first. A machine that does other work, or sleeps, does not shorten training.
        peak_lr: the learning rate after `warmup_steps`; it then falls as a cosine to a hundredth.
        average: decay of the averaged weights, which the next stage gets.
        save_every_s: seconds between checkpoints.
    """

    name: str
    max_steps: int
    budget_s: float
    peak_lr: float
    warmup_steps: int = 100
    weight_decay: float = 0.01
    average: float = 0.999
    save_every_s: float = 120.0
    log_every: int = 20
    workers: int = 1


def keep_memory() -> None:
    """Make glibc keep freed memory.

    Returning it after every step costs 80 % of the speed of small convolutions.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library: slower, not wrong
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(top_pad, 2**28)


class _Steps(Dataset[Any]):
    """The batches of steps `first`, `first + 1`, ..."""

    def __init__(self, make: Callable[[int], Any], first: int, count: int) -> None:
        self.make, self.first, self.count = make, first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.make(self.first + index)


def _worker_setup(_worker: int) -> None:
    torch.set_num_threads(1)


def _same(batch: Any) -> Any:
    return batch[0]


def batches(make: Callable[[int], Any], first: int, count: int, workers: int) -> Iterator[Any]:
    """Batches made ahead of time by other processes (by this one if `workers` is 0)."""
    # The loader has its own generator, or its seed would be drawn from the one that training uses.
    loader = DataLoader(
        _Steps(make, first, count),
        batch_size=1,
        shuffle=False,
        num_workers=workers,
        collate_fn=_same,
        generator=torch.Generator().manual_seed(first),
        prefetch_factor=4 if workers else None,
        worker_init_fn=_worker_setup if workers else None,
    )
    return iter(loader)


def _groups(
    model: nn.Module, weight_decay: float, rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Parameters by their share of the learning rate; those with one dimension do not decay."""
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            share = next((one for begin, one in rates.items() if name.startswith(begin)), 1.0)
            found.setdefault((share, value.dim() > 1), []).append(value)
    return [
        {"params": some, "share": share, "weight_decay": weight_decay if wide else 0.0}
        for (share, wide), some in sorted(found.items(), key=lambda one: one[0], reverse=True)
    ]


class Fit:
    """A model that is being trained."""

    def __init__(
        self, plan: Plan, model: nn.Module, folder: Path, rates: Mapping[str, float] | None = None
    ) -> None:
        """Resume from `folder/{plan.name}.pt` if that exists.

        Args:
            plan: see `Plan`.
            model: is changed in place.
            folder: of the checkpoint and the log.
            rates: for parameters whose names begin like this, the share of the learning rate.
        """
        self.plan, self.model, self.folder = plan, model, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.averaged = deepcopy(model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            _groups(model, plan.weight_decay, rates or {}),
            lr=plan.peak_lr,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.step, self.trained_s = 0, 0.0
        if self.path.exists():
            self._restore()

    @staticmethod
    def begun(plan: Plan, folder: Path) -> bool:
        """Whether there is a checkpoint to resume from."""
        return (folder / f"{plan.name}.pt").exists()

    @property
    def path(self) -> Path:
        """Path of the checkpoint."""
        return self.folder / f"{self.plan.name}.pt"

    @property
    def progress(self) -> float:
        """0 at the beginning, 1 at the end."""
        return min(1.0, max(self.step / self.plan.max_steps, self.trained_s / self.plan.budget_s))

    def run(
        self,
        make: Callable[[int], Any],
        loss: Loss,
        check: Callable[[nn.Module], dict[str, float]] | None = None,
        check_every_s: float = 300.0,
    ) -> nn.Module:
        """Train to the end of the plan; gives the averaged model.

        Args:
            make: gives the batch of a step.
            loss: see `Loss`.
            check: measures the averaged model now and then; its values go to the log.
            check_every_s: seconds between two checks.
        """
        if self.progress >= 1.0:
            return self.averaged
        source = batches(make, self.step, self.plan.max_steps - self.step, self.plan.workers)
        saved = checked = time.monotonic()
        sums: dict[str, float] = {}
        while self.progress < 1.0:
            batch = next(source)
            begun = time.thread_time()
            values = self.advance(batch, loss)
            self.trained_s += time.thread_time() - begun
            now = time.monotonic()
            for key, value in values.items():
                sums[key] = sums.get(key, 0.0) + value / self.plan.log_every
            if self.step % self.plan.log_every == 0:
                self.log(sums)
                sums = {}
            if check is not None and now - checked > check_every_s:
                self.log(check(self.averaged))
                checked = time.monotonic()
            if now - saved > self.plan.save_every_s:
                self.save()
                saved = time.monotonic()
        self.save()
        if check is not None:
            self.log(check(self.averaged))
        return self.averaged

    def advance(self, batch: Any, loss: Loss) -> dict[str, float]:
        """Do one step; gives the losses as numbers."""
        rate = self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.model.train()
        values = loss(self.model, batch, self.progress)
        self.optimizer.zero_grad(set_to_none=True)
        values["loss"].backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self._average()
        return {key: float(value.detach()) for key, value in values.items()}

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.plan.warmup_steps)
        return (
            self.plan.peak_lr * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.progress)))
        )

    def _average(self) -> None:
        # Early on the average follows closely: with a decay of 0.999 it would keep the random start
        # for a thousand steps.
        decay = min(self.plan.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(
                self.averaged.parameters(), self.model.parameters(), strict=True
            ):
                mean.lerp_(value, 1 - decay)
            for mean, value in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
                mean.copy_(value)

    def save(self) -> None:
        """Write the checkpoint; a kill while writing leaves the one before."""
        state = {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "trained_s": self.trained_s,
            "torch_rng": torch.get_rng_state(),
        }
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.path)

    def _restore(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.trained_s = state["step"], state["trained_s"]
        torch.set_rng_state(state["torch_rng"])

    def log(self, values: dict[str, float]) -> None:
        """Write one line of JSON: the stage, the step, the seconds trained, the values."""
        line = {
            "stage": self.plan.name,
            "step": self.step,
            "trained_s": round(self.trained_s, 1),
            "clock": time.strftime("%H:%M:%S"),
            **{k: round(v, 5) for k, v in values.items()},
        }
        with (self.folder / "log.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")
