"""Deepgram's answer for a recording: `POST /v1/listen`."""

import uuid
from collections.abc import Sequence
from typing import Any

from kiku.serve.protocols.deepgram_parameters import FILE_PARAMETERS
from kiku.serve.protocols.deepgram_query import FileQuery
from kiku.serve.protocols.deepgram_words import (
    confidence,
    model_info,
    model_uuid,
    time_of_day,
    transcript,
    word_item,
)
from kiku.serve.protocols.interface import ClientRequest, ModelCard, round_s
from kiku.text import Segment, Word, segments
from kiku.transcription import Transcript

PARAMETERS = FILE_PARAMETERS

PARAGRAPH_GAP_S = 2.0
"""Seconds of silence; a longer one begins a paragraph."""

PARAGRAPH_SENTENCES = 5
"""Number of sentences in a paragraph, at most."""

_UTTERANCES = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")  # object identifiers, by RFC 9562


def answer(
    heard: Transcript, query: FileQuery, request: ClientRequest, model: ModelCard, *, sha256: str,
    channels: int,
) -> dict[str, Any]:  # fmt: skip
    """The body of the answer.

    Args:
        heard: what was said in the recording.
        query: what the client wants of it.
        request: of the client.
        model: the one that listened.
        sha256: of the recording's bytes, in hexadecimal.
        channels: how many were heard separately.
    """
    name = model_uuid(model)
    metadata: dict[str, Any] = {
        "transaction_key": "deprecated",
        "request_id": request.id,
        "sha256": sha256,
        "created": time_of_day(request.at),
        "duration": round_s(heard.duration),
        "channels": channels,
        "models": [name],
        "model_info": {name: model_info(model)},
    }
    if query.tags:
        metadata["tags"] = list(query.tags)
    spoken = [
        [word for word in heard.words if (word.channel or 0) == index] for index in range(channels)
    ]
    results: dict[str, Any] = {
        "channels": [{"alternatives": [_alternative(words, query)]} for words in spoken]
    }
    if query.utterances:
        results["utterances"] = _utterances(spoken, query.utt_split_s, request)
    return {"metadata": metadata, "results": results}


def _alternative(words: Sequence[Word], query: FileQuery) -> dict[str, Any]:
    values: dict[str, Any] = {
        "transcript": transcript(words),
        "confidence": confidence(words),
        "words": [word_item(word) for word in words],
    }
    if query.paragraphs:
        values["paragraphs"] = _paragraphs(words)
    return values


def _utterances(
    spoken: Sequence[Sequence[Word]], split_s: float, request: ClientRequest
) -> list[dict[str, Any]]:
    """The words of each channel, parted at pauses, in the order in which they begin."""
    found: list[tuple[int, list[Word]]] = []
    for index, words in enumerate(spoken):
        last_end: float | None = None
        for word in words:
            if last_end is None or word.start - last_end > split_s:
                found.append((index, []))
            found[-1][1].append(word)
            last_end = word.end
    found.sort(key=lambda one: one[1][0].start)
    return [
        {
            "start": round_s(words[0].start),
            "end": round_s(words[-1].end),
            "confidence": confidence(words),
            "channel": index,
            "transcript": transcript(words),
            "words": [word_item(word) for word in words],
            "id": str(uuid.uuid5(_UTTERANCES, f"{request.id} {number}")),
        }
        for number, (index, words) in enumerate(found)
    ]


def _paragraphs(words: Sequence[Word]) -> dict[str, Any]:
    groups: list[list[Segment]] = []
    for sentence in segments(words):
        last = groups[-1] if groups else None
        if (
            last is None
            or len(last) == PARAGRAPH_SENTENCES
            or sentence.start - last[-1].end > PARAGRAPH_GAP_S
        ):
            groups.append([])
        groups[-1].append(sentence)
    return {
        "transcript": "\n\n".join(" ".join(one.text for one in group) for group in groups),
        "paragraphs": [
            {
                "sentences": [
                    {"text": one.text, "start": round_s(one.start), "end": round_s(one.end)}
                    for one in group
                ],
                "num_words": sum(len(one.words) for one in group),
                "start": round_s(group[0].start),
                "end": round_s(group[-1].end),
            }
            for group in groups
        ],
    }
