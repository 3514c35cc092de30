"""The training kit: from recordings and their words to a model that has learned them.

With numpy alone:
    manifest.py     JSON lines -> rows: a recording, its words with times, speaker, split
    folders.py      LibriSpeech, Common Voice, LJSpeech, Kaldi -> the same rows
    columns.py      words with times -> targets of the decoder and its pause heads in each frame
    sounds.py       a recording and its words -> pieces of limited length
    augment.py      the same pieces with other speeds, rooms, noise and loudness; seeded
    shards.py       examples in files: sharded, seekable, with checksums
    settings.py     the numbers of a training run, from TOML
    forced.py       forced alignment: known labels along the scores of a network
    atomic_files.py files that survive a kill and a power cut
    places.py       which folders a model or a pack may go into

With PyTorch, imported only when it is needed:
    vocab.py        texts -> a model with a vocabulary that spells them
    align.py        texts -> times of their words
    pack.py         rows -> shards, through the codec
    examples.py     rows -> examples
    own_text.py     the text that the model itself writes for a recording without one
    batches.py      shards -> the batch of any step
    training_module.py  batch -> losses
    trainable_codec.py  a codec that learns: sound -> codes, with a gradient
    lora.py         low-rank adapters on a decoder; PEFT's files and back
    new_pieces.py   which pieces are new and untrained, and their rows next to frozen ones
    reference.py    the output of the decoder as it was before training
    model.py        the decoder, and the codec, that a run begins with
    sharding.py     weights in parts on several processes
    tensor_files.py tensors, in parts or whole -> a safetensors file, one after the other
    state.py        a run's checkpoint
    curve.py        reports during a run: lines, CSV, a picture, TensorBoard
    processes.py    several processes, under torchrun
    fit.py          the training loop
    model_files.py  a decoder and its model's codec -> a folder
    export.py       a run -> a model in any layout that kiku reads

Nothing here transcribes: `kiku.load` loads a trained model like any other.
"""
