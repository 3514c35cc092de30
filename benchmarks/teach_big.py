"""One epoch of a fine-tune at the 1B's real shape: memory, speed, resuming, export.

    python benchmarks/teach_big.py                         # two minutes and 4 GB of memory
    python benchmarks/teach_big.py --copies 5 --no-record # does everything work?

A checkpoint of the 1B's widths, vocabulary and codec, of which few decoder layers are kept, has
random weights; its vocabulary are the words of examples/ and made-up pieces. The recordings there
and their copies are packed, with words at even distances: the times do not matter to what is
measured. `kiku train fit` (adapters) is killed after a step that no checkpoint holds, run again to
the end of the epoch, exported in both layouts, and each is read once by `kiku transcribe`. One row
is appended to results/teach.jsonl.
"""

import argparse
import csv
import itertools
import json
import os
import re
import string
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from machine import RESULTS, ROOT, append, stamp

from kiku.checkpoint.model_shapes import SHAPES, random_weights
from kiku.config import ModelConfig

TEXTS = {
    "answers.mp3": "yes no go stop yes start no stop",
    "digits.wav": "seven three zero one nine four",
    "directions.flac": "left right up down on off",
}
"""What the recordings of examples/ say."""
SAVE_EVERY = 5
"""Steps between checkpoints."""
_FIT = """model = "model"
pack = "pack"
run = "run"
[train]
steps = {steps}
batch = {batch}
lr = 1e-3
warmup = 1
log_every = 1
save_every = {save}
[lora]
rank = 16
alpha = 32.0
"""


def pieces(count: int) -> list[str]:
    """A vocabulary of so many pieces: the special ones, letters, the words of `TEXTS`, others."""
    known = ["<unk>", "<s>", "</s>", "<pad>", "▁", *string.ascii_lowercase]
    known += sorted({f"▁{word}" for text in TEXTS.values() for word in text.split()})
    others = ("".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=3))
    return [*known, *itertools.islice(others, count - len(known))]


def spread(text: str, seconds: float) -> list[tuple[str, float, float]]:
    """Words with times, at even distances over a recording."""
    words = text.split()
    each = seconds / len(words)
    return [(word, i * each, (i + 0.8) * each) for i, word in enumerate(words)]


def write_checkpoint(folder: Path, config: ModelConfig) -> None:
    """Random weights in Kyutai's layout, the decoder in bfloat16 as published."""
    import torch

    from kiku.checkpoint import save_native
    from kiku.checkpoint.tensor_shapes import codec_shapes, lm_shapes
    from kiku.text import Vocabulary

    codec, lm = random_weights(config)
    folder.mkdir(parents=True)
    vocabulary = folder / "tokenizer.json"
    made = Vocabulary.from_pieces(pieces(config.lm.text_vocab_size))
    vocabulary.write_text(made.to_tokenizer_json(), encoding="utf-8")
    save_native(
        folder, config, vocabulary=vocabulary,
        lm={n: torch.from_numpy(lm(n)).bfloat16() for n in lm_shapes(config.lm)},
        codec={n: torch.from_numpy(codec(n)) for n in codec_shapes(config.codec)},
    )  # fmt: skip


def write_manifest(path: Path) -> None:
    """Rows of the recordings with words."""
    from kiku.audio import read_chunks

    rows: list[str] = []
    for name, text in TEXTS.items():
        sound = ROOT / "examples" / name
        seconds = sum(len(chunk) for chunk in read_chunks(sound, 24_000)) / 24_000
        rows.append(json.dumps({"path": str(sound), "words": spread(text, seconds)}))
    path.write_text("\n".join(rows) + "\n")


@dataclass(frozen=True, slots=True)
class Watched:
    """What a process did, as seen from outside."""

    seconds: float
    peak_mib: int
    """The most that was resident, in MiB, files that it maps among it."""
    killed: bool
    output: str


def watched(
    command: Sequence[str], folder: Path, kill: Callable[[], bool] = lambda: False
) -> Watched:
    """Run a program of Python's; SIGKILL it as soon as `kill` says so."""
    began, peak, killed = time.monotonic(), 0, False
    env = {**os.environ, "KIKU_CACHE": str(folder / "cache")}
    with (folder / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, stdout=output, stderr=output, env=env
        )
        try:
            while process.poll() is None:
                peak = max(peak, peak_mib(process.pid))
                if kill():
                    process.kill()
                    process.wait()
                    killed = True
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        text = output.read()
    if process.returncode and not killed:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{text}")
    return Watched(round(time.monotonic() - began, 1), peak, killed, text)


def peak_mib(pid: int) -> int:
    """MiB that a process has had resident at most; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(one.split()[1]) // 1024 for one in lines if one.startswith("VmHWM")), 0)


def curve(folder: Path) -> list[dict[str, float]]:
    """The complete lines of a run's curve so far."""
    path = folder / "run" / "curve.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [row for row in rows if "seconds" in row]


def size_mb(path: Path) -> float:
    """Of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return round(sum(one.stat().st_size for one in files) / 1e6, 1)


def kill_at(steps: int) -> int:
    """A step in the middle of a run that is not in a checkpoint, but behind one."""
    step = max(steps // 2, SAVE_EVERY + 1)
    return step + 1 if step % SAVE_EVERY == 0 else step


def fitted(folder: Path, steps: int, batch: int) -> dict[str, Any]:
    """Fit for these steps, with a SIGKILL in between."""
    text = _FIT.format(steps=steps, batch=batch, save=SAVE_EVERY)
    (folder / "fit.toml").write_text(text)
    command = ["-m", "kiku", "train", "fit", "fit.toml"]
    first = watched(command, folder, lambda: len(curve(folder)) >= kill_at(steps))
    before = curve(folder)
    second = watched(command, folder)
    resumed = re.search(r"continuing from step (\d+)", second.output)
    if not first.killed or resumed is None:
        raise SystemExit(f"the run was not killed and continued:\n{first.output}{second.output}")
    rows = curve(folder)
    return {
        "epochs": rows[-1]["epoch"],
        "killed_after_step": len(before), "resumed_at": int(resumed[1]),
        "same_losses": [r["loss"] for r in before] == [r["loss"] for r in rows[: len(before)]],
        "step_s": round(median(row["seconds"] for row in rows), 2),
        "sound_s_a_second": round(median(row["frames_per_s"] for row in rows) / 12.5, 2),
        "fit_s": [first.seconds, second.seconds], "fit_peak_mib": [first.peak_mib, second.peak_mib],
        "run_mb": size_mb(folder / "run"),
    }  # fmt: skip


def exported(folder: Path) -> dict[str, Any]:
    """Export in both layouts, and have each transcribe a recording."""
    found: dict[str, Any] = {}
    for layout in ("native", "transformers"):
        export = ["-m", "kiku", "train", "export", "run", "-o", layout, "--layout", layout]
        wrote = watched(export, folder)
        sound = str(ROOT / "examples" / "digits.wav")
        read = watched(["-m", "kiku", "transcribe", sound, "--model", layout, "-q"], folder)
        found[layout] = {
            "export_s": wrote.seconds, "export_peak_mib": wrote.peak_mib,
            "mb": size_mb(folder / layout), "transcribe_s": read.seconds,
            "transcribe_peak_mib": read.peak_mib,
        }  # fmt: skip
    native, other = weights(folder / "native"), weights(folder / "transformers")
    return {
        **found,
        "same_weights": not differing(native, other),
        "changed_tensors": len(differing(native, weights(folder / "model"))),
    }


def weights(folder: Path) -> dict[str, Any]:
    """Of a checkpoint's decoder, by name."""
    from kiku.checkpoint import load

    return dict(load(folder, dtype="auto").lm.state_dict())


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of tensors that are not the same in both."""
    import torch

    both = {*one, *other}
    missing = both - ({*one} & {*other})
    return sorted(n for n in both if n in missing or not torch.equal(one[n], other[n]))


def measure(folder: Path, config: ModelConfig, batch: int, copies: int) -> dict[str, Any]:
    """The whole way, in a folder."""
    from kiku.train.batches import Batches
    from kiku.train.shards import PackReader

    write_checkpoint(folder / "model", config)
    write_manifest(folder / "manifest.jsonl")
    (folder / "augment.toml").write_text(f"copies = {copies}\nspeed = [0.9, 1.1]\n")
    pack = ["manifest.jsonl", "-o", "pack", "--model", "model", "--augment", "augment.toml"]
    packed = watched(["-m", "kiku", "train", "pack", *pack], folder)
    reader = PackReader(folder / "pack")
    steps = Batches(reader, batch, 0).per_epoch
    if steps <= kill_at(steps):
        raise SystemExit(f"an epoch has {steps} steps: more copies, or smaller batches")
    return {
        "examples": len(reader), "sound_s": round(float(reader.lengths.sum()) / 12.5, 1),
        "batch": batch, "steps": steps, "model_mb": size_mb(folder / "model"),
        "pack_s": packed.seconds, "pack_mb": size_mb(folder / "pack"),
        **fitted(folder, steps, batch), **exported(folder),
    }  # fmt: skip


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=2, help="of the decoder's 16 that are kept")
    parser.add_argument("--copies", type=int, default=15, help="of each recording, changed")
    parser.add_argument("--batch", type=int, default=2, help="examples of a step")
    parser.add_argument("--no-record", action="store_true", help="print only")
    args = parser.parse_args()
    config = SHAPES["1b"]
    backbone = replace(config.lm.transformer, num_layers=args.layers)
    config = replace(config, lm=replace(config.lm, transformer=backbone))
    head = {**stamp(), "shape": "1b", "layers": args.layers, "load": os.getloadavg()[0]}
    with TemporaryDirectory(prefix="kiku-teach-") as name:
        row = {**head, **measure(Path(name), config, args.batch, args.copies)}
    print(json.dumps(row, indent=2))
    if not args.no_record:
        append(RESULTS / "teach.jsonl", row)


if __name__ == "__main__":
    main()
