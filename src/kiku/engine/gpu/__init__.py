"""What the GPU engine is made of: memory at fixed addresses, the two networks over rows of slots,
and CUDA graphs of them.

A call goes over `R` rows. A row is a slot's place in this call; rows that nobody needs belong to a
spare slot, the last one, which no stream ever has. So no function here asks who is active, and
everything has the same shape every time.
"""
