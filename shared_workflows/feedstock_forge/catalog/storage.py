"""Folders at a target, on this machine or in an object store, and the small files in them.

A file is replaced at once: readers see the old one or the new one. obstore sees to that, here by renaming.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from ..bake.locks import lock
from ..bake.places import path_of
from ..findings import Place, Refused, Severity, Who, rule

if TYPE_CHECKING:
    from obstore import UpdateVersion

UNREADABLE = rule("catalog-storage-unreadable", "A catalog is made of what can be read.", who=Who.OPERATOR)
UNWRITABLE = rule("catalog-storage-unwritable", "An entry is a few small files beside the dataset.", who=Who.OPERATOR)
TOO_LARGE = rule(
    "catalog-file-too-large",
    "A description is read whole into memory.",
    severity=Severity.WARNING,
    who=Who.OPERATOR,
)
SCHEME = rule("catalog-storage-unknown", "Entries live where datasets live.")

MAX_BYTES = 8 << 20
"""Bytes of a file that is read: a description, never data."""

_TRIES = 20


class Folder:
    """A folder at ``url``; the names of files in it are relative, with ``/``."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.path = path_of(self.url)
        self._store: Any = None

    @property
    def store(self) -> Any:
        """The store of obstore's that stands for the folder."""
        if self._store is None:
            if self.path is None:
                self._store = _object_store(self.url)
            else:
                # A file system's root is always there; the folder need not be, to look for something in it.
                self.path.mkdir(parents=True, exist_ok=True)
                self._store = LocalStore(self.path)
        return self._store

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, or ``None`` if there is none.

        Raises :class:`Refused` if it cannot be read or is too large to be a description.
        """
        return self._get(name)[0]

    def _get(self, name: str) -> tuple[bytes | None, UpdateVersion | None]:
        if self.path is not None and not self.path.is_dir():
            return None, None
        with _refusing(UNREADABLE, f"{self.url}/{name}"):
            try:
                found = obstore.get(self.store, name)
            except FileNotFoundError:
                return None, None
            if found.meta["size"] > MAX_BYTES:
                message = f"it has {found.meta['size']} bytes, and a description at most {MAX_BYTES}"
                raise Refused(
                    TOO_LARGE.at(Place(f"{self.url}/{name}"), message, "remove it, then write the entry anew")
                )
            version: UpdateVersion = {"e_tag": found.meta["e_tag"]}
            if found.meta["version"] is not None:
                version["version"] = found.meta["version"]
            return bytes(found.bytes()), version

    def write(self, name: str, data: bytes) -> None:
        """Write a file at once. Raises :class:`Refused` if that fails."""
        with _refusing(UNWRITABLE, f"{self.url}/{name}"):
            obstore.put(self.store, name, data)

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> bytes:
        """Replace a file by what ``change`` makes of it, so that no other update in between is lost.

        ``change`` may be called more than once. Returns what was written.
        """
        with self._alone(name):
            for _ in range(_TRIES):
                before, version = self._get(name)
                after = change(before)
                with _refusing(UNWRITABLE, f"{self.url}/{name}"):
                    if self.path is not None:
                        obstore.put(self.store, name, after)
                        return after
                    try:
                        obstore.put(self.store, name, after, mode=version or "create")
                        return after
                    except (AlreadyExistsError, PreconditionError):
                        continue
        message = f"{self.url}/{name} changes all the time"
        raise Refused(UNWRITABLE.at(None, message, "look for what else writes it, then run it again"))

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Keep other processes on this machine from the file's folder; object stores compare versions instead."""
        if self.path is None:
            yield
            return
        parent = (self.path / name).parent
        with _refusing(UNWRITABLE, str(parent)):
            parent.mkdir(parents=True, exist_ok=True)
            held = _wait_for(parent)
        try:
            yield
        finally:
            os.close(held)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with _refusing(UNWRITABLE, f"{self.url}/{name}"):
            try:
                obstore.delete(self.store, name)
            except FileNotFoundError:
                return

    def folders(self, name: str = "") -> list[str]:
        """The names of the folders in a folder."""
        if self.path is not None and not (self.path / name).is_dir():
            return []
        with _refusing(UNREADABLE, f"{self.url}/{name}"):
            listed = obstore.list_with_delimiter(self.store, name or None)
            return sorted(str(prefix).rstrip("/").rpartition("/")[2] for prefix in listed["common_prefixes"])

    def bytes_stored(self, most: int = 200_000) -> int | None:
        """How many bytes the files of the folder have; ``None`` if they are more than ``most``."""
        total = count = 0
        with _refusing(UNREADABLE, self.url):
            for chunk in obstore.list(self.store, chunk_size=5000):
                count += len(chunk)
                total += sum(item["size"] for item in chunk)
                if count > most:
                    return None
        return total


def _wait_for(folder: Path) -> int:
    # What is done under the lock takes milliseconds, and the lock of a process that dies goes with it.
    for _ in range(600):
        held = lock(folder)
        if held is not None:
            return held
        time.sleep(0.05)
    raise OSError(f"{folder} is locked")


def _object_store(url: str) -> Any:
    """The store for an object store's URL; keys, regions and endpoints come from the environment, as for a bake."""
    parts = urlsplit(url)
    bucket, prefix = parts.netloc, parts.path.strip("/") or None
    match parts.scheme:
        case "s3":
            endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            config: dict[str, Any] = {}
            if endpoint:
                config = {"endpoint": endpoint, "virtual_hosted_style_request": False}
            plain = bool(endpoint and endpoint.startswith("http://"))
            return S3Store(bucket, prefix=prefix, config=config or None, client_options={"allow_http": plain})  # type: ignore[arg-type]
        case "gs" | "gcs":
            return GCSStore(bucket, prefix=prefix)
        case "az" | "abfs":
            return AzureStore(bucket, prefix=prefix)
    raise Refused(
        SCHEME.at(None, f"{url}: `{parts.scheme}` is not a kind of storage known here", "use file, s3, gs or az")
    )


@contextmanager
def _refusing(found: Any, where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, obstore.exceptions.BaseError, ValueError) as error:
        gist = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        fix = "look at the URL, and at what the user or credentials of this process may do there"
        raise Refused(found.at(None, f"{where}: {gist}", fix)) from error
