"""The table of what `gpu.py` measured: every row that was hoped for, or why it is missing."""

from collections.abc import Callable, Sequence
from typing import Any

from gpu_wanted import Wanted

Row = dict[str, Any]

_NO_LINE = ("machine", "failed", "fits", "stopped")


def table(parts: Sequence[Wanted], rows: Sequence[Row]) -> str:
    """Markdown: every row that was hoped for, and what else was measured."""
    lines = ["| what | streams | p50 ms | p99 ms | steps | |", "|---|---|---|---|---|---|"]
    left = [row for row in rows if row["what"] not in _NO_LINE]
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


def _why(part: Wanted, rows: Sequence[Row]) -> str:
    """Why rows of a part are missing."""
    told = [row for row in rows if row.get("part") == part.name]
    fits = [f"{row['streams']} fit" for row in told if row["what"] == "fits"][-1:]
    reasons = [row["why"] for row in told if row["what"] in ("failed", "stopped")]
    missing = "the part ended without it" if told else "its turn did not come"
    return "; ".join(dict.fromkeys(fits + reasons)) or missing


def _line(row: Row, missing: str) -> str:
    """A row's line; `missing` says why there are no numbers."""
    name, streams = _NAMES.get(row["what"], _live_name)(row)
    remarks = [missing] if missing else _REMARKS.get(row["what"], _live_remarks)(row)
    if row.get("graphs") is False and "graphs off" not in name:
        remarks.append("graphs off")
    times = [row.get(key, "") for key in ("p50_ms", "p99_ms", "steps")]
    numbers = " | ".join(str(time) for time in times)
    return f"| {name} | {streams} | {numbers} | {'; '.join(remarks)} |"


def _live_name(row: Row) -> tuple[str, Any]:
    keys = f", keys in {row['kv']}" if "kv" in row else ""
    keys += f", temperature {row['temperature']}" if "temperature" in row else ""
    return f"{row['shape']}, {row['engine']}{keys}", row["streams"]


def _saves_name(row: Row) -> tuple[str, Any]:
    beside = f", {row['savers']} threads save" if row["savers"] else ", nobody saves"
    return f"{row['shape']}, keys in {row['kv']}{beside}", row["streams"]


_NAMES: dict[str, Callable[[Row], tuple[str, Any]]] = {
    "correct": lambda row: (
        f"same tokens as on the processor: {row['model']}, {row['precision']}", ""
    ),
    "attention": lambda row: (
        f"attention of a layer, {row['queries']} a row, keys in {row['keys']}", row["rows"]
    ),
    "saved": lambda row: (f"{row['shape']}, keys in {row['kv']}, saved and restored",
                          row["streams"]),
    "saves": _saves_name,
    "bulk": lambda row: (f"{row['shape']}, recordings, keys in {row['kv']}", row["files"]),
    "acceptance": lambda row: (
        f"{row['shape']}, recordings, keys in {row['kv']}: sound a second", row["files"]
    ),
    "warm": lambda row: (f"kernels compiled: {row['of']}", ""),
}  # fmt: skip
"""By what a row is: how it is called, and of how many streams, rows or files it is."""


def _live_remarks(row: Row) -> list[str]:
    remarks = [f"{row['memory_gb']} GB"] if row.get("memory_gb") else []
    if "beside_rings_gb" in row:
        remarks[-1:] = [
            f"{row['memory_gb']} GB, of which {row['beside_rings_gb']} are no rings (weights take "
            f"{row['weights_gb']}), and {row['outside_gb']} outside of PyTorch"
        ]
    return remarks + ([f"attention: {row['attention']}"] if "attention" in row else [])


def _saves_remarks(row: Row) -> list[str]:
    saved = f"{row['saves']} saves, each {row['save_ms']} ms" if row["savers"] else ""
    return [*filter(None, [saved]), f"attention: {row['attention']}"]


_REMARKS: dict[str, Callable[[Row], list[str]]] = {
    "correct": lambda row: [
        f"{row['same']:.2%} of {row['frames']}", f"attention: {row['attention']}"
    ],
    "attention": lambda row: [
        f"kernel {row['kernel_us']} µs ({row['gb_per_s']} GB/s of what is seen), plain "
        f"{row['plain_us']} µs", f"differ by {row['error']:.1g}"
    ],
    "saved": lambda row: [
        f"{row['megabytes']} MB, the same beside the steps and at once", f"the same tokens in "
        f"another slot for {row['frames']} frames", f"attention: {row['attention']}"
    ],
    "saves": _saves_remarks,
    "bulk": lambda row: [
        f"{row['step_ms']} ms for {row['block']} frames, {row['pass_ms']} ms a further pass",
        f"attention: {row['attention']}"
    ],
    "acceptance": lambda row: [
        f"{row['sound_s_per_s']} s of sound a second, reckoned from {row['accepted']} frames a "
        f"pass (the demo model's; its attention: {row['accepted_by']})"
    ],
    "warm": lambda row: [f"{row['seconds']} s", f"attention: {row['attention']}"],
}  # fmt: skip
"""By what a row is: what else is said of it."""
