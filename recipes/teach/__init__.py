"""Recordings to follow docs/teach.md with: French digits and phrases, and an English word that the
demo model does not know.
"""
