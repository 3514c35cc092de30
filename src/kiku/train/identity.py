"""Digests of what a pack and a model must share: codec and vocabulary, in whatever files."""

import hashlib

from kiku.checkpoint.identity import digest_of
from kiku.codec import MimiEncoder
from kiku.text import Vocabulary


def codec_digest(codec: MimiEncoder) -> str:
    """Digest of all weights of a codec."""
    digest = hashlib.sha256()
    for name, tensor in sorted(codec.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def vocabulary_digest(vocabulary: Vocabulary) -> str:
    """Digest of the pieces of a vocabulary."""
    return digest_of([vocabulary.piece(i) for i in range(len(vocabulary))])
