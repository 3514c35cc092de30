"""The parts of the GPU engine: memory at fixed addresses, the two networks over rows of slots, and
CUDA graphs of them.

A call goes over `R` rows. A row is a slot's place in this call. Rows that are not needed belong to
a spare slot, the last one, which no stream ever has. So no function here asks which slots are
active, and every array of a call has the same shape every time.
"""
