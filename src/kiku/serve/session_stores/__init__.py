"""Stores of sessions, one a file; see `kiku.serve.session_store`."""
