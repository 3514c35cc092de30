"""Messages on the wire <-> actions and events of a stream. No socket, no clock, no task.

Each file holds one protocol. `interface` says what a protocol of a live connection is.
"""
