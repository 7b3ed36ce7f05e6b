"""Run ``fmnist`` as on Windows: what only POSIX systems have is hidden from this project's modules, from no other."""

import builtins
import ctypes
import errno
import importlib
import os
import pkgutil
import signal
import stat
import sys
from types import ModuleType

OURS = ("training_health", "fmnist_pl")
MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty")
FUNCTIONS = (
    "chown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getloadavg", "getpgid", "getpgrp", "getuid", "killpg",
    "mkfifo", "nice", "pread", "pwrite", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "setpgid",
    "setsid", "statvfs", "symlink", "sync", "sysconf", "uname", "wait",
)  # fmt: skip
CONSTANTS = ("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "WNOHANG")
SIGNALS = ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGUSR1", "SIGUSR2")


def without(module: ModuleType, *names: str, **instead: object) -> ModuleType:
    """A copy of a module that lacks some names and has others in their place."""
    copy = ModuleType(module.__name__)
    vars(copy).update({name: value for name, value in vars(module).items() if name not in names}, **instead)
    return copy


def open_file(path, flags, *args, **options):
    """Windows opens no folders."""
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return os.open(path, flags, *args, **options)


def sync(descriptor):
    """Windows syncs no file that is open for reading alone."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.pwrite(descriptor, b"", 0)
    os.fsync(descriptor)


def library(name, *args, **options):
    """Windows has no C library of such a name."""
    if name is None:
        raise TypeError("expected str, not NoneType")
    raise FileNotFoundError(f"Could not find module {name!r}")


POORER = {
    "os": without(os, *FUNCTIONS, *CONSTANTS, name="nt", open=open_file, fsync=sync),
    "signal": without(signal, *SIGNALS),
    "ctypes": without(ctypes, CDLL=library),
}
plainly = builtins.__import__


def poorly(name, globals=None, locals=None, fromlist=(), level=0):
    """What ``import`` gives to this project's modules."""
    if level == 0 and str((globals or {}).get("__name__")).split(".")[0] in OURS:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in POORER:
            return POORER[name]
    return plainly(name, globals, locals, fromlist, level)


def import_everything() -> list[str]:
    """Import every module of both packages, and return their names."""
    names = []
    for package in OURS:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(module.name)
            names.append(module.name)
    return names


if __name__ == "__main__":
    builtins.__import__ = poorly
    if sys.argv[1:] == ["import"]:
        print(*import_everything())
    else:
        from fmnist_pl.__main__ import run

        run()
