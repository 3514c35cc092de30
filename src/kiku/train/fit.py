# pyright: basic
# What torch gives is only partly typed.
"""The training loop, with checkpoints that resume exactly.

A step depends only on the seed and its number, so a run that was killed goes on as if it had not
been: on a CPU, bit by bit.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kiku.checkpoint.identity import digest_of, sha256_of
from kiku.errors import TrainingError
from kiku.serial import to_plain
from kiku.train.atomic_files import locked_folder
from kiku.train.batches import Batches, TrainingBatch
from kiku.train.curve import Curve
from kiku.train.device import choose_device
from kiku.train.model import (
    CODEC,
    DTYPES,
    TrainableModel,
    enable_checkpointing,
    load_for_training,
    refuse_other_pack,
    refuse_pack_without_sound,
    refuse_to_keep,
)
from kiku.train.peft_files import FILE as ADAPTER
from kiku.train.processes import Processes, started
from kiku.train.reference import ReferenceDecoder
from kiku.train.settings import FitSettings, TrainSettings, curve_settings, first_change
from kiku.train.sharding import fill, gathered, shard, with_values
from kiku.train.shards import PackReader
from kiku.train.state import RunState, moments_of, read_state, restore_moments, save_state
from kiku.train.trainable_codec import TrainableCodec
from kiku.train.training_module import TrainingModule

_SEEDS = 2**40
"""Seeds of torch's generator that belong to one seed of a run, one for each batch."""
_MOST_SEEDS = 2**63
"""Number of seeds that torch accepts; from a run's seed of 2^23 on they repeat."""
_SAME = (
    ("model", "model"), ("pack", "pack"), ("processes", "processes"), ("start", "lora.start"),
)  # fmt: skip
"""Values that must be unchanged to resume a run: their names in the run, and in the error."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """The result of a run."""

    folder: Path
    step: int
    resumed_at: int
    weights: int
    """How many numbers were trained."""


def fit(settings: FitSettings, *, on_progress: Callable[[str], None] = print) -> Fitted:
    """Train until the last step of the settings; a run that was begun is resumed.

    Args:
        settings: settings of the run.
        on_progress: is called with lines of progress.

    Raises:
        TrainingError: the pack or the run does not fit the settings, the loss is not finite, or
            nothing can be written; what was trained is kept.
    """
    device = choose_device(settings.device)
    with started(device) as processes:
        device = processes.device(device)
        model = load_for_training(settings, in_parts=processes.in_parts(settings.train))
        reader = PackReader(Path(settings.pack))
        refuse_other_pack(reader.index, model, settings.pack)
        refuse_pack_without_sound(reader, settings)
        refuse_to_keep(reader, model, settings)
        lock = locked_folder(Path(settings.run)) if processes.is_first else nullcontext()
        with lock:
            return Fit(settings, model, reader, processes, device, on_progress).run()


def rate_at(step: int, settings: TrainSettings) -> float:
    """The learning rate at a step: a linear rise, then a cosine fall."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    along = max(0, step - settings.warmup) / max(1, settings.steps - settings.warmup)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, along)))
    return settings.lr * warm * (settings.final_lr + (1 - settings.final_lr) * fall)


class Fit:
    """One training run."""

    def __init__(
        self,
        settings: FitSettings,
        model: TrainableModel,
        reader: PackReader,
        processes: Processes,
        device: str,
        on_progress: Callable[[str], None],
    ) -> None:
        """Prepare the run, and resume it from the checkpoint in its folder if there is one."""
        self.settings, self.processes, self.device = settings, processes, device
        self.folder = Path(settings.run)
        self.on_progress = on_progress if processes.is_first else lambda line: None
        if settings.train.checkpointing:
            enable_checkpointing(model.lm)
        self.sharded = processes.in_parts(settings.train)
        self.training_module = self._training_module(model)
        self.module = processes.wrapped(self.training_module)
        self.weights = model.weights
        self.average = {name: w.detach().clone() for name, w in self.weights.items()}
        self.optimizer = _optimizer(self.weights, settings)
        trains_codec = settings.codec is not None
        self.batches = Batches(
            reader, settings.train.batch, settings.train.seed, sound=trains_codec
        )
        self.dev = self._dev_batches()
        self.about = self._about(model, reader)
        self.step, self.sums = 0, {}
        self._resume()
        self.resumed_at = self.step

    def _training_module(self, model: TrainableModel) -> TrainingModule:
        """The decoder and its losses on the device, whole or in parts."""
        train = self.settings.train
        lm = model.lm.train()
        lm = lm if self.sharded else lm.to(self.device)
        keeps = bool(self.settings.loss.keep)
        reference = ReferenceDecoder(lm, model.new, own_copy=self.sharded) if keeps else None
        module = TrainingModule(
            lm, self.settings.loss, model.config.pad_id, DTYPES[train.precision],
            reference=reference, codec=self._trainable_codec(model),
        )  # fmt: skip
        if self.sharded:
            # Moved part by part: no device ever holds the whole decoder.
            shard(module, lm, self.device, self.processes.count)
            if reference is not None:
                shard(reference.lm, reference.lm, self.device, self.processes.count)
        return module.to(self.device)

    def _trainable_codec(self, model: TrainableModel) -> TrainableCodec | None:
        how = self.settings.codec
        if how is None:
            return None
        return TrainableCodec(
            model.loaded.codec, model.config.lm.num_codebooks, how.temperature,
            checkpointing=self.settings.train.checkpointing,
        )  # fmt: skip

    def run(self) -> Fitted:
        """Do all steps that are left."""
        train = self.settings.train
        count = sum(weight.numel() for weight in self.weights.values())
        if self.resumed_at:
            self.on_progress(f"continuing from step {self.step:,}")
        self.on_progress(f"{count:,} weights are trained on {len(self.batches.reader):,} examples")
        curve = self._curve()
        since = time.monotonic()
        while self.step < train.steps:
            self._advance()
            last = self.step == train.steps
            if self.step % train.log_every == 0 or last:
                since = self._log(curve, since)
            if self.step % train.save_every == 0 or last:
                self.save()
        if curve is not None:
            curve.close()
        return Fitted(self.folder, self.step, self.resumed_at, count)

    def _curve(self) -> Curve | None:
        steps = self.settings.train.steps
        if not self.processes.is_first or self.step == steps:
            return None
        return Curve(self.folder, step=self.step, steps=steps, on_progress=self.on_progress)

    def _advance(self) -> None:
        """One step."""
        train, each = self.settings.train, self.settings.train.accumulate
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, replace(train, lr=group["highest"]))
        self.optimizer.zero_grad(set_to_none=True)
        found: dict[str, Tensor] = {}
        seen: list[TrainingBatch] = []
        for part in range(each):
            number = (self.step * each + part) * self.processes.count + self.processes.rank
            batch = self.batches[number].to(self.device)
            seen.append(batch)
            # Random numbers in a step (hidden codes, dropout) depend on this batch alone.
            torch.manual_seed((train.seed * _SEEDS + number) % _MOST_SEEDS)
            with self.processes.unsynchronised(self.module, when=part + 1 < each):
                values = self.module(batch)
                (values["loss"] / each).backward()
            values["frames"] = torch.tensor(float(batch.num_frames), device=self.device)
            for key, value in values.items():
                found[key] = found.get(key, 0) + value.detach()
        # Checked before anything is changed: a step that is not finite is not taken.
        norm = gathered(nn.utils.clip_grad_norm_(self.weights.values(), train.clip or math.inf))
        totals = self.processes.summed(found)
        if not (math.isfinite(totals["loss"]) and bool(torch.isfinite(norm))):
            self._stop(totals["loss"], float(norm), seen)
        self.optimizer.step()
        self.step += 1
        self._average()
        parts = each * self.processes.count
        for key in ("loss", "text", "pauses"):
            totals[key] /= parts
        for key, value in {**totals, "grad_norm": float(norm), "steps": 1.0}.items():
            self.sums[key] = self.sums.get(key, 0.0) + value

    def _stop(self, loss: float, norm: float, seen: list[TrainingBatch]) -> None:
        self.save()
        numbers = [number for batch in seen for number in batch.numbers]
        reader = self.batches.reader
        paths = ", ".join(str(reader[number].about["path"]) for number in numbers[:4])
        raise TrainingError(
            f"step {self.step + 1} was not applied: its loss is {loss:g}, its gradient's norm "
            f"{norm:g} (examples {numbers[:8]}, from {paths}); the weights before it are in "
            f"{self.folder}. Look at these examples, or start another run with a lower train.lr"
        )

    @torch.no_grad()
    def _average(self) -> None:
        # Early on the mean follows closely, or it would keep the first weights for 1,000 steps.
        decay = min(self.settings.train.ema, (1 + self.step) / (10 + self.step))
        if not self.settings.train.ema:
            decay = 0.0
        for name, weight in self.weights.items():
            self.average[name].lerp_(weight, 1 - decay)

    def _log(self, curve: Curve | None, since: float) -> float:
        """Write a line of the curve; gives the time at which it was written."""
        train, sums = self.settings.train, self.sums
        now = time.monotonic()
        steps = sums["steps"]
        values: dict[str, float] = {
            "step": self.step,
            "epoch": round(
                self.step * train.accumulate * self.processes.count / self.batches.per_epoch, 4
            ),
            "lr": rate_at(self.step - 1, train),
            **{key: sums[key] / steps for key in ("loss", "text", "pauses", "grad_norm")},
            "token_accuracy": sums["right"] / max(1.0, sums["spoken"]),
        }
        if self.settings.loss.keep:
            values["keep"] = sums["keep"] / max(1.0, sums["kept"])
        every = train.dev_every
        if self.dev is not None and (self.step % every == 0 or self.step == train.steps):
            values |= self._evaluate(self.dev)
        if curve is not None:
            curve.add(values, frames=int(sums["frames"]), seconds=now - since)
        self.sums = {}
        return time.monotonic()

    @torch.no_grad()
    def _evaluate(self, batches: Batches) -> dict[str, float]:
        """Losses of the averaged decoder on the dev split, which it does not learn from."""
        # Weights in parts cannot be passed to the network: they are put into it for a while.
        taken = with_values(self.weights, self.average) if self.sharded else nullcontext()
        weights = {} if self.sharded else {_place_of(n): one for n, one in self.average.items()}
        totals: dict[str, float] = {}
        self.training_module.eval()
        with taken:
            for number in range(batches.per_epoch):
                batch = batches[number].to(self.device)
                values = functional_call(self.training_module, weights, (batch,), {"plain": True})
                for key, value in values.items():
                    totals[key] = totals.get(key, 0.0) + float(value)
        self.training_module.train()
        found = {
            "dev_loss": totals["loss"] / batches.per_epoch,
            "dev_accuracy": totals["right"] / max(1.0, totals["spoken"]),
        }
        return found | ({"dev_keep": totals["keep"] / totals["kept"]} if totals["kept"] else {})

    def _dev_batches(self) -> Batches | None:
        train = self.settings.train
        if not train.dev_every:
            return None
        if train.dev_every % train.log_every:
            raise TrainingError("train.dev_every must be a multiple of train.log_every")
        reader = PackReader(Path(self.settings.pack), "dev", verify=False)
        return Batches(reader, train.batch, 0, sound=self.settings.codec is not None)

    def _about(self, model: TrainableModel, reader: PackReader) -> dict[str, Any]:
        shards = [[shard.file, shard.sha256] for shard in reader.index.shards]
        return {
            "curve": json.loads(json.dumps(curve_settings(self.settings))),
            "settings": json.loads(json.dumps(to_plain(self.settings))),
            "model": model.identity,
            "pack": digest_of([reader.index.settings, shards]),
            "processes": self.processes.count,
            "start": self._start(),
            "delay_s": reader.index.settings["delay_s"],
        }

    def _start(self) -> str:
        """Digest of the adapter that the run began with; "" unless its output is still needed."""
        lora = self.settings.lora
        if lora is None or not lora.start or not self.settings.loss.keep:
            return ""
        return sha256_of(Path(lora.start) / ADAPTER)

    def _resume(self) -> None:
        state = read_state(self.folder)
        if state is None:
            return
        changed = first_change(state.about["curve"], self.about["curve"])
        for key, name in _SAME:
            if state.about.get(key, "") != self.about[key] and changed is None:
                changed = f"{name} (whose content has changed)"
        if changed is not None:
            raise TrainingError(
                f"{self.folder} was begun with another {changed}: name another run, or restore this"
            )
        for name, weight in self.weights.items():
            fill(weight, state.weights[name])
            fill(self.average[name], state.average[name])
        restore_moments(self.optimizer, self.weights, state)
        self.step, self.sums = state.step, state.sums

    def save(self) -> None:
        """Write the checkpoint; a kill while writing leaves the one before."""
        if not (self.processes.is_first or self.sharded):
            return
        moments = moments_of(self.optimizer, self.weights)
        state = RunState(self.step, self.about, self.weights, self.average, moments, self.sums)
        save_state(self.folder, state, writes=self.processes.is_first)


def _place_of(name: str) -> str:
    """The name of a weight in the training module."""
    return f"codec.{name}" if name.startswith(CODEC) else f"lm.{name}"


def _optimizer(weights: dict[str, Tensor], settings: FitSettings) -> torch.optim.AdamW:
    """The optimizer: weight decay acts on matrices of the decoder, not on vectors or the codec."""
    train = settings.train
    lm = [weight for name, weight in weights.items() if not name.startswith(CODEC)]
    wide = [weight for weight in lm if weight.dim() > 1]
    narrow = [weight for weight in lm if weight.dim() <= 1]
    groups: list[dict[str, Any]] = [
        {"params": wide, "weight_decay": train.weight_decay, "highest": train.lr},
        {"params": narrow, "weight_decay": 0.0, "highest": train.lr},
    ]
    if settings.codec is not None:
        codec = [weight for name, weight in weights.items() if name.startswith(CODEC)]
        groups.append({"params": codec, "weight_decay": 0.0, "highest": settings.codec.lr})
    return torch.optim.AdamW(groups, lr=train.lr, betas=train.betas)
