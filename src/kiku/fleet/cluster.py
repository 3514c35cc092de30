"""Which Ray cluster a batch goes to, and whether anybody answers there. Ray itself is not known
here.
"""

import os
import socket

from kiku.errors import InputError

AUTO, LOCAL = "auto", "local"
"""A cluster that Ray finds on this machine; and a new one, of this machine alone."""
_CLIENT = "ray://"
_ANSWER_S = 10.0


def cluster_of(address: str | None) -> str:
    """The address for Ray. As Ray has it, RAY_ADDRESS stands for one that is not named, or "auto".

    Raises:
        InputError: it is one of Ray Client.
    """
    found = address or LOCAL
    if address is None or address == AUTO:
        found = os.environ.get("RAY_ADDRESS") or found
    refuse_client(found)
    return found


def refuse_client(address: str | None) -> None:
    """Check that an address is none of Ray Client: what drives Ray Data has to be in the cluster.

    Raises:
        InputError: it is one.
    """
    if address is not None and address.startswith(_CLIENT):
        raise InputError(
            f"{address} is an address of Ray Client, but Ray Data, which runs batches, does not "
            "work with it: give the head's own address (HOST:6379) on a machine of the cluster, "
            "or run the command there ( ray job submit --address http://HOST:8265 -- kiku "
            "transcribe --ray auto ... )"
        )


def refuse_unanswered(address: str) -> None:
    """Check that something answers at HOST:PORT: Ray itself asks for minutes.

    Raises:
        InputError: nothing does.
    """
    host, separator, port = address.rpartition(":")
    if not (separator and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), _ANSWER_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"nothing answers at {address} ({error}): check the address, and that this machine "
            "may reach it; a cluster's head is at HOST:6379, unless it was started with another "
            "port"
        ) from error


def unusable(address: str, why: str) -> InputError:
    """What to raise where a cluster does not let this program in, or there is none."""
    where = "on this machine" if address in (AUTO, LOCAL) else f"at {address}"
    return InputError(
        f"Ray cannot be used {where} ({why}): check the address, that this machine may reach it, "
        "and that it has what the cluster needs: one with tokens needs RAY_AUTH_MODE=token here "
        "and its token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
    )
