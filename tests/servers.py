"""Servers for the tests of observers: each with a scratch folder or port of its own, and stopped in the end."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.tasks import wait_for

PASSWORD = "a-secret"


class Postgres:
    """A PostgreSQL server on a Unix socket, which asks for a password.

    Attributes:
        folder: where it listens.
        url: its address for SQLAlchemy, with the password.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs = folder, programs
        self.url = f"postgresql+psycopg://bbb:{PASSWORD}@/postgres?host={folder}"
        self.data = folder / "data"
        (folder / "password").write_text(PASSWORD)
        self._run("initdb", "-U", "bbb", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-o", options, "-l", str(self.folder / "log"))

    def stop(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    def _run(self, program: str, *words: str) -> None:
        """Run one of its programs, as another user where this one is root, which PostgreSQL refuses."""
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if user:
            subprocess.run(["chown", "-R", "postgres:postgres", self.folder], check=True)
        command = [self.programs / program, "-D", self.data, *words]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, **user)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start PostgreSQL as the distribution has it; skip the test where there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("there is no PostgreSQL here; on Debian: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="bbb-postgres-"))  # short, and open to another user: it holds a socket
    server = Postgres(folder, folders[-1])
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


class Mongo:
    """A server that speaks the protocol of MongoDB and keeps its data in SQLite: nx-27017, from PyPI.

    Attributes:
        address: as the option ``--mongo_db`` takes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"127.0.0.1:{self.port}:sacred"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        files = ["--db", self.folder / "db", "--log-file", self.folder / "log", "--pid-file", self.folder / "pid"]
        start = "from nx_27017.nx_27017 import main; main()"
        command = [sys.executable, "-c", start, "--port", str(self.port), *files]
        with open(self.folder / "output", "wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, cwd=self.folder)
        wait_for(lambda: is_listening(self.port))

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def mongo(folder: Path) -> Iterator[Mongo]:
    """Start a server that speaks MongoDB's protocol; skip the test where there is none."""
    if find_spec("nx_27017") is None:
        pytest.skip("nx-27017 is not installed")
    server = Mongo(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Bucket(BaseHTTPRequestHandler):
    """What Sacred's observer asks of S3: to list, to write, and whether a bucket is there."""

    protocol_version = "HTTP/1.1"  # which answers a client that asks before it sends
    kept: dict[str, bytes]

    def do_HEAD(self):
        self._answer(200)

    def do_PUT(self):
        self.kept[unquote(urlsplit(self.path).path)] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200)

    def do_GET(self):
        address = urlsplit(self.path)
        prefix = f"{address.path.rstrip('/')}/{parse_qs(address.query).get('prefix', [''])[0]}"
        bucket = f"{address.path.rstrip('/')}/"
        keys = [key.removeprefix(bucket) for key in sorted(self.kept) if key.startswith(prefix)]
        found = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in keys)
        self._answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode())

    def log_message(self, *args):
        """Print nothing."""

    def _answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def s3() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Serve the part of S3's protocol that Sacred uses: the address, and what is written, by path."""
    kept: dict[str, bytes] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (Bucket,), {"kept": kept}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
