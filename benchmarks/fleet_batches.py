"""Batches on a Ray of this machine, two actors of one processor, beside plain processes.

    python benchmarks/fleet_batches.py --data FOLDER            # 20 minutes on two cores
    python benchmarks/fleet_batches.py --only memory --actors 1 # 10 minutes, without FOLDER

FOLDER holds recordings of people (`dev.jsonl`, `train.jsonl`, `speech/`). Needs the extra `fleet`.

Words: 500 short recordings by `kiku transcribe --ray` and by `kiku transcribe`: words, times and
probabilities, and how many recordings differ. Throughput: 800 recordings on Ray and by two
processes that have half of them each, as many slots and one thread, in turn: seconds of sound a
second, on Ray from the first recording that is done to the last, so without the start of either;
and on Ray from when the first recording was begun, though the second actor may begin later.
Memory: 5,000 recordings on Ray, of 1 to 2 s, cut from examples/, each a file of its own name; what
each actor and the driver have in memory at every tenth of them (resident, and of that private and
written to). One line is appended to results/fleet.jsonl; with --no-record it is only printed.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, ROOT, append, stamp
from numpy.typing import NDArray

from kiku.audio import read_chunks

SLOTS = 8
WORDS, THROUGHPUT, MEMORY = 500, 800, 5_000
"""Recordings for each part."""
LONGEST_S = 6.0
CUTS = 60
"""Different ones among the recordings of the third part."""


def recordings(data: Path, count: int) -> list[dict[str, Any]]:
    """Short ones, of all groups."""
    found: list[dict[str, Any]] = []
    for name in ("dev.jsonl", "train.jsonl"):
        rows = map(json.loads, (data / name).read_text().splitlines())
        found += [row for row in rows if row["seconds"] < LONGEST_S]
    step = max(1, len(found) // count)
    return [
        {"path": str((data / row["file"]).resolve()), "duration": row["seconds"]}
        for row in found[::step][:count]
    ]


def short_ones(folder: Path, count: int) -> list[dict[str, Any]]:
    """Cut from examples/: so many names, of `CUTS` different ones of 1 to 2 s."""
    folder.mkdir()
    rate = 16_000
    sounds = [
        np.concatenate(list(read_chunks(path, rate)))
        for path in sorted((ROOT / "examples").glob("*.*"))
        if path.suffix in (".wav", ".mp3", ".flac")
    ]
    random = np.random.default_rng(0)
    found: list[dict[str, Any]] = []
    for number in range(count):
        path = folder / f"{number:05}.wav"
        if number < CUTS:
            sound = sounds[number % len(sounds)]
            length = int(random.integers(rate, 2 * rate))
            first = int(random.integers(0, len(sound) - length))
            write_wav(path, sound[first : first + length], rate)
        else:
            os.link(found[number % CUTS]["path"], path)
        found.append({"path": str(path)})
    return found


def write_wav(path: Path, sound: NDArray[np.float32], rate: int) -> None:
    """In 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((32767 * np.clip(sound, -1, 1)).astype("<i2").tobytes())


def told(*arguments: str) -> str:
    """What the command says."""
    command = [sys.executable, "-m", "kiku", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def rows_in(output: Path) -> list[dict[str, Any]]:
    """All rows."""
    lines = [line for part in output.glob("part-*.jsonl") for line in part.read_text().splitlines()]
    return list(map(json.loads, lines))


def compare_words(sources: Sequence[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """See the top of this file."""
    manifest = folder / "words.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in sources))
    told("transcribe", "--ray", str(manifest), "-o", str(folder / "words"), "--actors", "2",
         "--threads", "1", "--slots", str(SLOTS))  # fmt: skip
    rows = {row["path"]: row for row in rows_in(folder / "words")}
    paths = [row["path"] for row in sources]
    plain = [json.loads(line) for line in
             told("transcribe", *paths, "-f", "json", "--threads", "1").splitlines()]  # fmt: skip
    other_text = [p for p, one in zip(paths, plain, strict=True) if rows[p]["text"] != one["text"]]
    other = [p for p, one in zip(paths, plain, strict=True) if rows[p]["words"] != one["words"]]
    return {
        "recordings": len(paths),
        "rows": len(rows_in(folder / "words")),
        "words": sum(len(row["words"]) for row in rows.values()),
        "other_text": len(other_text),
        "other_times_or_probabilities": len(other),
    }


def memory_mb(pid: int) -> dict[str, int]:
    """What a process has: all that is resident, and of that its own."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kb = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    return {"resident": kb["Rss"] // 1024, "own": kb["Private_Dirty"] // 1024}


def actors_here() -> list[int]:
    """Processes of this Ray's actors: children of children of this process."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
                found.append(int(folder.name))
    return found


def on_ray(
    sources: Sequence[dict[str, Any]], output: Path, actors: int, *, watched: bool
) -> dict[str, Any]:
    """In a process of its own: speed; if it is `watched`, memory, too, which takes a while."""
    from kiku import fleet

    begin = time.monotonic()
    times: list[tuple[float, float]] = []
    since_begun = 0.0
    memory: dict[str, dict[str, dict[str, int]]] = {}

    def note(progress: fleet.Progress) -> None:
        nonlocal since_begun
        if not progress.files:
            return
        since_begun = progress.speed
        times.append((time.monotonic(), progress.seconds))
        # At the very end an actor that has nothing left to do goes.
        is_tenth = progress.files % max(1, progress.of // 10) == 0
        if watched and (is_tenth or progress.files == progress.of - 20):
            now = {f"actor {i}": memory_mb(pid) for i, pid in enumerate(sorted(actors_here()))}
            memory[f"{progress.files} recordings"] = {"driver": memory_mb(os.getpid()), **now}
            print(progress.files, memory[f"{progress.files} recordings"], file=sys.stderr)

    model = fleet.ModelSettings(threads=1, slots=SLOTS)
    fleet.transcribe(sources, output, model=model, run=fleet.Run(actors=actors), on_progress=note)
    (first_at, first_s), (last_at, last_s) = times[0], times[-1]
    return {
        "speed": (last_s - first_s) / (last_at - first_at),
        "speed_since_begun": since_begun,
        "until_first_s": first_at - begin,
        "whole_s": time.monotonic() - begin,
        "memory_mb": memory,
    }


def plainly(sources: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One process of two: its model is loaded, then it waits for a line, and hears all it has."""
    from kiku import load

    recognizer = load("demo", slots=SLOTS, threads=1)
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.monotonic()
    heard = recognizer.transcribe([row["path"] for row in sources])
    return {"took_s": time.monotonic() - begin, "sound_s": sum(one.duration for one in heard)}


def child(name: str, sources: Sequence[dict[str, Any]], folder: Path, actors: int = 2) -> Any:
    """A process that runs one of the functions above."""
    job = folder / f"{name}-{time.monotonic_ns()}.json"
    wanted = {"sources": sources, "output": str(job.with_suffix("")), "actors": actors}
    job.write_text(json.dumps(wanted))
    command = [sys.executable, __file__, "--child", name, "--job", str(job)]
    # Ray's processes are 15 steps nicer than others by default, and would wait for those.
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "RAY_worker_niceness": "0"},
    )  # fmt: skip


def two_plain(sources: Sequence[dict[str, Any]], folder: Path) -> float:
    """Seconds of sound a second of two processes."""
    both = [child("plain", sources[i::2], folder) for i in range(2)]
    for one in both:
        assert one.stdout.readline() == "ready\n"
    for one in both:
        one.stdin.write("go\n")
        one.stdin.flush()
    said = [json.loads(one.communicate()[0]) for one in both]
    return sum(one["sound_s"] for one in said) / max(one["took_s"] for one in said)


def throughput(sources: Sequence[dict[str, Any]], folder: Path, rounds: int) -> dict[str, Any]:
    """See the top of this file."""
    plain, ray = list[float](), list[dict[str, Any]]()
    for row in sources:
        Path(row["path"]).read_bytes()  # else the first round waits for the disk
    for _ in range(rounds):
        plain.append(two_plain(sources, folder))
        ray.append(json.loads(child("ray", sources, folder).communicate()[0]))
        print(f"plain {plain[-1]:.1f}, ray {ray[-1]}", file=sys.stderr, flush=True)
    best = max(ray, key=lambda one: one["speed"])
    return {
        "recordings": len(sources),
        "sound_s": round(sum(row["duration"] for row in sources)),
        "plain": [round(one, 1) for one in plain],
        "ray": [round(one["speed"], 1) for one in ray],
        "ray_since_begun": [round(one["speed_since_begun"], 1) for one in ray],
        "ratios": [round(r["speed"] / p, 3) for r, p in zip(ray, plain, strict=True)],
        "best_of_each": round(best["speed"] / max(plain), 3),
        "until_first_s": round(best["until_first_s"], 1),
    }


def memory_of(folder: Path, actors: int) -> dict[str, Any]:
    """See the top of this file."""
    sources = short_ones(folder / "short", MEMORY)
    said = json.loads(child("memory", sources, folder, actors).communicate()[0])
    return {
        "recordings": len(sources),
        "actors": actors,
        "whole_s": round(said["whole_s"]),
        "mb": said["memory_mb"],
    }


def as_child(name: str, job: Path) -> None:
    """Run one of the functions above, and print what it gives."""
    wanted = json.loads(job.read_text())
    work: Callable[[], dict[str, Any]] = (
        (lambda: plainly(wanted["sources"]))
        if name == "plain"
        else (
            lambda: on_ray(
                wanted["sources"],
                Path(wanted["output"]),
                wanted["actors"],
                watched=name == "memory",
            )
        )
    )
    print(json.dumps(work()), flush=True)


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder of recordings")
    parser.add_argument("--only", choices=("words", "throughput", "memory"), help="one part")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--actors", type=int, default=2, help="of the part about memory")
    parser.add_argument("--no-record", action="store_true", help="print only")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        as_child(given.child, given.job)
        return
    if given.data is None and given.only != "memory":
        parser.error("--data names the folder of recordings")
    row: dict[str, Any] = {**stamp(), "slots": SLOTS}
    with tempfile.TemporaryDirectory() as folder:
        if given.only in (None, "words"):
            row["words"] = compare_words(recordings(given.data, WORDS), Path(folder))
        if given.only in (None, "throughput"):
            sources = recordings(given.data, THROUGHPUT)
            row["throughput"] = throughput(sources, Path(folder), given.rounds)
        if given.only in (None, "memory"):
            row["memory"] = memory_of(Path(folder), given.actors)
    print(json.dumps(row, indent=2))
    if not given.no_record:
        append(RESULTS / "fleet.jsonl", row)


if __name__ == "__main__":
    main()
