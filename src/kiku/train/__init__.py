"""The kit: from recordings and their words to a model that has learned them.

With numpy alone:
    manifest.py     JSON lines -> rows: a recording, its words with times, speaker, split
    folders.py      LibriSpeech, Common Voice, LJSpeech, Kaldi -> the same rows
    columns.py      words with times -> what the decoder says in each frame, and its pause heads
    sounds.py       a recording and its words -> pieces of at most so many seconds
    augment.py      the same pieces as they might have sounded elsewhere; seeded
    shards.py       examples in files: sharded, seekable, with checksums
    settings.py     the numbers of a training run, from TOML
    forced.py       known labels along the scores of a network
    durable.py      files that survive a kill and a power cut
    places.py       which folders a model or a pack may go into

With PyTorch, imported only when it is needed:
    vocab.py        texts -> a model with a vocabulary that spells them
    align.py        texts -> times of their words
    pack.py         rows -> shards, through the codec
    examples.py     one row of them
    batches.py      shards -> the batch of any step
    lesson.py       batch -> losses
    hearing.py      a codec that learns: sound -> codes, with a gradient
    lora.py         low-rank adapters on a decoder; PEFT's files and back
    new_pieces.py   which pieces know nothing yet, and their rows beside frozen ones
    keeping.py      what a decoder said before
    model.py        the decoder, and the codec, that a run begins with
    sharding.py     weights in parts on several processes
    tensor_files.py tensors, in parts or whole -> a safetensors file, one after the other
    state.py        a run's checkpoint
    curve.py        what is told on the way
    processes.py    several of them, under torchrun
    fit.py          the loop
    written.py      a decoder and its model's codec -> a folder
    export.py       a run -> a model in any layout that kiku reads

Nothing here listens: what is trained is loaded by `kiku.load` as any other model.
"""
