"""What a pack and a model must have in common: the codec and the vocabulary, whatever their files
look like.
"""

import hashlib

from kiku.checkpoint.identity import digest_of
from kiku.codec import MimiEncoder
from kiku.text import Vocabulary


def codec_digest(codec: MimiEncoder) -> str:
    """Of all its numbers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(codec.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def vocabulary_digest(vocabulary: Vocabulary) -> str:
    """Of its pieces."""
    return digest_of([vocabulary.piece(i) for i in range(len(vocabulary))])
