"""What clients say on the wire <-> what a stream is asked and tells. No socket, no clock, no task.

Each file holds one protocol. `interface` says what a protocol of a live connection is.
"""
