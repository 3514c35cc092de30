"""kiku beside transformers and moshi: one command, in turn in one run, on this machine.

    python benchmarks/peers.py                         # all of it: about half an hour on two cores
    python benchmarks/peers.py --only live,block       # parts of it
    python benchmarks/peers.py --only live,streams,memory --also int8_kv8     # keys of 8 bits, too
    python benchmarks/peers.py --shape tiny --frames 5 --no-record     # does everything work?

The peers have the same shape, random weights and the same sound, two threads each, one process
each. In a round every one of them hears some frames, then the next; so a slow minute hits all, and
what counts is the ratio. Results are appended to results/peers.jsonl, and results/peers.md, the
picture and docs/speed.md are made from them.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
import report
from children import config_of
from machine import key_bits

from kiku.engine.choice import usable_threads
from kiku.engine.kernels import kernels
from kiku.errors import KikuError
from kiku.graph import PRECISIONS, precision_of_weights
from kiku.measure import subprocesses
from kiku.measure.files import product
from kiku.measure.limit import limit, share_of_limit
from kiku.measure.machine import MemoryReader
from kiku.measure.times import Times
from kiku.stream.recovery import CHECK_FRAMES

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
SOUNDS = [EXAMPLES / name for name in ("digits.wav", "directions.flac", "answers.mp3")]
PARTS = ("live", "streams", "block", "big", "file", "memory", "start", "soak")
SIZES = (1, 2, 4, 8, 16, 32, 64)
STREAMS = (1, 2, 4, 6, 8, 10)

# kiku's int8 is in every group: what the others are compared with in the same minutes.
GROUPS = (
    (("kiku", "int8"), ("kiku", "int4"), ("transformers", "bfloat16"), ("moshi", "bfloat16")),
    (("kiku", "int8"), ("kiku", "float32"), ("transformers", "float32"), ("moshi", "float32")),
)
_BYTES = {"int8": 1.2, "int4": 0.8, "float32": 4.4, "bfloat16": 2.4}  # of a weight, all told
_ROUND = 20  # frames that one hears before it is the next one's turn


class ChildFailed(RuntimeError):
    """A process did not answer."""


class Child:
    """One talker of `children.py`."""

    def __init__(self, job: dict[str, Any]) -> None:
        """Start it, and wait until it is ready."""
        self.name = f"{job['who']} {job['precision']}"
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by `stop`
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "children.py"), json.dumps(job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
        )  # fmt: skip
        self.resident = self._answer()["resident"]

    def ask(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Say one thing, and wait for the answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(wanted) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # why it has gone is told below
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise ChildFailed(self._reason())
        return json.loads(line)

    def _reason(self) -> str:
        self.log.seek(0)
        last = [line for line in self.log.read().splitlines() if line.strip()][-1:]
        return f"exit code {self.process.returncode}: {last[0] if last else 'no message'}"

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.log.close()


class Run:
    """One run: its options, its folders, and the rows that come of it."""

    def __init__(self, args: argparse.Namespace, scratch: Path) -> None:
        """Measure how fast the memory is read, and nothing else yet."""
        self.args, self.scratch = args, scratch
        self.threads: int = args.threads or usable_threads()
        self.stamp = machine.stamp()
        self.run = time.strftime("%Y-%m-%dT%H:%M:%S")
        self.rows: list[dict[str, Any]] = []
        self.written: dict[tuple[str, str], dict[str, Any]] = {}
        size = 1 << (26 if args.shape == "tiny" else 30)
        self.reader = MemoryReader(size, threads=self.threads)
        self.bandwidths: list[float] = []
        self.look_at_memory()

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)

    @property
    def bandwidth(self) -> float:
        """Bytes a second at which memory is read: the median since `bandwidths` was emptied.

        Looked at once a round, as one of those whose turn it is: where a machine is shared, its
        memory is twice as fast in one minute as in the next.
        """
        return float(np.median(self.bandwidths))

    def look_at_memory(self) -> None:
        """One more reading."""
        self.bandwidths.append(self.reader.bandwidth(0.3))

    def add(self, what: str, **values: Any) -> None:
        """One row."""
        row = {
            **self.stamp, "run": self.run, "what": what, "threads": self.threads,
            "bandwidth_gb_s": round(self.bandwidth / 1e9, 1), **values,
        }  # fmt: skip
        self.rows.append(row)
        if not self.args.no_record:
            machine.append(self.args.out / "peers.jsonl", row)

    def job(self, **values: Any) -> dict[str, Any]:
        """What a child is told."""
        return {"threads": self.threads, "frames": 2 * self.args.frames + 200, **values}

    def part(self, part: str, **values: Any) -> Any:
        """Have one of kiku's parts measured in a process of its own."""
        job = self.job(who="kiku-part", part=part, **values)
        return json.loads(
            subprocesses.run_child([sys.executable, str(HERE / "children.py"), json.dumps(job)])
        )

    def streams_part(self, folder: str, streams: Sequence[int]) -> list[dict[str, Any]]:
        """Have live streams measured, and how fast the memory is read before and after them."""
        self.bandwidths.clear()
        self.look_at_memory()
        rows = self.part("streams", folder=folder, streams=streams, count=self.args.frames)
        self.look_at_memory()
        return rows

    def folder(self, shape: str, precision: str) -> str:
        """Of a dummy model; written when it is first asked for."""
        folder = self.scratch / f"{shape}-{precision}"
        if (shape, precision) not in self.written:
            self.say(f"writing random weights: {shape}, {precision}")
            found = self.part("write", folder=str(folder), shape=shape, precision=precision)
            self.written[shape, precision] = found
        return str(folder)


def live(run: Run) -> None:
    """kiku, transformers and moshi, one stream, in turn."""
    shape = run.args.shape
    for group in groups(run.args.also):
        wanted = [peer for peer in group if peer[0] in run.args.peers]
        for members in _that_fit(wanted, shape):
            _live_group(run, shape, members)


def groups(also: Sequence[str]) -> Iterator[tuple[tuple[str, str], ...]]:
    """Who is measured in turn: `GROUPS`, and with the first of them kiku in further precisions."""
    first, *others = GROUPS
    known = [peer for peer in first if peer[0] == "kiku"]
    more = [("kiku", precision) for precision in also if ("kiku", precision) not in known]
    yield (*known, *more, *(peer for peer in first if peer[0] != "kiku"))
    yield from others


def _that_fit(wanted: Sequence[tuple[str, str]], shape: str) -> Iterator[list[tuple[str, str]]]:
    """Cut a group into parts that memory holds at once, the first member in each."""
    weights = sum(_weights(shape))
    room = _available() * 0.85
    members, used = list(wanted[:1]), weights * _bytes(wanted[0][1]) if wanted else 0.0
    anchor = used
    for peer in wanted[1:]:
        needed = weights * _bytes(peer[1]) + 1.2e9
        if used + needed > room and len(members) > 1:
            yield members
            members, used = list(wanted[:1]), anchor
        members.append(peer)
        used += needed
    if members:
        yield members


def _bytes(precision: str) -> float:
    """Of a weight, all told; the keys and values of one stream are next to nothing."""
    return _BYTES[precision_of_weights(precision)]


def _weights(shape: str) -> list[int]:
    from kiku.checkpoint.tensor_shapes import codec_shapes, lm_shapes

    config = config_of(shape)
    shapes = [*lm_shapes(config.lm).values(), *codec_shapes(config.codec).values()]
    return [int(np.prod(one)) for one in shapes]


def _available() -> float:
    """Bytes of memory that are free."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 16e9
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _live_group(run: Run, shape: str, members: Sequence[tuple[str, str]]) -> None:
    run.say(f"live, {shape}: " + ", ".join(" ".join(peer) for peer in members))
    children: dict[tuple[str, str], Child] = {}
    failed: dict[tuple[str, str], str] = {}
    found: dict[str, dict[tuple[str, str], dict[str, list[float]]]] = {"empty": {}, "full": {}}
    read: dict[str, list[float]] = {}
    try:
        for peer in members:
            who, precision = peer
            try:
                folder = run.folder(shape, precision) if who == "kiku" else ""
                job = run.job(who=who, precision=precision, shape=shape, folder=folder)
                children[peer] = Child(job)
            except (ChildFailed, KikuError, OSError) as error:
                failed[peer] = str(error)
        for window, taken in found.items():
            run.bandwidths.clear()
            _rounds(run, window, children, failed, taken)
            read[window] = list(run.bandwidths)
    finally:
        for child in children.values():
            child.stop()
    for window, taken in found.items():
        run.bandwidths = read[window]
        _live_rows(run, shape, window, members, taken, failed)


def _rounds(
    run: Run,
    window: str,
    children: dict[tuple[str, str], Child],
    failed: dict[tuple[str, str], str],
    taken: dict[tuple[str, str], dict[str, list[float]]],
) -> None:
    """Everybody's turns, until each has heard as many frames as it should."""

    def ask(peer: tuple[str, str], wanted: dict[str, Any]) -> dict[str, Any]:
        if peer in failed:
            return {}
        try:
            return children[peer].ask(wanted)
        except ChildFailed as error:
            failed[peer] = str(error)
            return {}

    for peer in children:
        if window == "full":
            run.say(f"  {' '.join(peer)} fills its windows")
            ask(peer, {"fill": True})
        ask(peer, {"steps": 5})  # to warm up
    left = run.args.frames
    while left > 0:
        count = min(_ROUND, left)
        left -= count
        for peer in children:
            for part, seconds in ask(peer, {"steps": count}).items():
                taken.setdefault(peer, {}).setdefault(part, []).extend(seconds)
        run.look_at_memory()
        run.say(f"  {window} window: {run.args.frames - left} of {run.args.frames} frames")


def _live_rows(
    run: Run,
    shape: str,
    window: str,
    members: Sequence[tuple[str, str]],
    taken: dict[tuple[str, str], dict[str, list[float]]],
    failed: dict[tuple[str, str], str],
) -> None:
    times = {peer: Times.of(parts["step"]) for peer, parts in taken.items() if peer not in failed}
    ours = [peer for peer in members if peer[0] == "kiku"]
    theirs = [peer for peer in members if peer[0] != "kiku"]
    lm = config_of(shape).lm
    for peer in ours:
        if peer not in times:
            run.add("live", shape=shape, precision=peer[1], streams=1, window=window,
                    ms_per_frame={"kiku": None}, reasons={"kiku": failed.get(peer)})  # fmt: skip
            continue
        ms: dict[str, float | None] = {"kiku": times[peer].median_ms}
        ms |= {who: times[who, p].median_ms if (who, p) in times else None for who, p in theirs}
        decoder = taken[peer].get("decoder")
        decoder_ms = float(np.median(decoder)) * 1000 if decoder else None
        codec = taken[peer].get("codec")
        run.add(
            "live", shape=shape, precision=peer[1], streams=1, window=window,
            peer_precision=theirs[0][1] if theirs else None,
            ms_per_frame=ms,
            ratio_to_transformers=_ratio(ms.get("transformers"), ms["kiku"]),
            ratio_to_moshi=_ratio(ms.get("moshi"), ms["kiku"]),
            times=times[peer].to_dict(),
            peers={" ".join(p): {
                "step": times[p].to_dict(),
                **{part: Times.of(s).median_ms for part, s in taken[p].items() if part != "step"},
            } for p in theirs if p in times},
            codec_ms=round(float(np.median(codec)) * 1000, 2) if codec else None,
            decoder_ms=round(decoder_ms, 2) if decoder_ms else None,
            limit=limit(lm, peer[1], run.bandwidth, key_bits(peer[1])).to_dict(),
            share_of_limit=share_of_limit(
                lm, peer[1], run.bandwidth, decoder_ms, full_window=window == "full",
                key_bits=key_bits(peer[1]),
            ) if decoder_ms else None,
            reasons={" ".join(p): why for p, why in failed.items()},
        )  # fmt: skip


def _ratio(theirs: float | None, ours: float | None) -> float | None:
    return round(theirs / ours, 2) if theirs and ours else None


def streams(run: Run) -> None:
    """kiku with several live streams at once: as many in each precision before there are more."""
    shape = run.args.shape
    for count in run.args.streams:
        for precision in _each("int8", *run.args.also):
            rows = run.streams_part(run.folder(shape, precision), [count])
            _stream_rows(run, shape, precision, rows)


def _each(*precisions: str) -> list[str]:
    """Each of them once, in order."""
    return list(dict.fromkeys(precisions))


def big(run: Run) -> None:
    """The 2.6B, one live stream, in each precision."""
    shape = "tiny" if run.args.shape == "tiny" else "2.6b"
    for precision in _each("int8", "int4", *run.args.also):
        folder = run.folder(shape, precision)
        rows = run.streams_part(folder, [1])
        _stream_rows(run, shape, precision, rows, what="big")


def _stream_rows(
    run: Run, shape: str, precision: str, rows: Sequence[dict[str, Any]], what: str = "streams"
) -> None:
    for row in rows:
        run.add(
            what, shape=shape, precision=precision, streams=row["streams"],
            window="full" if row["past"] else "empty",
            ms_per_frame={"kiku": row["step"]["median_ms"]}, times=row["step"],
            standstills=row["standstills"],
            codec_ms=row["codec"] and row["codec"]["median_ms"],
            decoder_ms=row["decoder"] and row["decoder"]["median_ms"],
        )  # fmt: skip


def block(run: Run) -> None:
    """What a pass over a block costs, and the codec in bulk."""
    shape = run.args.shape
    found = run.part("block", folder=run.folder(shape, "int8"), sizes=SIZES,
                     count=run.args.frames, blocks=max(3, run.args.frames // 10))  # fmt: skip
    run.add("block", shape=shape, precision="int8", streams=1, window="full", **found)


def file(run: Run) -> None:
    """The demo model on real speech, and what its acceptance would give a model of the shape."""
    found = run.part("file", model="demo", precision=None, sizes=SIZES, rounds=3,
                     sounds=[str(path) for path in SOUNDS])  # fmt: skip
    run.add("file", shape="demo", precision="float32", streams=1, **found)
    blocks = next((row for row in reversed(run.rows) if row["what"] == "block"), None)
    accepted = {int(size): got for size, got in found["acceptance"].items() if got}
    if blocks is None or not accepted or blocks["single"]["decoder"] is None:
        return
    by_size = {row["size"]: row for row in blocks["blocks"]}
    # What keeps a stream well is asked after every so many frames: no block is longer.
    used = [size for size in by_size if 1 < size <= CHECK_FRAMES]
    sizes = {size: accepted[size] for size in used if size in accepted}
    single = blocks["single"]

    def pass_ms(size: int) -> float:
        # With every guess right a block takes as few passes as it can.
        return by_size[size]["decoder_ms_per_frame"] * by_size[size]["frames_per_pass"]

    size, ratio = product(single["decoder"]["median_ms"], pass_ms, sizes)
    bulk = 1000 / blocks["codec_bulk"]
    whole = single["step"]["median_ms"] / (pass_ms(size) / sizes[size] + bulk)
    run.add(
        "product", shape=blocks["shape"], precision="int8", block=size,
        frames_per_pass=sizes[size], decoder_ratio=ratio, ratio=round(whole, 2),
        note="cost of single steps against passes, random weights, times the demo's acceptance",
    )  # fmt: skip


def memory(run: Run) -> None:
    """Resident memory with one stream."""
    for precision in _each("int8", "int4", *run.args.also):
        found = subprocesses.memory(run.folder(run.args.shape, precision), threads=run.threads)
        if found is not None:
            run.add("memory", shape=run.args.shape, precision=precision, **found.to_dict())


def start(run: Run) -> None:
    """From the start of a process to its first word: the best of three, with warm files."""
    folder = run.folder(run.args.shape, "int8")
    tries = [subprocesses.start(folder, SOUNDS[0], threads=run.threads) for _ in range(3)]
    best = min(tries, key=lambda one: one.first_word_s or one.first_tokens_s)
    run.add("start", shape=run.args.shape, precision="int8", **best.to_dict())


def soak(run: Run) -> None:
    """Three hours of sound through the demo model, as fast as it goes."""
    hours = 0.02 if run.args.shape == "tiny" else run.args.hours
    found = run.part("soak", model=run.args.soak, precision=None, hours=hours,
                     count=run.args.frames)  # fmt: skip
    run.add("soak", shape=run.args.soak, precision="float32", **found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=("1b", "tiny"), default="1b")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--peers", default="kiku,transformers,moshi", help="for live")
    parser.add_argument(
        "--also", default="", help="precisions of kiku, beside the usual ones, in live, streams, "
        f"big and memory: some of {', '.join(PRECISIONS)}",
    )  # fmt: skip
    parser.add_argument("--frames", type=int, default=200, help="measured, after warm-up")
    parser.add_argument("--streams", default=",".join(map(str, STREAMS)))
    parser.add_argument("--threads", type=int, help="of each process; else all processors")
    parser.add_argument("--hours", type=float, default=3.0, help="of the soak")
    parser.add_argument("--soak", default="demo", help="model of the soak: demo, or a folder")
    parser.add_argument("--keep", type=Path, help="folder for the random weights, kept")
    parser.add_argument("--out", type=Path, default=machine.RESULTS, help="folder for results")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    parser.add_argument("--no-record", action="store_true", help="print only")
    args = parser.parse_args()
    args.only = [part for part in PARTS if part in args.only.split(",")]
    args.peers = args.peers.split(",")
    args.streams = [int(count) for count in args.streams.split(",")]
    args.also = [name for name in args.also.split(",") if name]
    if unknown := [name for name in args.also if name not in PRECISIONS]:
        parser.error(f"there is no precision {', '.join(unknown)}")
    if any(name.endswith("_kv8") for name in args.also) and kernels().library is None:
        parser.error(f"keys of 8 bits need kiku-kernels: {kernels().reason}")
    return args


def main() -> int:
    """Measure, record, and draw; the exit code is 1 if a part failed."""
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children end, too
    failed = 0
    with tempfile.TemporaryDirectory(prefix="kiku-peers-") as scratch:
        run = Run(args, args.keep or Path(scratch))
        for part in args.only:
            run.say(part)
            try:
                globals()[part](run)
            except (KikuError, ChildFailed, OSError, ValueError) as error:
                failed += 1
                run.say(f"{part} failed: {error}")
                run.add("failed", part=part, reason=str(error))
    if args.no_record:
        print(report.table(run.rows))
    else:
        report.write(args.out, args.docs)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
