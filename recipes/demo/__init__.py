"""The recipe of the demo model, and how it is measured: `python -m recipes.demo --help`.

Run from the root of the repository, with the extra `train`; the wheel holds none of it.
"""
