"""Make the recordings of docs/teach.md: French digits and phrases, and an English word that the
demo model does not know.
"""
