"""Streaming layers that know nothing about speech: a frame, a block or a file in one `forward`.

Axis letters, here and in every room: `B` slots, `T` frames or positions, `S` samples,
`K` codebooks, `C` channels of a convolution, `L` length of what a convolution sees, `D` width,
`H` heads, `P` remembered past, `V` vocabulary, `E` pause heads.

Every module that has a memory follows one contract:

* `init_state(batch_size, device, dtype)` alone makes its state: a dataclass of tensors, slot axis
  first.
* `forward(x, state, active)` reads and advances the state in place, only for the slots where
  `active` is true.
* There is no offline mode: a whole file is a fresh state and a long `x`.
"""
