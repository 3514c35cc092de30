"""What the GPU engine does, in commands of at most 9 minutes each.

    python benchmarks/gpu.py --out FOLDER                           # all parts, on a CUDA device
    python benchmarks/gpu.py --out FOLDER --device cpu --shape tiny # does everything work?

Correctness comes first, of the attention kernels beside plain PyTorch, of tokens beside the
processor's, of streams that are saved; then kiku at many sizes, then moshi and transformers where
they are installed. On a device where nothing has run yet, these in order (with PYTHONPATH=src where
kiku is not installed; the second line is the engine's tests, see docs/gpu.md):

    # 1. Small models in every part, the tests, and all kernels of the large models compiled.
    python benchmarks/gpu.py --out A/small --cache CACHE --shape tiny --warm --seconds 220
    KIKU_TEST_DEVICE=cuda timeout 150 python -m pytest ... tests/engine/...
    python benchmarks/gpu.py --out A/warm --cache CACHE --warm --only none --seconds 150
    # 2. The 1B.
    python benchmarks/gpu.py --out B --cache CACHE \\
        --only "attention,correct,saves,live bfloat16,live float8,drawn"
    # 3. The 2.6B, recordings, and the others.
    python benchmarks/gpu.py --out C --cache CACHE --only big,bulk,eager,transformers,moshi

Every part is a process with a time of its own, and its rows are written to FOLDER/gpu.jsonl as they
come: whatever fails or takes too long loses nothing that was measured. What parts write to their
standard error, tracebacks above all, is in FOLDER/gpu.log, each line after its part. After each
part the table is written to FOLDER/gpu.md, and at the end printed; what is missing in it says why.
A part whose calls cannot be recorded as CUDA graphs is run once more without graphs; its rows say
so.
"""

import argparse
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import machine
from gpu_processes import Watched
from gpu_table import Row, table
from gpu_wanted import Wanted, wanted, warming

HERE = Path(__file__).parent
TOTAL_S = 530.0
NAME_S = 60.0  # to import PyTorch for the first time, and wake a device
LEAST_S = 1.0
START_S = 20.0
"""For a part, if so much is left: to import PyTorch and make an engine takes most of it."""
WARM_SHARE = 0.4
"""Of the time, for compiling kernels before the parts."""
WORKERS = 6
"""Processes that compile at once, at most."""
FIRST_TRY = 0.6
"""Of a part's time, where there is another way to do it."""

UNRECORDED = "was recorded as a CUDA graph"
"""What a line of a part's errors says where recording failed; see `kiku.engine.gpu.capture`."""


def measured(
    part: Wanted, common: dict[str, Any], budget_s: float, log: Path | None = None
) -> Iterator[Row]:
    """The rows of a part as they come; where it failed, one that says why. What it writes to its
    standard error goes to `log`, too.

    Where its calls could not be recorded as graphs, or where it gave no row and can be done
    otherwise, another process tries again in the time that is left.
    """
    ends = time.monotonic() + budget_s
    first = _Attempt(part, {**common, **part.job}, log)
    yield from first.rows(budget_s * (FIRST_TRY if part.otherwise else 1.0))
    if changes := first.changes():
        second = _Attempt(part, {**first.job, **changes}, log)
        yield from second.rows(ends - time.monotonic())


class _Attempt:
    """One process of a part."""

    def __init__(self, part: Wanted, job: dict[str, Any], log: Path | None) -> None:
        """Nothing is started yet."""
        self.job = job
        self._part, self._log = part, log
        told = {key: value for key, value in job.items() if value is False}
        self._name = ", ".join([part.name, *(f"{key} off" for key in told)])
        self._errors = deque[str](maxlen=200)
        self._begun = self._has_rows = self._unrecorded = False

    def rows(self, budget_s: float) -> Iterator[Row]:
        """See `measured`."""
        failed = {"what": "failed", "part": self._part.name}
        if budget_s < LEAST_S:
            yield {**failed, "why": "no time was left"}
            return
        self._begun = True
        job = {**self.job, "budget_s": round(budget_s * 0.85, 1), "begun": time.time()}
        command = [sys.executable, str(HERE / "gpu_parts.py"), json.dumps(job)]
        watched = Watched(command, time.monotonic() + budget_s)
        for is_error, line in watched.lines():
            if is_error:
                self._note(line)
            elif row := _row(line):
                self._has_rows |= row["what"] != "stopped"
                yield {**row, "part": self._part.name}
        if watched.late:
            yield {**failed, "why": f"took longer than {budget_s:.0f} s"}
        elif code := watched.process.returncode:
            yield {**failed, "why": reason([*self._errors])[:400] or f"ended with {code}"}

    def _note(self, error: str) -> None:
        self._errors.append(error)
        self._unrecorded |= UNRECORDED in error
        if self._log:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"[{self._name}] {error}\n")

    def changes(self) -> dict[str, Any]:
        """What another process should be told in place of what this one was; nothing where it would
        do no better."""
        if self._unrecorded:
            return {"graphs": False}
        missing = re.match("(ModuleNotFound|Import)Error", reason([*self._errors]))
        if self._begun and not self._has_rows and not missing:
            return self._part.otherwise
        return {}


def reason(errors: Sequence[str]) -> str:
    """Why a process ended, of the lines on its standard error: the last error of its traceback and,
    where a note tells it, the first one. CUDA's errors end with lines of advice, which say nothing.
    """
    for at in reversed(range(len(errors))):
        if re.match(r"[A-Za-z_][\w.]*(Error|Exception)\b", errors[at]):
            notes = [line for line in errors[at + 1 :] if "the first error was: " in line]
            return "; ".join([errors[at], *(note.partition("the first ")[2] for note in notes)])
    return next((line for line in reversed(errors) if line), "")


def _row(line: str) -> Row | None:
    """A row as a part tells it; libraries print to the same place."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "what" in row else None


def warmed(
    parts: Sequence[Wanted], common: dict[str, Any], ends: float, log: Path
) -> Iterator[Row]:
    """The rows of parts that run side by side until `ends`."""
    # One of them keeps a core busy, and what it starts another one now and then.
    workers = min(WORKERS, max(1, (os.cpu_count() or 2) // 2))

    def all_of(part: Wanted) -> list[Row]:
        return [*measured(part, common, ends - time.monotonic(), log)]

    with ThreadPoolExecutor(workers) as pool:
        for done in as_completed([pool.submit(all_of, part) for part in parts]):
            yield from done.result()


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


class Records:
    """The rows of a run: in gpu.jsonl as they come, and in gpu.md as a table."""

    def __init__(self, folder: Path, parts: Sequence[Wanted], about: Row) -> None:
        """Of these parts nothing was measured yet."""
        self._folder, self._parts, self._rows = folder, parts, list[Row]()
        self.add(about)
        self.write()

    def add(self, row: Row) -> None:
        """One more row."""
        self._rows.append(row)
        machine.append(self._folder / "gpu.jsonl", row)

    def tell(self, rows: Iterator[Row]) -> None:
        """Rows as they come, also to standard error; then the table."""
        for row in rows:
            self.add(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
        self.write()

    def write(self) -> str:
        """Write the table anew."""
        about = self._rows[0]
        commit = about["commit"] or "unknown"
        head = f"{about['device']}, commit {commit}, {about['date']}."
        text = f"{head}\n\n{table(self._parts, self._rows)}\n"
        (self._folder / "gpu.md").write_text(text, encoding="utf-8")
        return text


def _arguments() -> tuple[argparse.Namespace, list[Wanted], list[Wanted]]:
    """What was asked for: options, parts that compile kernels for others, and parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True,
                        help="folder for gpu.jsonl, gpu.md and gpu.log")  # fmt: skip
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", choices=("1b", "tiny"), default="1b")
    parser.add_argument("--only", help='parts, with commas between them; "none" are none')
    parser.add_argument("--seconds", type=float, default=TOTAL_S, help="for all of it")
    parser.add_argument(
        "--cache", type=Path, help="folder of Triton's cache; without it, where Triton puts it"
    )
    parser.add_argument(
        "--warm", action="store_true",
        help="first compile the kernels of all parts of this shape, also of those that are not run",
    )  # fmt: skip
    given = parser.parse_args()
    tiny = given.shape == "tiny"
    parts = wanted(given.shape, "tiny" if tiny else "2.6b", given.device, tiny)
    warm = warming(parts) if given.warm else []
    if given.only:
        named = set(given.only.split(",")) - {"none"}
        if unknown := named - {part.name for part in parts}:
            parser.error(f"no part {unknown}; there are {[part.name for part in parts]}")
        parts = [part for part in parts if part.name in named]
    return given, warm, parts


def main() -> None:
    """See above."""
    started = time.monotonic()
    given, warm, parts = _arguments()
    if given.cache:
        os.environ["TRITON_CACHE_DIR"] = str(given.cache.resolve())
    common = {"device": given.device, "steps": 5 if given.shape == "tiny" else 1000}
    about = {"what": "machine", "device": device_name(given.device), **machine.stamp()}
    given.out.mkdir(parents=True, exist_ok=True)
    records, log = Records(given.out, [*warm, *parts], about), given.out / "gpu.log"
    ends = started + given.seconds
    if warm:
        share = WARM_SHARE if parts else 1.0
        records.tell(warmed(warm, common, started + given.seconds * share, log))
    shares = sum(part.share for part in parts)
    for part in parts:
        left = ends - time.monotonic()
        budget_s = min(left, max(START_S, left * part.share / shares))
        shares -= part.share
        records.tell(measured(part, common, budget_s, log))
    print(records.write())


if __name__ == "__main__":
    main()
