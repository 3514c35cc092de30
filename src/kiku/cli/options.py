"""Options that several commands take: which model, and on what it runs."""

from typing import Annotated

import typer

Model = Annotated[
    str, typer.Option(metavar="NAME", help="demo, a Hugging Face repository, or a folder.")
]
Revision = Annotated[
    str | None, typer.Option(metavar="REV", help="Branch, tag or commit of the repository.")
]
Engine = Annotated[
    str, typer.Option(metavar="NAME", help="onnx or torch; auto is the faster one here.")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="int8, int4 or float32; bfloat16 or float16 with the torch engine."
    ),
]
Threads = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Threads that compute; else all there are.")
]
