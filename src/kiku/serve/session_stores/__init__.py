"""Stores of sessions, one in each module; see `kiku.serve.session_store`."""
