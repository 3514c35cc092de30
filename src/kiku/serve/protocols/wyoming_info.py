"""How the service describes itself to Wyoming's clients."""

from typing import Any

from kiku.serve.protocols.interface import ModelCard

PROGRAM = "kiku"
"""The program that ends an utterance where its turn ends."""
PATIENT_PROGRAM = "kiku-until-stop"
"""The program that ends an utterance with audio-stop alone."""


def info(model: ModelCard) -> dict[str, Any]:
    """The data of `info`, the answer to a client's `describe`."""
    ours = {"name": "kiku", "url": ""}
    owner, slash, _ = model.name.partition("/")
    theirs = {"name": owner, "url": f"https://huggingface.co/{model.name}"}
    is_of_the_hub = bool(owner and slash) and model.name.count("/") == 1
    listens = {
        "name": model.name,
        "languages": list(model.languages),
        "attribution": theirs if is_of_the_hub else ours,
        "installed": True,
        "description": f"The text comes {model.delay_s:g} s after the sound",
        "version": model.version,
    }
    programs = [
        {
            "name": name,
            "attribution": ours,
            "installed": True,
            "description": description,
            "version": model.version,
            "models": [listens],
            "supports_transcript_streaming": True,
            "requires_external_vad": name != PROGRAM,
            "prefers_auto_gain_enabled": False,
            "prefers_noise_reduction_enabled": False,
        }
        for name, description in (
            (PROGRAM, "Streaming speech to text that detects when a command ends"),
            (PATIENT_PROGRAM, "Streaming speech to text until audio-stop"),
        )
    ]
    others = ("tts", "handle", "intent", "wake", "mic", "snd")
    return {"asr": programs, **{domain: [] for domain in others}}
