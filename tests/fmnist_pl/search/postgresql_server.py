"""A PostgreSQL server of the tests' own, from Debian's package or wherever its binaries are."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

FOUND = [*filter(None, [shutil.which("initdb")]), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))]
# It does not run as root; Debian's package brings a user for it.
USERS = [user for user in pwd.getpwall() if user.pw_name == "postgres" or user.pw_uid == os.geteuid() != 0]
MISSING = not (FOUND and USERS and importlib.util.find_spec("psycopg"))


@contextlib.contextmanager
def server():
    """Start one with an empty database; its URL, and a function that breaks off its connections and restarts it."""
    folder = Path(tempfile.mkdtemp(prefix="fmnist_pl-postgresql-"))
    who = {}
    if os.geteuid() == 0:
        who = {"user": USERS[0].pw_uid, "group": USERS[0].pw_gid, "extra_groups": []}
        os.chown(folder, USERS[0].pw_uid, USERS[0].pw_gid)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    def call(program, *words):
        log = folder / "output"
        with log.open("ab") as output:
            command = [Path(FOUND[-1]).with_name(program), "-D", folder / "data", *words]
            ended = subprocess.run(command, cwd=folder, stdout=output, stderr=output, timeout=120, **who)
        assert ended.returncode == 0, log.read_text()

    try:
        call("initdb", "-U", "search", "--auth=trust", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
        call("pg_ctl", "-w", "-o", options, "-l", folder / "log", "start")
        try:
            url = f"postgresql://search@127.0.0.1:{port}/postgres"
            yield url, lambda: call("pg_ctl", "-w", "-m", "immediate", "-l", folder / "log", "restart")
        finally:
            call("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
