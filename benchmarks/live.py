"""Live streams of kiku: how many at once, how soon after `finalize`, and for how long.

    python benchmarks/live.py --data FOLDER                   # all of it
    python benchmarks/live.py streams finalize --data FOLDER  # parts of it
    python benchmarks/live.py soak --hours 0.1 --data FOLDER --no-record   # does it work?

streams   streams of the 1B's shape in int8 (or --precision) with random weights, and of the demo
          model, through the real loop: in step (every stream has a frame; what a round takes) and
          out of step (frames come spread over 80 ms; how long one waits until it has been heard).
          Windows are empty; kept by the usual truncation, each stream at another place; or full,
          without it.
finalize  from `finalize()` to `Finalized`, in a stream with its worker. With random weights the
          text is written beforehand: silence, which is the common case (nothing more to say), or
          two words. There no guess is right after the first of them, so that every token costs a
          pass: the most that two words can cost. The demo model hears people.
soak      hours of people's words, pauses, silence and noise through one stream of the demo model,
          in chunks of 80 ms, as fast as it goes.

FOLDER holds recordings of people (`dev.jsonl`, `speech/`) and noises (`noise/noise/`). Each part
runs in a process of its own and appends one line to results/live.jsonl.
"""

import argparse
import multiprocessing
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
from children import config_of
from instrumented import Script
from live_load import WINDOWS, flushes, live_load
from numpy.typing import NDArray

from kiku import Recognizer
from kiku.cli.columns import columns
from kiku.config import LMConfig
from kiku.engine.choice import usable_threads
from kiku.engine.kernels import kernels
from kiku.graph import PRECISIONS
from kiku.measure.dummy import open_model, write_dummy_model
from kiku.measure.files import joined_sound
from kiku.measure.limit import weight_bytes, window_bytes
from kiku.measure.machine import MemoryReader
from kiku.measure.speed import full_window, noise

HERE = Path(__file__).parent
PARTS = ("streams", "finalize", "soak")
STREAMS = {"demo": (1, 2, 4, 8, 16, 32, 64), "shape": (1, 2, 4, 6, 8)}
DIGITS = HERE.parent / "examples" / "digits.wav"
DEMO = "demo"

Row = dict[str, Any]


class Run:
    """One part: its options, and what it is measured on."""

    def __init__(self, args: argparse.Namespace, scratch: Path) -> None:
        """Nothing is measured yet."""
        self.args, self.scratch = args, scratch
        self.threads: int = args.threads or usable_threads()
        self._reader: MemoryReader | None = None

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)

    def bandwidth(self) -> float:
        """Bytes a second at which memory is read now."""
        if self._reader is None:
            size = 1 << (26 if self.args.shape == "tiny" else 30)
            self._reader = MemoryReader(size, threads=self.threads)
        return self._reader.bandwidth(0.5)

    def precision(self, model: str) -> str:
        """Of a model's weights."""
        return "float32" if model == DEMO else self.args.precision

    def open(self, model: str, slots: int = 1) -> Recognizer:
        """The demo model, or random weights of a shape; these are written when they are asked for
        first."""
        source = DEMO
        if model != DEMO:
            precision = self.precision(model)
            folder = self.scratch / f"{model}-{precision}"
            source = str(write_dummy_model(folder, config_of(model), precision))
        return open_model(source, slots=slots, threads=self.threads)

    def least_ms(self, model: str, lm: LMConfig, windows: int, bandwidth: float) -> float:
        """A pass of the decoder that does nothing but read its weights, and so many full
        windows."""
        precision = self.precision(model)
        size, window = weight_bytes(lm, precision), window_bytes(lm, machine.key_bits(precision))
        return round((size + windows * window) / bandwidth * 1000, 2)


def streams(run: Run) -> Row:
    """Live streams at once."""
    rows: list[Row] = []
    for model in run.args.models:
        sound = joined_sound([DIGITS], 24_000) if model == DEMO else None
        for count in run.args.streams or STREAMS.get(model, STREAMS["shape"]):
            recognizer = run.open(model, slots=count)
            for window in WINDOWS:
                run.say(f"{model}: {count} live streams, window {window}")
                before = run.bandwidth()
                found = live_load(
                    recognizer, count, window, sound=sound, count=run.args.frames
                ).to_dict()
                bandwidth = (before + run.bandwidth()) / 2
                full = count if window == "full" else 0
                least = run.least_ms(model, recognizer.config.lm, full, bandwidth)
                rows.append({
                    "model": model, "precision": run.precision(model), **found,
                    "bandwidth_gb_s": round(bandwidth / 1e9, 1),
                    "limit_ms": least, "share_of_limit": _share(least, found["decoder"]),
                })  # fmt: skip
            del recognizer
    return {"rows": rows}


def _share(least_ms: float, times: Row | None) -> float | None:
    return round(least_ms / times["median_ms"], 3) if times and times["median_ms"] else None


def finalize(run: Run) -> Row:
    """How soon the words are there."""
    rows: list[Row] = []
    for model in run.args.models:
        recognizer = run.open(model)
        cases = _recorded(run, recognizer) if model == DEMO else _written(run, recognizer)
        for name, measured in cases:
            run.say(f"{model}: {name}")
            before = run.bandwidth()
            found = measured()
            bandwidth = (before + run.bandwidth()) / 2
            least = run.least_ms(model, recognizer.config.lm, 1, bandwidth)
            rows.append({
                "model": model, "precision": run.precision(model), "case": name, **found,
                "limit_ms": least,
                "bandwidth_gb_s": round(bandwidth / 1e9, 1),
                "share_of_limit": _share(least, found["decoder"]),
            })  # fmt: skip
    return {"rows": rows}


Case = tuple[str, Callable[[], Row]]


def _written(run: Run, recognizer: Recognizer) -> Iterator[Case]:
    """Random weights: the text is written beforehand; the window is full."""
    config = recognizer.config
    start, pad = config.word_start_id, config.pad_id
    second = noise(config, 1.0)

    def measure(says: Sequence[int]) -> Row:
        sounds = [second] * (run.args.rounds + 1)
        past = full_window(config)
        script = Script(pad)
        return flushes(recognizer, sounds, script=script, says=says, past=past).to_dict()

    yield "nothing more to say", lambda: measure([])
    yield "two words", lambda: measure([pad, start, 10, pad, start, 11])


def _recorded(run: Run, recognizer: Recognizer) -> Iterator[Case]:
    """The demo model hears strings of words."""
    from talk import RATE, Talk, clips_of

    talk = Talk(clips_of(run.args.data), [np.zeros(RATE, np.float32)])
    strings = [talk.string() for _ in range(run.args.rounds + 1)]
    past = full_window(recognizer.config)

    def measure(after_s: float) -> Row:
        sounds: list[NDArray[np.float32]] = []
        for string in strings:
            end = round((string.speech[-1][1] + after_s) * RATE)
            sounds.append(np.pad(string.sound, (0, RATE * 2))[:end])
        return flushes(recognizer, sounds, past=past).to_dict()

    yield "1.5 s after the last word", lambda: measure(1.5)
    yield "as the last recording ends", lambda: measure(0.0)


def soak(run: Run) -> Row:
    """Hours through one stream."""
    from soak import soak as listen
    from talk import Talk, clips_of, noises_of

    recognizer = run.open(DEMO)
    run.say("reading recordings")
    talk = Talk(clips_of(run.args.data), noises_of(run.args.data))
    started = time.perf_counter()
    found = listen(recognizer, talk, run.args.hours, report=run.say)
    return {"model": DEMO, "took_s": round(time.perf_counter() - started, 1), **found}


def _streams_table(row: Row) -> Iterable[Sequence[str]]:
    yield (
        "MODEL", "STREAMS", "WINDOW", "STEP P50", "P99", "CODEC", "DECODER", "LIMIT", "SHARE",
        "OUT OF STEP: P50", "P99", "FRAMES A STEP", "BUSY", "TRUNCATIONS", "MS EACH",
    )  # fmt: skip
    for one in row["rows"]:
        truncation = one["truncation"] or {"count": 0, "median_ms": None}
        yield (
            one["model"], str(one["streams"]), one["window"],
            _ms(one["step"]["median_ms"]), _ms(one["step"]["p99_ms"]),
            _median(one["codec"]), _median(one["decoder"]),
            _ms(one["limit_ms"]), _number(one["share_of_limit"]),
            _ms(one["delay"]["median_ms"]), _ms(one["delay"]["p99_ms"]),
            _number(one["frames_per_step"]), _number(one["busy"]),
            str(truncation["count"]), _ms(truncation["median_ms"]),
        )  # fmt: skip


def _finalize_table(row: Row) -> Iterable[Sequence[str]]:
    yield (
        "MODEL", "CASE", "P50", "P90", "CODEC", "DECODER", "LIMIT", "SHARE", "PASSES", "WORDS",
        "INSTEAD OF",
    )  # fmt: skip
    for one in row["rows"]:
        yield (
            one["model"], one["case"], _ms(one["total"]["median_ms"]), _ms(one["total"]["p90_ms"]),
            _median(one["codec"]), _median(one["decoder"]), _ms(one["limit_ms"]),
            _number(one["share_of_limit"]), _number(one["passes"]), _number(one["words"]),
            f"{one['sooner_s'] * 1000:.0f} ms",
        )  # fmt: skip


def _soak_table(row: Row) -> Iterable[Sequence[str]]:
    yield (
        "HOURS", "MEMORY", "STEP P50", "P99", "PUSH P50", "SAID", "HEARD", "ERRORS",
        "LONGEST GAP", "TRUNCATIONS", "MS EACH", "DECODED AGAIN", "WARNINGS",
    )  # fmt: skip
    for one in row["parts"]:
        memory = one["resident_bytes"]
        yield (
            f"{one['until_hours']:g}", "-" if memory is None else f"{memory / 1e6:.1f} MB",
            f"{one['step']['median_ms']:.2f}", f"{one['step']['p99_ms']:.2f}",
            f"{one['push']['median_ms']:.2f}", str(one["said"]), str(one["words"]),
            f"{100 * one['errors'] / max(one['said'], 1):.1f} %", f"{one['longest_gap_s']:.1f} s",
            str(one["truncations"]), _median(one["truncation"]), str(one["redecodes"]),
            _counts(one["warnings"]),
        )  # fmt: skip


def _soak_end(row: Row) -> Iterable[Sequence[str]]:
    growth = row["growth_bytes"]
    yield "memory since the first part", "-" if growth is None else f"{growth / 1e6:+.1f} MB"
    yield "step, last part against first", f"{row['step_ratio']}, p99 {row['step_ratio_p99']}"
    yield "word error rate, first hour", f"{row['word_error_rate_first_hour']}"
    yield "word error rate, last hour", f"{row['word_error_rate_last_hour']}"
    yield "longest gap between words", f"{row['longest_gap_s']} s of speech"
    yield "warnings", _counts(row["warnings"])
    yield "it took", f"{row['took_s']} s"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "-"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _median(times: Row | None) -> str:
    return _ms(times["median_ms"] if times else None)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


MEASURES: dict[str, Callable[[Run], Row]] = {"streams": streams, "finalize": finalize, "soak": soak}
TABLES: dict[str, Sequence[Callable[[Row], Iterable[Sequence[str]]]]] = {
    "streams": [_streams_table],
    "finalize": [_finalize_table],
    "soak": [_soak_table, _soak_end],
}


def measure(part: str, args: argparse.Namespace) -> None:
    """One part, its table, and its line of results."""
    stamp = machine.stamp()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the scratch folder goes
    with tempfile.TemporaryDirectory(prefix="kiku-live-") as scratch:
        run = Run(args, args.keep or Path(scratch))
        row = {**stamp, "what": part, "threads": run.threads, **MEASURES[part](run)}
    for table in TABLES[part]:
        print(columns(table(row)))
    if not args.no_record:
        machine.append(args.out / "live.jsonl", row)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; else all")
    parser.add_argument("--data", type=Path, help="the folder of recordings")
    parser.add_argument("--shape", choices=("1b", "2.6b", "tiny"), default="1b")
    parser.add_argument("--precision", choices=PRECISIONS, default="int8", help="of the shape")
    parser.add_argument("--models", help="demo, or the shape, or both: demo,1b")
    parser.add_argument("--streams", help="how many at once are tried: 1,2,4")
    parser.add_argument("--frames", type=int, default=200, help="of each stream, in streams")
    parser.add_argument("--rounds", type=int, default=50, help="of finalize")
    parser.add_argument("--hours", type=float, default=6.0, help="of the soak")
    parser.add_argument("--threads", type=int, help="else all processors")
    parser.add_argument("--keep", type=Path, help="folder for the random weights, kept")
    parser.add_argument("--out", type=Path, default=machine.RESULTS, help="folder for results")
    parser.add_argument("--no-record", action="store_true", help="print only")
    args = parser.parse_args()
    args.models = args.models.split(",") if args.models else [DEMO, args.shape]
    args.streams = [int(count) for count in args.streams.split(",")] if args.streams else None
    args.parts = args.parts or list(PARTS)
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    if args.precision.endswith("_kv8") and kernels().library is None:
        parser.error(f"keys of 8 bits need kiku-kernels: {kernels().reason}")
    if args.data is None and (
        "soak" in args.parts or ("finalize" in args.parts and DEMO in args.models)
    ):
        parser.error("recordings of people are wanted: say where they are with --data")
    return args


def main() -> int:
    """Each part in a process of its own: memory counts. The exit code is 1 if one failed."""
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the part ends, too
    spawn, failed = multiprocessing.get_context("spawn"), 0
    for part in args.parts:
        process = spawn.Process(target=measure, args=(part, args), daemon=True)
        process.start()
        process.join()
        failed += process.exitcode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
