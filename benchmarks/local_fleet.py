"""Replicas of `kiku serve` on this machine, behind nginx or HAProxy with the files of deploy/.

Only addresses, ports and paths of those files are changed. The certificate is made on the spot and
signs itself.
"""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"

BALANCERS = ("nginx", "haproxy")

_PATIENCE_S = 90.0
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])

_REPLICA = re.compile(r"server (\w+ )?10\.0\.0\.1[12]:(8080|10300)(?P<rest>[^\n]*)\n")


def found(program: str) -> str | None:
    """Where a program is that only an administrator has on the path; None if nowhere."""
    return shutil.which(program, path=_PATH)


def free_port() -> int:
    """One that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = _PATIENCE_S) -> None:
    """Look until it holds.

    Raises:
        TimeoutError: it does not.
    """
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"{what} took more than {seconds:g} s")
        time.sleep(0.05)


@dataclass
class Replica:
    """One process of `kiku serve`, at a port that it keeps over restarts."""

    options: Sequence[str]
    folder: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def http(self) -> str:
        """Its own address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has said until now, all restarts together."""
        return (self.folder / f"kiku-{self.port}.log").read_text()

    def start(self) -> None:
        """Begin, and do not wait."""
        with (self.folder / f"kiku-{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kiku", "serve", "--port", str(self.port), *self.options],
                stdout=log, stderr=log,
            )  # fmt: skip

    def ready(self) -> dict[str, object] | None:
        """What it says of itself; None if it says nothing."""
        try:
            return httpx.get(f"{self.http}/ready", timeout=5, trust_env=False).json()
        except httpx.HTTPError:
            return None

    @property
    def is_ready(self) -> bool:
        """Whether it takes another stream."""
        return (self.ready() or {}).get("ready") is True

    @property
    def slots_used(self) -> int:
        """How many streams it hears."""
        used = (self.ready() or {}).get("slots_used", 0)
        assert isinstance(used, int)
        return used

    def drain(self) -> None:
        """Ask it to end when what is open has ended."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a word."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        assert self.process is not None
        return self.process.wait(_PATIENCE_S)


@dataclass
class Fleet:
    """Replicas and the balancer before them."""

    replicas: list[Replica]
    port: int
    certificate: Path
    wyoming_port: int | None = None

    @property
    def https(self) -> str:
        """Where clients find it."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def wss(self) -> str:
        """The same, for sockets."""
        return f"wss://127.0.0.1:{self.port}"

    @property
    def tls(self) -> ssl.SSLContext:
        """That knows the certificate."""
        return ssl.create_default_context(cafile=self.certificate)

    def get(self, path: str) -> httpx.Response:
        """Ask through the balancer."""
        with httpx.Client(verify=self.tls, timeout=30) as client:
            return client.get(self.https + path)


def make_certificate(folder: Path) -> Path:
    """`speech.key`, `speech.crt`, and both in `speech.pem`; gives the second."""
    key, certificate = folder / "speech.key", folder / "speech.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / "speech.pem").write_text(certificate.read_text() + key.read_text())
    return certificate


def _changed(text: str, changes: dict[str, str]) -> str:
    """Each of the changes, which must be possible exactly once."""
    for old, new in changes.items():
        if text.count(old) != 1:
            raise ValueError(f"{old!r} stands {text.count(old)} times in the file, and not once")
        text = text.replace(old, new)
    return text


def nginx_command(folder: Path, listen: int, ports: Sequence[int]) -> list[str]:
    """nginx of deploy/ in a folder, with these ports."""
    text = _changed(
        (DEPLOY / "nginx" / "nginx.conf").read_text(),
        {
            "listen 443 ssl": f"listen 127.0.0.1:{listen} ssl",
            "/etc/nginx/speech.pem": str(folder / "speech.pem"),
            "/etc/nginx/speech.key": str(folder / "speech.key"),
            "/var/log/nginx/access.log": str(folder / "access.log"),
            "/var/log/nginx/error.log": str(folder / "error.log"),
            "worker_processes auto": "worker_processes 2",
            "worker_rlimit_nofile 65536;": "",
            "worker_connections 16384": "worker_connections 1024",
            "http {\n": "http {\n" + "".join(
                f"    {kind}_temp_path {folder}/{kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            ),
        },
    )  # fmt: skip
    (folder / "nginx.conf").write_text(text)
    replicas, count = _REPLICA.subn("", (DEPLOY / "nginx" / "kiku-replicas.conf").read_text())
    if count != 2:
        raise ValueError(f"kiku-replicas.conf names {count} replicas, and not 2")
    lines = [f"server 127.0.0.1:{port} max_fails=0;\n" for port in ports]
    (folder / "kiku-replicas.conf").write_text(replicas + "".join(lines))
    said = f"daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;"
    return [found("nginx") or "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"),
            "-g", said]  # fmt: skip


def haproxy_command(
    folder: Path, listen: int, ports: Sequence[int], wyoming: Sequence[int] | None = None
) -> list[str]:
    """HAProxy of deploy/ in a folder, with these ports; `wyoming`, where wanted, are the port to
    listen on and those of the replicas."""
    text = _changed(
        (DEPLOY / "haproxy" / "haproxy.cfg").read_text(),
        {
            "bind :443 ": f"bind 127.0.0.1:{listen} ",
            "/etc/haproxy/speech.pem": str(folder / "speech.pem"),
            "maxconn 20000": "maxconn 1000",
        },
    )
    command = [found("haproxy") or "haproxy", "-db"]
    (folder / "haproxy.cfg").write_text(_with_ports(text, ports, ports))
    command += ["-f", str(folder / "haproxy.cfg")]
    if wyoming is not None:
        text = _changed(
            (DEPLOY / "haproxy" / "wyoming.cfg").read_text(),
            {"bind :10300": f"bind 127.0.0.1:{wyoming[0]}"},
        )
        (folder / "wyoming.cfg").write_text(_with_ports(text, wyoming[1:], ports))
        command += ["-f", str(folder / "wyoming.cfg")]
    return command


def _with_ports(text: str, ports: Sequence[int], checked: Sequence[int]) -> str:
    left = list(zip(ports, checked, strict=True))

    def line(found: re.Match[str]) -> str:
        port, checked = left.pop(0)
        rest = found["rest"].replace("port 8080", f"port {checked}")
        return f"server {found[1]}127.0.0.1:{port}{rest}\n"

    text = _REPLICA.sub(line, text)
    if left:
        raise ValueError(f"the file names too few replicas: {left} have no line")
    return text


@contextmanager
def fleet(
    balancer: str, folder: Path, *options: str, wyoming: bool = False, watched: bool = False
) -> Iterator[Fleet]:
    """Two replicas behind a balancer, all of them ready.

    Args:
        balancer: "nginx" or "haproxy".
        folder: for configurations and logs.
        options: of `kiku serve`.
        wyoming: whether Wyoming's clients are answered; by HAProxy alone.
        watched: whether kiku-ready.sh runs beside nginx.
    """
    with ExitStack() as stack:
        replicas: list[Replica] = []
        doors = [free_port() for _ in range(3)] if wyoming else None
        for i in range(2):
            more = () if doors is None else ("--wyoming-port", str(doors[1 + i]))
            one = Replica([*options, *more], folder)
            stack.callback(one.kill)
            one.start()
            replicas.append(one)
        certificate, listen = make_certificate(folder), free_port()
        ports = [one.port for one in replicas]
        if balancer == "nginx":
            command = nginx_command(folder, listen, ports)
        else:
            command = haproxy_command(folder, listen, ports, doors)
        for one in replicas:
            wait_until(lambda one=one: one.is_ready, "the start of a replica")
        _start(stack, command, folder)
        if watched:
            _start(
                stack,
                ["sh", str(DEPLOY / "nginx" / "kiku-ready.sh"), str(folder / "kiku-replicas.conf"),
                 *(f"127.0.0.1:{port}" for port in ports)],
                folder, {"RELOAD": f"kill -HUP {(_pid(folder))}"},
            )  # fmt: skip
        made = Fleet(replicas, listen, certificate, doors[0] if doors else None)
        wait_until(lambda: answers(made), "the start of the balancer")
        yield made


def answers(made: Fleet) -> bool:
    """Whether clients are answered through the balancer."""
    try:
        return made.get("/ready").status_code == 200
    except httpx.HTTPError:
        return False


def _pid(folder: Path) -> int:
    wait_until(lambda: (folder / "nginx.pid").exists(), "the start of nginx")
    return int((folder / "nginx.pid").read_text())


def _start(
    stack: ExitStack, command: list[str], folder: Path, environment: dict[str, str] | None = None
) -> None:
    log = stack.enter_context((folder / "balancer.log").open("ab"))
    process = subprocess.Popen(
        command, stdout=log, stderr=log, env={**os.environ, **(environment or {})}
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
