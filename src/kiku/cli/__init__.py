"""The command `kiku`.

    app.py          the commands, and what every one of them does with errors
    advice.py       mistakes on the command line -> the command that was meant
    transcribe.py   kiku transcribe: its options, and whether they make sense
    run.py          one recording after the other, whatever happens to each
    listen.py       kiku listen: its options, and whether they make sense
    listening.py    one live stream from its first sound to its last word
    feed.py         sound -> a live stream, in its own time
    live_results.py events -> txt, srt and JSON lines, written while they come
    captions_view.py  live captions on a terminal
    options.py      options that several commands take, and what they make of a stream
    loaded.py       the model, with notes while it is loaded
    lines.py        words -> whole lines
    inputs.py       paths and folders -> recordings
    raw.py          samples without a header
    outputs.py      recordings -> names of files, written whole or not at all
    word_output.py  words on standard output, as they come
    progress.py     how far it is, on standard error
    models.py       kiku models list | info | verify | pull | convert | rm
    bench.py        kiku bench
    doctor.py       kiku doctor
    interrupts.py   Ctrl-C, and what counts as Ctrl-C
    columns.py      rows of text as a table
    terminal.py     the only place that writes to standard output and standard error

Nothing here imports torch or onnxruntime: `kiku --help` answers at once.
"""

from kiku.cli.app import main

__all__ = ["main"]
