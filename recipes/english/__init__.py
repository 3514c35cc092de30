"""The recipe of a model for ordinary English: `python -m recipes.english --help`.

This is its first part only: a causal transformer over spectra, begun from the encoder of Whisper
base. It shall show whether the other parts are worth days of training. Run from the root of the
repository, with the extra `train`; the wheel holds none of it.
"""
