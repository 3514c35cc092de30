"""The torch engine beside transformers' `generate`: same weights, same sound, same tokens, in turn
in one run.

    python benchmarks/against_transformers.py --shape 1b --frames 100

Writes random weights with transformers, loads them with both, checks that the tokens agree as far
as bfloat16 lets them, and times whole transcriptions (codec and decoder) A B A B. What counts is
the ratio.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import machine
import numpy as np
import torch
import transformers

import kiku

SHAPES = {
    "tiny": dict(
        vocab_size=101, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, ffn_dim=704
    ),
    "1b": dict(
        vocab_size=8001,
        hidden_size=2048,
        num_hidden_layers=16,
        num_attention_heads=16,
        ffn_dim=11264,
    ),
}
WINDOW = 750


def write_checkpoint(folder: Path, shape: str) -> None:
    """Random bfloat16 weights (the codec's in float32) in transformers' layout."""
    numbers = SHAPES[shape]
    vocab = numbers["vocab_size"]
    config = transformers.KyutaiSpeechToTextConfig(
        **numbers,
        sliding_window=WINDOW,
        max_position_embeddings=4096,
        audio_pad_token_id=vocab + 32 * 2049,
        bos_token_id=vocab - 1,
        pad_token_id=3,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        codec_config={"model_type": "mimi", "sliding_window": 250},
    )
    torch.manual_seed(0)
    model = transformers.KyutaiSpeechToTextForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.lm_head.weight[-1] = 0
        for name, buffer in model.codec_model.named_buffers():
            if "embed_sum" in name:
                buffer.normal_(0, 0.5)
            elif "cluster_usage" in name:
                buffer.fill_(1.0)
    model.model.to(torch.bfloat16)
    model.lm_head.to(torch.bfloat16)
    model.save_pretrained(folder)
    transformers.KyutaiSpeechToTextFeatureExtractor(audio_delay_seconds=0.5).save_pretrained(folder)
    pieces = [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["<pad>", 0.0]]
    pieces += [[f"\u2581w{i}", -1.0] for i in range(vocab - 5)]
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram

    Tokenizer(Unigram([tuple(p) for p in pieces], 0, False)).save(str(folder / "tokenizer.json"))


def main() -> None:
    """Measure and append one line to results/against_transformers.jsonl."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-record", action="store_true", help="print only")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder, args.shape)
        rec = kiku.load(folder, device="cpu")
        theirs = transformers.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(
            folder, dtype=torch.bfloat16
        ).eval()
        sound = (np.random.default_rng(0).standard_normal(args.frames * 1920) * 0.2).astype(
            np.float32
        )
        values = torch.from_numpy(sound)[None, None]
        times: dict[str, list[float]] = {"kiku": [], "transformers": []}
        tokens: dict[str, list[int]] = {}
        for round_number in range(args.rounds + 1):
            for who in times:
                started = time.perf_counter()
                if who == "kiku":
                    tokens[who] = rec.tokens(sound).tolist()
                else:
                    with torch.no_grad():
                        tokens[who] = theirs.generate(input_values=values)[0, 1:].tolist()
                if round_number:  # the first round warms up
                    times[who].append((time.perf_counter() - started) / args.frames * 1000)
    equal = next(
        (i for i, (a, b) in enumerate(zip(*tokens.values(), strict=True)) if a != b), args.frames
    )
    ms = {who: round(statistics.median(values), 1) for who, values in times.items()}
    ratios = [b / a for a, b in zip(times["kiku"], times["transformers"], strict=True)]
    row = {
        "shape": args.shape,
        "precision": "bf16",
        "streams": 1,
        "frames": args.frames,
        "ms_per_frame": ms,
        "ratio_to_transformers": round(statistics.median(ratios), 2),
        "ratios": [round(r, 2) for r in ratios],
        "first_different_token": equal,
        "read_bandwidth_gb_s": machine.read_bandwidth_gb_s(),
    }
    print(row)
    if not args.no_record:
        machine.append("against_transformers", row)


if __name__ == "__main__":
    main()
