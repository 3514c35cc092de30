"""How big the precisions are, and how far from float32: sizes, layers, words, keys.

    python benchmarks/precision.py --data FOLDER         # about 10 minutes on two cores

Sizes are those of the converted files. Layers: the same columns go through a decoder of the 1B's
shape with random weights, in float32 and with every matrix replaced by what its blocks of 8 or 4
bits stand for; what counts is the relative error of the residual stream behind each layer, and of
the logits. Then the graphs themselves are run, which round what is multiplied to 8 bits as well.
Words: the demo model hears strings of people whom it never heard (those of decoding.py; FOLDER is
the same), in each precision. Keys: the same strings with keys and values of 16 and of 8 bits, which
only kiku-kernels has. Codes: how many of the codec's are not those of float32. Words and
codes go through kiku-kernels where they are installed; graphs that are changed first (layers, and
codes of rounded weights only) always through ONNX Runtime's own operators.

One line for each part is appended to results/precision.jsonl; from the latest of each come the
tables and the picture in docs/precision.md. With --no-record all is only printed; --page measures
nothing and writes the page. How fast the precisions are is peers.py's business.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import decoding
import machine
import numpy as np
import onnx
import report
import torch
from numpy.typing import NDArray

from kiku import Recognizer, load
from kiku.checkpoint.model_shapes import SHAPES, random_weights
from kiku.checkpoint.tensor_shapes import lm_shapes
from kiku.config import LMConfig, ModelConfig
from kiku.converted import convert
from kiku.engine import SlotEngine
from kiku.engine.kernels import ONNX_RUNTIME, kernels
from kiku.engine.networks import WIDTH, OnnxDecoder
from kiku.engine.onnx import onnx_engine
from kiku.evaluate.aligning import word_errors
from kiku.graph import (
    CODEC_GRAPH,
    DECODER_GRAPH,
    Weights,
    code_offsets,
    empty_row,
    write_codec,
    write_decoder,
)
from kiku.graph.layers import block_size_for
from kiku.graph.quantise import quantise, quantise_rows
from kiku.nn.transformer import RMSNorm, Transformer

DOCS = Path(__file__).parent.parent / "docs"
POSITIONS = 64
STRINGS = 200
LEVELS = {"as recorded": None, "noise at 10 dB": 10.0}
PARTS = ("sizes", "layers", "words", "keys", "codes")
WEIGHTS = ("float32", "int8", "int4")
"""The precisions of weights; others have the same weights, and keys and values in fewer bits."""

ORT = "ONNX Runtime"
"""The operators of a row that names none: it is older than kiku-kernels."""

KINDS: tuple[str, ...] = (
    "embeddings",
    "attention in",
    "attention out",
    "gate",
    "up",
    "down",
    "text head",
)
"""Kinds of matrices; gate and up are the two halves of one."""

MIXTURES = {
    "int4, attention in 8 bits": ("attention in", "attention out"),
    "int4, feed-forward in 8 bits": ("gate", "up", "down"),
}
"""What might be done, should int4 be too rough for a model."""

Bits = Mapping[str, int]
"""Of each kind."""

Array = NDArray[np.float32]


def ways() -> dict[str, Bits]:
    """The precisions, as the graphs have them, and what they do not do: each kind alone in 4 bits,
    all of them, and mixtures."""
    whole = dict.fromkeys(KINDS, 32)
    fours = dict.fromkeys(KINDS, 4)
    int4 = {**fours, "embeddings": 8, "text head": 8}
    return {
        "float32": whole,
        "int8": dict.fromkeys(KINDS, 8),
        "int4": int4,
        "all": fours,
        **{mixture: {**int4, **dict.fromkeys(kinds, 8)} for mixture, kinds in MIXTURES.items()},
        **{kind: {**whole, kind: 4} for kind in KINDS},
    }


def restored(matrix: Array, bits: int) -> Array:
    """What the graphs multiply by instead of a matrix [N, K]."""
    if bits == 32:
        return matrix
    width = matrix.shape[1]
    return quantise(matrix, bits, block_size_for(width)).restored(width)


def restored_rows(table: Array, bits: int) -> Array:
    """What the graphs add up instead of an embedding table; 4 bits, which they do not use, are in
    blocks."""
    if bits != 8:
        return restored(table, bits)
    packed, scales = quantise_rows(table)
    return (packed.astype(np.float32) - 128) * scales


def decoder_bytes(config: LMConfig, precision: str) -> tuple[int, int]:
    """Of all weights of a converted decoder, and of those that every step reads (of embeddings it
    needs a few rows only)."""
    bits = ways()[precision]
    width = config.transformer.dim
    table = (empty_row(config) + 1) * (width * 4 if bits["embeddings"] == 32 else width + 4)
    read = 0
    for name, shape in lm_shapes(config).items():
        if "embedding" in name:
            continue
        if len(shape) == 1 or "pause" in name or precision == "float32":
            read += 4 * math.prod(shape)
            continue
        rows, width = shape
        size = block_size_for(width)
        each = bits["text head" if "text_head" in name else "down"]
        read += rows * -(-width // size) * (size * each // 8 + 4)
    return table + read, read


def sizes(folder: Path) -> dict[str, Any]:
    """Megabytes of the published shapes, whose codec is the same, and of the demo model."""
    config = SHAPES["1b"].codec
    codec, _ = random_weights(SHAPES["1b"])
    codec_mb: dict[str, float] = {}
    for precision in WEIGHTS:
        write_codec(folder, config, codec, precision)
        codec_mb[precision] = _mb(file_bytes(folder))
    rows: dict[str, Any] = {}
    for name, config in SHAPES.items():
        rows[name] = {}
        for precision in WEIGHTS:
            decoder, read = decoder_bytes(config.lm, precision)
            rows[name][precision] = {
                "codec_mb": codec_mb[precision], "decoder_mb": _mb(decoder),
                "read_a_step_mb": _mb(read),
            }  # fmt: skip
    rows["demo"] = {}
    for precision in WEIGHTS:
        made = convert("demo", precision=precision, folder=folder / precision)
        decoder = file_bytes(made.folder, DECODER_GRAPH)
        _, read = decoder_bytes(made.config.lm, precision)
        rows["demo"][precision] = {
            "codec_mb": _mb(file_bytes(made.folder, CODEC_GRAPH)), "decoder_mb": _mb(decoder),
            "read_a_step_mb": _mb(read),
        }  # fmt: skip
    return {"sizes": rows}


def file_bytes(folder: Path, name: str = "*") -> int:
    """Of a folder's graphs and their data."""
    return sum(p.stat().st_size for end in ("onnx", "data") for p in folder.glob(f"{name}.{end}"))


def _mb(size: int) -> float:
    return round(size / 1e6, 2)


def random_columns(config: LMConfig, count: int) -> NDArray[np.int64]:
    """[count, 1 + K]: the initial column, and then any text and any codes."""
    random = np.random.default_rng(3)
    columns = random.integers(0, config.codebook_size, (count, 1 + config.num_codebooks))
    columns[:, 0] = random.integers(0, config.text_vocab_size, count)
    columns[0] = config.initial_code
    columns[0, 0] = config.initial_text_id
    return columns


@torch.inference_mode()
def computed(
    config: LMConfig,
    weights: Weights,
    columns: NDArray[np.int64],
    kept: Mapping[str, Bits],
    seen: Callable[[str, str, Array], None],
) -> None:
    """Run the decoder in several ways side by side, layer by layer: so only one layer's weights are
    in memory, and each matrix is put into blocks once.

    Args:
        config: of the decoder; without layer scales, as all published ones are.
        weights: its tensors.
        columns: [T, 1 + K] of a slot that is new.
        kept: bits of each kind, by the name of the way.
        seen: is given the name of a way, of a place ("layer 1" and on, "logits") and what is there.
    """
    streams = _embedded(config, weights, columns, kept)
    transformer = Transformer(replace(config.transformer, num_layers=1)).eval()
    active = torch.ones(1, dtype=torch.bool)
    for i in range(config.transformer.num_layers):
        tensors, matrices = _layer(weights, f"transformer.layers.{i}.", kept)
        for way, bits in kept.items():
            chosen = {kind: matrices[kind, bits[kind]] for kind in KINDS[1:-1]}
            tensors |= {
                "attention.in_proj.weight": chosen["attention in"],
                "attention.out_proj.weight": chosen["attention out"],
                "feed_forward.linear_in.weight": torch.cat([chosen["gate"], chosen["up"]]),
                "feed_forward.linear_out.weight": chosen["down"],
            }
            transformer.layers[0].load_state_dict(tensors, assign=True)
            state = transformer.init_state(1, "cpu", torch.float32, remember=False)
            streams[way] = transformer(streams[way], state, active)
            seen(way, f"layer {i + 1}", streams[way][0].numpy())
    norm = RMSNorm(config.transformer.dim, config.transformer.norm_eps)
    norm.load_state_dict({"weight": torch.from_numpy(weights("out_norm.weight"))})
    matrix = weights("text_head.weight")
    for bits in sorted({bits["text head"] for bits in kept.values()}, reverse=True):
        head = torch.from_numpy(restored(matrix, bits))
        for way in (way for way in kept if kept[way]["text head"] == bits):
            seen(way, "logits", (norm(streams[way])[0] @ head.T).numpy())


def _embedded(
    config: LMConfig, weights: Weights, columns: NDArray[np.int64], kept: Mapping[str, Bits]
) -> dict[str, torch.Tensor]:
    names = ["text_embedding", *(f"code_embeddings.{k}" for k in range(config.num_codebooks))]
    sums = {
        bits: np.zeros((len(columns), config.transformer.dim), np.float32)
        for bits in {bits["embeddings"] for bits in kept.values()}
    }
    for k, name in enumerate(names):
        table = weights(f"{name}.weight")
        for bits, total in sums.items():
            total += restored_rows(table[columns[:, k]], bits)  # a row does not know the others
    return {way: torch.from_numpy(sums[bits["embeddings"]])[None] for way, bits in kept.items()}


def _layer(
    weights: Weights, prefix: str, kept: Mapping[str, Bits]
) -> tuple[dict[str, torch.Tensor], dict[tuple[str, int], torch.Tensor]]:
    """A layer's norms, and its matrices by kind and bits."""
    gate, up = np.split(weights(f"{prefix}feed_forward.linear_in.weight"), 2)
    whole = {
        "attention in": weights(f"{prefix}attention.in_proj.weight"),
        "attention out": weights(f"{prefix}attention.out_proj.weight"),
        "gate": gate,
        "up": up,
        "down": weights(f"{prefix}feed_forward.linear_out.weight"),
    }
    matrices = {
        (kind, bits): torch.from_numpy(restored(matrix, bits))
        for kind, matrix in whole.items()
        for bits in {way[kind] for way in kept.values()}
    }
    norms = (f"norm{half}.weight" for half in (1, 2))
    return {name: torch.from_numpy(weights(prefix + name)) for name in norms}, matrices


def lay_open(path: Path, config: LMConfig, *, products_in_float: bool = False) -> list[str]:
    """Change a decoder's graph so that it gives the residual stream behind each layer as well.

    Args:
        path: of the graph; its data stay as they are.
        config: of the decoder.
        products_in_float: take what is multiplied as it is, rather than in 8 bits.

    Returns:
        the names of the outputs.
    """
    model = onnx.load(str(path), load_external_data=False)
    added = [node.output[0] for node in model.graph.node if node.op_type == "Add"]
    assert len(added) == 2 * config.transformer.num_layers
    for name in added[1::2]:
        shape = ["R", config.transformer.dim]
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        )
    if products_in_float:
        take_products_in_float(model)
    path.write_bytes(model.SerializeToString())
    return added[1::2]


def take_products_in_float(model: onnx.ModelProto) -> None:
    """What is multiplied is taken as it is, rather than in 8 bits."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1


def run(
    folder: Path, config: ModelConfig, columns: NDArray[np.int64], places: Sequence[str]
) -> dict[str, Array]:
    """What ONNX Runtime has behind each layer, and the logits."""
    decoder = OnnxDecoder(folder, config, 1, 1, ONNX_RUNTIME)  # whose graph was laid open
    parts: list[list[Array]] = []
    for at in range(0, len(columns), WIDTH):
        part = columns[at : at + WIDTH] + code_offsets(config.lm)
        layout = decoder.memory.layout(np.zeros(1, np.int64), np.array([len(part)]))
        given = decoder.run(layout, {"columns": part}, (*places, "logits"))
        parts.append([one.copy() for one in given])
        decoder.memory.position[0] += len(part)
    names = [*(f"layer {i + 1}" for i in range(len(places))), "logits"]
    joined = (np.concatenate(part) for part in zip(*parts, strict=True))
    return dict(zip(names, joined, strict=True))


def relative(given: Array, right: Array) -> float:
    """The error's length, in parts of the length of what is right."""
    wide = right.astype(np.float64)
    return round(float(np.linalg.norm(given - wide) / np.linalg.norm(wide)), 6)


def layers(shape: str, folder: Path) -> dict[str, Any]:
    """Relative errors behind each layer and of the logits, by precision and by kind."""
    config = SHAPES[shape]
    _, weights = random_weights(config)
    columns = random_columns(config.lm, POSITIONS)
    right: dict[str, Array] = {}
    found: dict[str, dict[str, float]] = {way: {} for way in ways()}
    same: dict[str, float] = {}

    def seen(way: str, place: str, given: Array) -> None:
        if way == "float32":
            right[place] = given.copy()
        found[way][place] = relative(given, right[place])
        if place == "logits":
            same[way] = float((given.argmax(-1) == right[place].argmax(-1)).mean())
            print(f"{way:28} {found[way]['layer 1']:.5f} {found[way][place]:.5f}", flush=True)

    computed(config.lm, weights, columns, ways(), seen)
    as_run: dict[str, dict[str, float]] = {}
    for precision in WEIGHTS[1:]:
        inside = folder / precision
        inside.mkdir()
        write_decoder(inside, config.lm, weights, precision)
        written = (inside / f"{DECODER_GRAPH}.data").stat().st_size
        assert 0 <= written / decoder_bytes(config.lm, precision)[0] - 1 < 0.01
        places = lay_open(inside / f"{DECODER_GRAPH}.onnx", config.lm)
        given = run(inside, config, columns, places)
        as_run[precision] = {place: relative(given[place], right[place]) for place in right}
        likeliest = given["logits"].argmax(-1) == right["logits"].argmax(-1)
        same[f"{precision}, as run"] = float(likeliest.mean())
        print(f"{precision}, as run   {as_run[precision]['logits']:.5f}", flush=True)
        for file in inside.iterdir():
            file.unlink()
    del found["float32"], same["float32"]
    return {
        "shape": shape, "operators": ORT, "positions": POSITIONS, "weights": "random",
        "weights_only": {way: found[way] for way in ("int8", "int4")},
        "as_run": as_run,
        "in_4_bits": {way: found[way]["logits"] for way in ("all", *KINDS)},
        "mixtures": {way: found[way]["logits"] for way in MIXTURES},
        "same_likeliest_token": same,
    }  # fmt: skip


def heard(data: Path, count: int) -> Iterator[tuple[str, list[Array], list[list[str]]]]:
    """Levels of noise, with the sounds at each and what is said in them."""
    noises = [decoding.sound_of(path) for path in sorted((data / "noise/noise").glob("*.wav"))]
    made = decoding.strings(data, count)
    for level, below in LEVELS.items():
        sounds = [
            sound if below is None else decoding.noisy(sound, noises, below, i)
            for i, (sound, _) in enumerate(made)
        ]
        yield level, sounds, [one for _, one in made]


def keys(data: Path, count: int = STRINGS) -> dict[str, Any]:
    """Wrong words of the demo model with keys and values of 16 and of 8 bits, and how many tokens
    differ; the codes are the same."""
    names = [*WEIGHTS[1:], *(f"{name}_kv8" for name in WEIGHTS[1:])]
    models = {name: load("demo", engine="onnx", dtype=name, slots=8) for name in names}
    rows: dict[str, Any] = {}
    for level, sounds, said in heard(data, count):
        first = models[names[0]]
        codes = decoding.encoded(first.scheduler.engine, sounds, first.config.frame_size)
        texts = {name: tokens(one.scheduler.engine, codes) for name, one in models.items()}
        rows[level] = {
            name: {
                "words": sum(map(len, said)),
                "wrong": wrong_words(first, said, texts[name]),
                "wrong_kv8": wrong_words(first, said, texts[f"{name}_kv8"]),
                "tokens": sum(map(len, texts[name])),
                "other_tokens": sum(
                    int(np.not_equal(*pair).sum())
                    for pair in zip(texts[name], texts[f"{name}_kv8"], strict=True)
                ),
            }
            for name in WEIGHTS[1:]
        }
        print(level, rows[level], flush=True)
    return {
        "model": "demo", "operators": operators(), "strings": count, "speakers": "never heard",
        "levels": rows,
    }  # fmt: skip


def words(data: Path, count: int = STRINGS) -> dict[str, Any]:
    """Word error rates of the demo model, and how many of its codes and tokens are not those of
    float32; and the same with the codes of float32, which leaves the decoder's part."""
    models = {name: load("demo", engine="onnx", dtype=name, slots=8) for name in WEIGHTS}
    rows: dict[str, Any] = {}
    for level, sounds, said in heard(data, count):
        rows[level] = {}
        right_codes: list[NDArray[np.int64]] = []
        right: list[int] = []
        for precision, model in models.items():
            engine = model.scheduler.engine
            codes = decoding.encoded(engine, sounds, model.config.frame_size)
            right_codes = right_codes or codes
            texts = tokens(engine, codes)
            by_right_codes = tokens(engine, right_codes)
            flat = [token for one in texts for token in one]
            right = right or flat
            other_codes = np.concatenate(codes) != np.concatenate(right_codes)
            wrong = wrong_words(model, said, texts)
            rows[level][precision] = {
                "words": sum(map(len, said)), "wrong": wrong,
                "word_error_rate": round(wrong / sum(map(len, said)), 4),
                "tokens": len(flat), "other_tokens": int(np.not_equal(flat, right).sum()),
                "codes": other_codes.size, "other_codes": int(other_codes.sum()),
                "other_first_codes": round(float(other_codes[:, 0].mean()), 4),
                "wrong_with_codes_of_float32": wrong_words(model, said, by_right_codes),
            }  # fmt: skip
            print(level, precision, rows[level][precision], flush=True)
    return {
        "model": "demo", "operators": operators(), "strings": count, "speakers": "never heard",
        "levels": rows,
    }  # fmt: skip


def wrong_words(model: Recognizer, said: Sequence[list[str]], texts: Sequence[list[int]]) -> int:
    """Substitutions, deletions and insertions in all strings."""
    heard = [model.vocabulary.decode(one).split() for one in texts]
    return sum(word_errors(*pair) for pair in zip(said, heard, strict=True))


def tokens(engine: SlotEngine, codes: Sequence[NDArray[np.int64]]) -> list[list[int]]:
    """What the decoder writes for the codes of each sound, apart from all others."""
    texts: list[list[int]] = []
    for one in codes:
        slot, out = engine.open()
        said = out.tokens.tolist()
        for at in range(0, len(one), engine.max_block):
            block = one[at : at + engine.max_block]
            said += engine.decode([slot], block, [len(block)]).tokens.tolist()
        engine.close(slot)
        texts.append(said)
    return texts


def codes(data: Path, folder: Path) -> dict[str, Any]:
    """Shares of the demo model's codes that are not those of float32, by codebook: as it is run,
    and if only the weights are rounded, not what they are multiplied by."""
    sounds = [sound for sound, _ in decoding.strings(data, 32)]
    right: NDArray[np.int64] | None = None
    rows: dict[str, Any] = {}
    for way, precision in (("float32", "float32"), ("int8", "int8"), ("weights only", "int8")):
        made = convert("demo", precision=precision, folder=folder / way)
        used = kernels()
        if way == "weights only":
            used = ONNX_RUNTIME  # the operators of kiku-kernels round to 8 bits always
            path = made.folder / f"{CODEC_GRAPH}.onnx"
            model = onnx.load(str(path), load_external_data=False)
            take_products_in_float(model)
            path.write_bytes(model.SerializeToString())
        engine = onnx_engine(made.folder, made.config, slots=decoding.SLOTS, threads=1, used=used)
        given = np.concatenate(decoding.encoded(engine, sounds, made.config.frame_size))
        right = given if right is None else right
        rows[way] = [round(float(share), 4) for share in (given != right).mean(axis=0)]
    return {
        "model": "demo", "operators": operators(), "strings": len(sounds), "other_codes": rows,
    }  # fmt: skip


def operators() -> str:
    """Whose operators run words and codes here, with the instructions of kiku's."""
    processor = kernels().processor
    return f"kiku-kernels ({processor})" if processor else ORT


def latest(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The last row of each part."""
    return {row["what"]: row for row in rows}


def tables(rows: Sequence[dict[str, Any]], peers: Sequence[dict[str, Any]] = ()) -> str:
    """What stands in the page."""
    found = latest(rows)
    lines: list[str] = []
    if "sizes" in found:
        lines += [*_size_table(found["sizes"], peers), ""]
    if "words" in found:
        lines += [*_word_table(found["words"]), ""]
    if "keys" in found:
        lines += [*_keys_table(found["keys"]), ""]
    if "layers" in found:
        row = found["layers"]
        lines += [f"![relative error behind each layer of the {row['shape']}](precision.svg)", ""]
        lines += [*_layer_table(row), "", *_kind_table(row), ""]
    for row in (found[part] for part in PARTS if part in found):
        versions = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
        ran = "" if row["what"] == "sizes" else f"operators of {row.get('operators', ORT)}, "
        lines.append(
            f"{row['what'].capitalize()}: {ran}{row['date']}, commit {row['commit']}, "
            f"{row['machine']}; {versions}."
        )
        lines.append("")
    return "\n".join(lines).rstrip()


def _size_table(row: dict[str, Any], peers: Sequence[dict[str, Any]]) -> list[str]:
    """Sizes, and the speed of a live stream where peers.py has measured it."""
    live = {
        (one["shape"], one["precision"]): one
        for one in peers
        if one["what"] == "live" and one["window"] == "full" and one["ms_per_frame"].get("kiku")
    }
    lines = ["| model | precision | on the disk | of it the decoder | read by a step |"]
    lines[0] += " ms a frame |" if live else ""
    lines.append("|---|---|---|---|---|" + ("---|" if live else ""))
    for model, sizes in row["sizes"].items():
        for precision, size in sizes.items():
            whole = size["codec_mb"] + size["decoder_mb"]
            cells = [model, precision, *map(_megabytes, (whole, size["decoder_mb"]))]
            cells.append(_megabytes(size["read_a_step_mb"]))
            if live:
                one = live.get((model, precision))
                cells.append(f"{one['ms_per_frame']['kiku']:.1f}" if one else "")
            lines.append(f"| {' | '.join(cells)} |")
    if live:
        last = list(live.values())[-1]
        lines += [
            "",
            f"Milliseconds: one live stream, full windows, {last['machine']}, "
            f"{last['threads']} threads ({last['date']}, commit {last['commit']}).",
        ]
    return lines


def _megabytes(size: float) -> str:
    return (
        f"{size / 1000:.2f} GB"
        if size >= 1000
        else f"{size:.0f} MB"
        if size >= 50
        else f"{size:.1f} MB"
    )


def _word_table(row: dict[str, Any]) -> list[str]:
    lines = [
        "| people never heard | precision | word error rate | against float32 | other codes "
        "| other tokens | wrong words if the codec is float32 |",
        "|---|---|---|---|---|---|---|",
    ]
    for level, by_precision in row["levels"].items():
        base = by_precision["float32"]["wrong"]
        for precision, one in by_precision.items():
            rate = f"{100 * one['word_error_rate']:.1f} % ({one['wrong']} of {one['words']})"
            cells = [level, precision, rate, "", "", "", ""]
            if precision != "float32":
                cells[3:] = [
                    f"{100 * (one['wrong'] - base) / one['words']:+.1f} points",
                    _percent(one["other_codes"] / one["codes"]),
                    _percent(one["other_tokens"] / one["tokens"]),
                    str(one["wrong_with_codes_of_float32"]),
                ]
            lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |"))
    return lines


def _keys_table(row: dict[str, Any]) -> list[str]:
    lines = [
        "| people never heard | weights | wrong words, keys of 16 bits | of 8 | other tokens |",
        "|---|---|---|---|---|",
    ]
    for level, by_weights in row["levels"].items():
        for name, one in by_weights.items():
            cells = [level, name, f"{one['wrong']} of {one['words']}", str(one["wrong_kv8"])]
            cells.append(_percent(one["other_tokens"] / one["tokens"]))
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _layer_table(row: dict[str, Any]) -> list[str]:
    ways = [
        row["weights_only"]["int8"], row["as_run"]["int8"],
        row["weights_only"]["int4"], row["as_run"]["int4"],
    ]  # fmt: skip
    lines = [
        "| behind | int8, weights only | int8, as it is run | int4, weights only "
        "| int4, as it is run |",
        "|---|---|---|---|---|",
    ]
    for place in ways[0]:
        lines.append(f"| {place} | {' | '.join(_percent(way[place]) for way in ways)} |")
    return lines


def _kind_table(row: dict[str, Any]) -> list[str]:
    lines = ["| in 4 bits, all else in float32 | error of the logits |", "|---|---|"]
    alone = sorted(row["in_4_bits"].items(), key=lambda item: item[1])
    lines += [f"| {kind} | {_percent(error)} |" for kind, error in alone]
    int4 = row["weights_only"]["int4"]["logits"]
    mixed = {"int4": int4, **row["mixtures"]}
    lines += ["", "| mixture | error of the logits |", "|---|---|"]
    return lines + [f"| {way} | {_percent(error)} |" for way, error in mixed.items()]


def _percent(part: float) -> str:
    return f"{100 * part:.2f} %"


def draw(row: dict[str, Any], path: Path) -> None:
    """Errors behind each layer, and those of each kind alone."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "kiku"  # the same picture, the same file
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for precision, color in (("int4", "#c53030"), ("int8", "#2b6cb0")):
        for way, style in (("as_run", "-"), ("weights_only", ":")):
            errors = [100 * error for error in row[way][precision].values()]
            called = f"{precision}, {'as it is run' if way == 'as_run' else 'weights only'}"
            left.plot(range(1, len(errors)), errors[:-1], style, color=color, label=called)
            left.plot(len(errors), errors[-1], "o", color=color, ms=3)
    left.set_yscale("log")
    left.set_yticks([], minor=True)
    left.set_yticks(ticks := [2, 5, 10, 20, 50], [str(tick) for tick in ticks])
    left.set_xlabel("behind layer (dots: logits)")
    left.set_ylabel("relative error, %")
    left.legend(frameon=False, fontsize=8)
    alone = sorted(row["in_4_bits"].items(), key=lambda item: item[1])
    right.barh(range(len(alone)), [100 * error for _, error in alone], color="#9db8d2")
    right.set_yticks(range(len(alone)), [kind for kind, _ in alone])
    right.set_xlabel("error of the logits, %: this in 4 bits, all else in float32")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def write_page(results: Path, docs: Path) -> None:
    """Put tables and picture into docs."""
    rows = _rows(results / "precision.jsonl")
    page = docs / "precision.md"
    page.write_text(report.filled(page.read_text(), tables(rows, _rows(results / "peers.jsonl"))))
    if "layers" in (found := latest(rows)):
        draw(found["layers"], docs / "precision.svg")


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder of recordings, for words")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts: {', '.join(PARTS)}")
    parser.add_argument("--strings", type=int, default=STRINGS, help="how many, for words")
    parser.add_argument("--shape", default="1b", choices=SHAPES, help="whose layers")
    parser.add_argument("--no-record", action="store_true", help="print only")
    parser.add_argument("--page", action="store_true", help="write the page, measure nothing")
    given = parser.parse_args()
    parts = [] if given.page else given.only.split(",")
    if {"words", "keys", "codes"} & set(parts) and given.data is None:
        parser.error("words, keys and codes need --data")
    if "keys" in parts and kernels().library is None:
        parser.error(f"keys of 8 bits need kiku-kernels: {kernels().reason}")
    rows: list[dict[str, Any]] = []
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            if part == "words":
                measured = words(given.data, given.strings)
            elif part == "keys":
                measured = keys(given.data, given.strings)
            elif part == "codes":
                measured = codes(given.data, Path(folder))
            elif part == "sizes":
                measured = sizes(Path(folder))
            else:
                measured = layers(given.shape, Path(folder))
        rows.append({"what": part, **machine.stamp(), **measured})
        if not given.no_record:
            machine.append(machine.RESULTS / "precision.jsonl", rows[-1])
    print(tables(rows))
    if not given.no_record:
        write_page(machine.RESULTS, DOCS)


if __name__ == "__main__":
    main()
