"""kiku.hf and kiku.hf.auto beside transformers: memory and processor time, each in its own process.

    python benchmarks/against_transformers.py
    python benchmarks/against_transformers.py --layers 4 --seconds 4 --recording talk.wav

Memory: a model of the 1B's layer shapes with few layers and random weights is loaded in bfloat16,
and transcribes a few seconds once. Processor time: the demo model transcribes a recording; its
trained weights matter, because kiku reads several frames in one pass where it guesses their ids.
transformers reads one frame of sound at a time there, as the published checkpoints tell it to.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from machine import RESULTS, ROOT, append, stamp

WAYS = {"transformers": "transformers", "kiku": "kiku.hf", "auto": "kiku.hf.auto"}
_MODEL = "KyutaiSpeechToTextForConditionalGeneration"


def write_model(folder: Path, layers: int) -> None:
    """A checkpoint with the 1B's layers, as transformers writes it."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.KyutaiSpeechToTextConfig(
        vocab_size=8001, num_hidden_layers=layers, num_attention_heads=16, sliding_window=750,
        bos_token_id=8000, audio_pad_token_id=8001 + 32 * 2049, rope_theta=1e5,
    )  # fmt: skip
    model = transformers.KyutaiSpeechToTextForConditionalGeneration(config).bfloat16()
    model.codec_model.float()
    with torch.no_grad():
        model.lm_head.weight[-1] = 0
    model.save_pretrained(folder)


def _memory() -> dict[str, int]:
    """MB: resident, of it what no file holds, and the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines if line.startswith(("Vm", "Rss")))
    names = {"resident": "VmRSS", "anonymous": "RssAnon", "peak": "VmHWM"}
    return {ours: int(values[name].split()[0]) // 1024 for ours, name in names.items()}


def child(way: str, folder: str, samples: str, dtype: str) -> None:
    """Measure one way, in this process, and print what came out."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    model_class: Any = getattr(import_module(WAYS[way]), _MODEL)
    imported = _memory()
    model = model_class.from_pretrained(folder, dtype=getattr(torch, dtype))
    loaded = _memory()
    if way == "transformers":
        model.generation_config.audio_window_size = 1
    values = torch.from_numpy(np.load(samples)).view(1, 1, -1)
    began = time.process_time()
    ids = model.generate(input_values=values)
    spent = time.process_time() - began
    print(json.dumps({
        "imported_mb": imported, "loaded_mb": loaded, "after_mb": _memory(),
        "cpu_ms_per_frame": round(1000 * spent / (ids.shape[1] - 1), 1),
    }))  # fmt: skip


def measured(folder: Path, samples: Path, dtype: str, repeats: int) -> dict[str, Any]:
    """Each way in its own processes; of several the one that took least time."""
    found: dict[str, Any] = {}
    for way in WAYS:
        rows: list[dict[str, Any]] = []
        for _ in range(repeats):
            done = subprocess.run(
                [sys.executable, __file__, "--child", way, str(folder), str(samples), dtype],
                capture_output=True, text=True, check=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )  # fmt: skip
            rows.append(json.loads(done.stdout.splitlines()[-1]))
        found[way] = min(rows, key=lambda row: row["cpu_ms_per_frame"])
        print(way, found[way], flush=True)
    return found


def main() -> None:
    """Measure, and add a row to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--recording", default=str(ROOT / "examples" / "digits.wav"))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.child:
        child(*args.child)
        return
    import numpy as np

    from kiku.audio import read_chunks
    from kiku.hf import KyutaiSpeechToTextForConditionalGeneration

    row: dict[str, Any] = {**stamp(), "layers": args.layers, "seconds": args.seconds}
    with TemporaryDirectory() as work:
        sound = np.concatenate(list(read_chunks(args.recording, 24_000)))
        wide, demo, samples = Path(work, "wide"), Path(work, "demo"), Path(work, "sound.npy")
        write_model(wide, args.layers)
        np.save(samples, sound[: int(args.seconds * 24_000)])
        row["memory"] = measured(wide, samples, "bfloat16", 1)
        KyutaiSpeechToTextForConditionalGeneration.from_pretrained("demo").save_pretrained(demo)
        np.save(samples, sound)
        row["demo"] = measured(demo, samples, "float32", args.repeats)
    append(RESULTS / "against_transformers.jsonl", row)


if __name__ == "__main__":
    main()
