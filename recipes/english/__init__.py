"""The recipe of a model that hears ordinary English: `python -m recipes.english --help`.

Its first part only: a causal transformer over spectra, begun from the encoder of Whisper base, that
is to show whether the rest is worth its days. Run from the root of the repository, with the extra
`train`; the wheel holds none of it.
"""
