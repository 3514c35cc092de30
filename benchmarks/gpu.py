"""What the GPU engine does, in one command of at most 9 minutes.

    python benchmarks/gpu.py --out FOLDER                           # on a CUDA device
    python benchmarks/gpu.py --out FOLDER --device cpu --shape tiny # does everything work?

Correctness comes first, of the attention kernels beside plain PyTorch and of tokens beside the
processor's; then kiku at many sizes, then moshi and transformers where they are installed. Every
part is a process with a time of its own, and its rows are written to FOLDER/gpu.jsonl as they come:
whatever fails or takes too long loses nothing that was measured. What a part writes to its standard
error, tracebacks above all, is in FOLDER/PART.log.
After each part the table is written to FOLDER/gpu.md, and at the end printed; what is missing in it
says why.
"""

import argparse
import json
import re
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine
from gpu_processes import Watched

HERE = Path(__file__).parent
TOTAL_S = 530.0
NAME_S = 60.0  # to import PyTorch for the first time, and wake a device
LEAST_S = 1.0
LIVE = (1, 16, 64, 256, 512, 1000)
BIG_LIVE = (1, 16, 64)
DRAWN_LIVE = (64, 1000)
TEMPERATURE = 0.25  # with which Kyutai serves the 1B


@dataclass(frozen=True)
class Wanted:
    """A part: its share of the time, what it is told, and the rows that are hoped for."""

    name: str
    share: float
    job: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)


def wanted(shape: str, big: str, device: str, tiny: bool) -> list[Wanted]:
    """All parts in order: what matters most comes first."""
    live = (1, 3) if tiny else LIVE
    big_live = (1, 2) if tiny else BIG_LIVE
    some = 2 if tiny else 64
    models = ["tiny"] if tiny else ["tiny", "demo"]
    drawn = (1, 3) if tiny else DRAWN_LIVE
    kinds = ("float32", "float32, drawn", "bfloat16", "keys in float8")

    def rows(engine: str, shape: str, sizes: Sequence[int], kv: str) -> list[dict[str, Any]]:
        named = {"what": "live", "engine": engine, "shape": shape, "kv": kv}
        return [{**named, "streams": n} for n in sizes]

    # Keys in, queries of a row, rows.
    cases = [("float32", 1, 3), ("float8", 4, 2)] if tiny else [
        ("float32", 4, 8), *[(kv, T, n) for kv in ("bfloat16", "float8")
                             for T, n in ((1, 1), (1, 64), (1, 1000), (4, 64), (16, 64))],
    ]  # fmt: skip
    ours = "cuda" if device != "cpu" else "cuda, graphs off"
    parts = [
        Wanted("attention", 0.1, {"part": "attention", "shape": shape, "cases": cases},
               [{"what": "attention", "keys": kv, "queries": T, "rows": n} for kv, T, n in cases]),
        Wanted("correct", 0.12, {"part": "correct", "models": models},
               [{"what": "correct", "model": m, "precision": k} for m in models for k in kinds]),
        *[Wanted(f"live {kv}", 0.19, {"part": "live", "shape": shape, "kv": kv, "sizes": live},
                 rows(ours, shape, live, kv)) for kv in ("bfloat16", "float8")],
        Wanted("drawn", 0.07, {"part": "live", "shape": shape, "kv": "bfloat16", "sizes": drawn,
                               "temperature": TEMPERATURE},
               [{**row, "temperature": TEMPERATURE}
                for row in rows(ours, shape, drawn, "bfloat16")]),
        Wanted("big", 0.1, {"part": "live", "shape": big, "kv": "bfloat16", "sizes": big_live},
               rows(ours, big, big_live, "bfloat16")),
        Wanted("bulk", 0.09, {"part": "bulk", "shape": big, "kv": "bfloat16", "streams": some},
               [{"what": "bulk", "shape": big, "kv": "bfloat16", "files": some}]),
        Wanted("moshi", 0.09, {"part": "moshi", "shape": shape, "streams": some},
               [{"what": "live", "engine": "moshi", "shape": shape, "streams": some}]),
        Wanted("eager", 0.08, {"part": "eager", "shape": shape, "streams": some},
               [{"what": "live", "engine": e, "shape": shape, "streams": some}
                for e in ("torch", "cuda, plain attention", "cuda, graphs off")]),
        Wanted("transformers", 0.09, {"part": "transformers", "shape": shape},
               [{"what": "live", "engine": "transformers", "shape": shape, "streams": 1}]),
    ]  # fmt: skip
    return parts


def measured(
    part: Wanted, common: dict[str, Any], budget_s: float, log: Path | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a part as they come; at last, where it failed, one that says why. What it writes
    to its standard error goes to `log`, too."""
    failed = {"what": "failed", "part": part.name}
    if budget_s < LEAST_S:
        yield {**failed, "why": "no time was left"}
        return
    job = {**common, **part.job, "budget_s": round(budget_s * 0.85, 1)}
    command = [sys.executable, str(HERE / "gpu_parts.py"), json.dumps(job)]
    watched = Watched(command, time.monotonic() + budget_s)
    errors = deque[str](maxlen=200)
    for is_error, line in watched.lines():
        if is_error:
            errors.append(line)
            if log:
                with log.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
        elif row := _row(line):
            yield {**row, "part": part.name}
    if watched.late:
        yield {**failed, "why": f"took longer than {budget_s:.0f} s"}
    elif code := watched.process.returncode:
        yield {**failed, "why": reason([*errors])[:400] or f"ended with {code}"}


def reason(errors: Sequence[str]) -> str:
    """Why a process ended, of the lines on its standard error: the last error of its traceback and,
    where a note tells it, the first one. CUDA's errors end with lines of advice, which say nothing.
    """
    for at in reversed(range(len(errors))):
        if re.match(r"[A-Za-z_][\w.]*(Error|Exception)\b", errors[at]):
            notes = [line for line in errors[at + 1 :] if "the first error was: " in line]
            return "; ".join([errors[at], *(note.partition("the first ")[2] for note in notes)])
    return next((line for line in reversed(errors) if line), "")


def _row(line: str) -> dict[str, Any] | None:
    """A row as a part tells it; libraries print to the same place."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "what" in row else None


def table(parts: Sequence[Wanted], rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: every row that was hoped for, and what else was measured."""
    lines = ["| what | streams | p50 ms | p99 ms | steps | |", "|---|---|---|---|---|---|"]
    left = [row for row in rows if row["what"] not in ("machine", "failed", "fits", "stopped")]
    for part in parts:
        why = _why(part, rows)
        own = [row for row in left if row.get("part", part.name) == part.name]
        for hoped in part.rows:
            found = next((row for row in own if hoped.items() <= row.items()), None)
            if found is None:
                lines.append(_line(hoped, f"not measured: {why}"))
            else:
                left.remove(found)
                own.remove(found)
                lines.append(_line(found, ""))
    return "\n".join([*lines, *(_line(row, "") for row in left)])


def _why(part: Wanted, rows: Sequence[dict[str, Any]]) -> str:
    """Why rows of a part are missing."""
    told = [row for row in rows if row.get("part") == part.name]
    fits = [f"{row['streams']} fit" for row in told if row["what"] == "fits"][-1:]
    reasons = [row["why"] for row in told if row["what"] in ("failed", "stopped")]
    missing = "the part ended without it" if told else "its turn did not come"
    return "; ".join(dict.fromkeys(fits + reasons)) or missing


def _line(row: dict[str, Any], remark: str) -> str:
    if row["what"] == "correct":
        name = f"same tokens as on the processor: {row['model']}, {row['precision']}"
        remark = remark or f"{row['same']:.2%} of {row['frames']}; attention: {row['attention']}"
        return f"| {name} | | | | | {remark} |"
    if row["what"] == "attention":
        name = f"attention of a layer, {row['queries']} a row, keys in {row['keys']}"
        remark = remark or (
            f"kernel {row['kernel_us']} µs ({row['gb_per_s']} GB/s of what is seen), plain "
            f"{row['plain_us']} µs; differ by {row['error']:.1g}"
        )
        return f"| {name} | {row['rows']} | | | | {remark} |"
    if row["what"] == "bulk":
        name = f"{row['shape']}, recordings, keys in {row['kv']}"
        if not remark:
            remark = (
                f"{row['sound_s_per_s']} s of sound a second, reckoned from {row['step_ms']} ms "
                f"for {row['block']} frames, {row['pass_ms']} ms a further pass and "
                f"{row['accepted']} frames a pass (the demo model's; its attention: "
                f"{row['accepted_by']}); attention: {row['attention']}"
            )
        return f"| {name} | {row['files']} | | | | {remark} |"
    keys = f", keys in {row['kv']}" if "kv" in row else ""
    keys += f", temperature {row['temperature']}" if "temperature" in row else ""
    name = f"{row['shape']}, {row['engine']}{keys}"
    told = [f"{row['memory_gb']} GB"] if row.get("memory_gb") else []
    told += [f"attention: {row['attention']}"] if "attention" in row else []
    remark = "; ".join(told) or remark
    times = [row.get(key, "") for key in ("p50_ms", "p99_ms", "steps")]
    return f"| {name} | {row['streams']} | {times[0]} | {times[1]} | {times[2]} | {remark} |"


def device_name(device: str) -> str:
    """What the device calls itself, asked in a process that ends."""
    if device == "cpu":
        return "the processor"
    asked = f"import torch; print(torch.cuda.get_device_name({device!r}), torch.version.cuda)"
    watched = Watched([sys.executable, "-c", asked], time.monotonic() + NAME_S)
    told = [line for is_error, line in watched.lines() if line and not is_error]
    if watched.late:
        return f"a device that did not tell its name in {NAME_S:.0f} s"
    return told[-1] if told else "no CUDA device"


def write(folder: Path, parts: Sequence[Wanted], rows: Sequence[dict[str, Any]]) -> str:
    """The table, and where it is from, into gpu.md."""
    about = rows[0]
    commit = about["commit"] or "unknown"
    text = f"{about['device']}, commit {commit}, {about['date']}.\n\n{table(parts, rows)}\n"
    (folder / "gpu.md").write_text(text, encoding="utf-8")
    return text


def main() -> None:
    """See above."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.jsonl and gpu.md")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", choices=("1b", "tiny"), default="1b")
    parser.add_argument("--only", help="parts, with commas between them")
    parser.add_argument("--seconds", type=float, default=TOTAL_S, help="for all of it")
    given = parser.parse_args()
    tiny = given.shape == "tiny"
    parts = wanted(given.shape, "tiny" if tiny else "2.6b", given.device, tiny)
    if given.only:
        named = given.only.split(",")
        if unknown := set(named) - {part.name for part in parts}:
            parser.error(f"no part {unknown}; there are {[part.name for part in parts]}")
        parts = [part for part in parts if part.name in named]
    path = given.out / "gpu.jsonl"
    common = {"device": given.device, "steps": 5 if tiny else 1000}
    rows: list[dict[str, Any]] = [
        {"what": "machine", "device": device_name(given.device), **machine.stamp()}
    ]
    machine.append(path, rows[0])
    text, ends = write(given.out, parts, rows), started + given.seconds
    shares = sum(part.share for part in parts)
    for part in parts:
        budget_s = (ends - time.monotonic()) * part.share / shares
        shares -= part.share
        log = given.out / f"{part.name.replace(' ', '-')}.log"
        for row in measured(part, common, budget_s, log):
            rows.append(row)
            machine.append(path, row)
            print(json.dumps(row), file=sys.stderr, flush=True)
        text = write(given.out, parts, rows)
    print(text)


if __name__ == "__main__":
    main()
