"""Which mirrors there are, and how files are taken from them."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fmnist_pl.dataset.download import DownloadError, fetch
from fmnist_pl.dataset.verified_file import DataFile, check_download, install, remove_unfinished
from training_health.errors import UserError

ENVIRONMENT_VARIABLE = "FMNIST_MIRRORS"
_PACKING_OVERHEAD = 1 << 16  # a gzip is at most this much larger than its content


def mirror_urls() -> tuple[str, ...]:
    """Addresses of folders that hold the four files: those in FMNIST_MIRRORS if it is set, else torchvision's."""
    chosen = tuple(url.strip() for url in os.environ.get(ENVIRONMENT_VARIABLE, "").split(",") if url.strip())
    for url in chosen:
        if urlsplit(url).scheme not in {"http", "https"}:
            raise UserError(f"{ENVIRONMENT_VARIABLE} holds {url!r}: expected addresses that begin with http(s)://.", 2)
    if chosen:
        return chosen
    # imported here: slow to import, and needed for a download alone
    from torchvision.datasets import FashionMNIST

    return tuple(FashionMNIST.mirrors)


def download_files(
    folder: Path, files: Sequence[DataFile], family: Iterable[DataFile], mirrors: Sequence[str], patience: float
) -> list[str]:
    """Put ``files`` into ``folder``, each verified before it gets its name. Call it under the folder's lock.

    A mirror is asked again when a transfer was damaged, once, and is not asked for anything more once it has failed:
    a silent mirror costs its ``patience`` one time.

    Returns:
        Why mirrors failed, one line for each that did; `files` may be missing only if all of them are named.

    Raises:
        OSError: The folder or the disk refused.
    """
    failures: list[str] = []
    working = list(mirrors)
    for file in files:
        path = folder / file.packed_name
        remove_unfinished(path)
        while working:
            url = f"{working[0].rstrip('/')}/{file.packed_name}"
            try:
                packed = _fetch_intact(url, file, family, patience)
            except DownloadError as error:
                failures.append(f"{url}: {error}")
                del working[0]
                continue
            install(path, packed, receipt=f"Downloaded by fmnist_pl from {url}; it may be replaced if damaged.\n")
            break
    return failures or ([] if mirrors else ["no mirror is known"])


def _fetch_intact(url: str, file: DataFile, family: Iterable[DataFile], patience: float) -> bytes:
    try:
        return _fetch_once(url, file, family, patience)
    except DownloadError as error:
        if not error.damaged:
            raise
    return _fetch_once(url, file, family, patience)


def _fetch_once(url: str, file: DataFile, family: Iterable[DataFile], patience: float) -> bytes:
    packed = fetch(url, file.size + _PACKING_OVERHEAD, patience)
    try:
        check_download(packed, file, family)
    except ValueError as error:
        raise DownloadError(str(error), damaged=True) from None
    return packed
