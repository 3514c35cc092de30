"""Two processes that train one model together."""

import subprocess
import sys


def torchrun(*program: str) -> "subprocess.CompletedProcess[str]":
    """Run a program in two processes, and give what they wrote and how they ended.

    Args:
        program: as after `python`: a file, or -m and a module, and its arguments.
    """
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
    ]  # fmt: skip
    return subprocess.run([*command, *program], capture_output=True, text=True, check=False)
