"""From the URL of an input to a file on this machine."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import tenacity

from ..findings import Refused, Who, rule
from .steps import Stopped

MISSING = rule("input-missing", "A dataset with a hole where an input should be would be wrong without looking so.")
FORBIDDEN = rule("input-forbidden", "Whoever runs the recipe must be able to read its inputs.")
UNREACHABLE = rule("input-unreachable", "A provider that is down for long cannot be told from one that is gone.")
TRUNCATED = rule("input-truncated", "Half a file holds half the data, and its end may read as fill values.")
PROTOCOL = rule("input-protocol-unknown", "Each kind of URL needs the library that speaks it.")
FULL = rule("disk-full", "Inputs are fetched whole before the first byte of the dataset is written.", who=Who.OPERATOR)

DEFAULT_PATIENCE = 120.0
"""Seconds that a failing download is tried again; ``FEEDSTOCK_PATIENCE`` sets another span."""

SLOWEST = 1024
"""Bytes a second; a provider slower than this over a minute is as good as down."""

_BLOCK = 1 << 20

log = logging.getLogger("feedstock_forge.bake")


def shown(url: str) -> str:
    """A URL fit for logs: without a password or a query, where keys and signatures travel."""
    parts = urlsplit(url)
    if not parts.netloc or parts.scheme == "file":
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="…" if parts.query else "").geturl()


def local_path(url: str) -> Path | None:
    """The path that ``url`` names if it is a path or a ``file://`` URL, with ``~`` expanded; else ``None``."""
    scheme = urlsplit(url).scheme
    if scheme == "file":
        return Path(unquote(url.removeprefix("file://"))).expanduser()
    return None if "://" in url else Path(url).expanduser()


class Fetcher:
    """Fetches inputs into a folder; usable from several threads at once."""

    def __init__(self, folder: Path, stop: threading.Event) -> None:
        self.folder = folder
        self.stop = stop
        self.patience = float(os.environ.get("FEEDSTOCK_PATIENCE", DEFAULT_PATIENCE))
        timeout = httpx.Timeout(30, connect=10)
        self._client = httpx.Client(follow_redirects=True, timeout=timeout, headers={"Accept-Encoding": "identity"})

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def fetch(self, url: str) -> Path:
        """The file of ``url``: itself if it is local, else a copy in the folder.

        Connection errors, 408, 429 and 5xx are tried again with backoff until patience ends, taking up where a
        download broke off if the server allows it. Raises :class:`Refused` naming the URL.
        """
        path = local_path(url)
        if path is not None:
            return _existing(url, path)
        # The hash keeps inputs of the same name apart; the name helps whoever looks into the folder.
        copy = self.folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{Path(urlsplit(url).path).name[-100:]}"
        try:
            if urlsplit(url).scheme in ("http", "https"):
                self._download(url, copy)
            else:
                _copy_by_fsspec(url, copy)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise disk_full(str(self.folder)) from None
        return copy

    def _download(self, url: str, path: Path) -> None:
        download = _Download(self._client, url, path, self.stop)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((_Again, httpx.TransportError)),
            wait=_wait,
            stop=tenacity.stop_before_delay(self.patience),
            sleep=tenacity.sleep_using_event(self.stop),
            before_sleep=lambda state: log.warning(
                "%s: %s; trying again in %.1f s", shown(url), _reason(state), state.upcoming_sleep
            ),
            reraise=True,
        )
        try:
            retrying(download)
        except httpx.UnsupportedProtocol:
            raise Refused(PROTOCOL.at(None, f"{shown(url)} is not a URL", "write https://host/path")) from None
        except httpx.RemoteProtocolError as error:
            if path.exists() and path.stat().st_size:
                raise Refused(
                    TRUNCATED.at(
                        None,
                        f"{shown(url)} breaks off after {path.stat().st_size:,} bytes, every time",
                        "ask the provider to restore the file, or correct its URL in INPUTS",
                    )
                ) from None
            raise _unreachable(url, error, self.patience) from None
        except (_Again, httpx.TransportError) as error:
            raise _unreachable(url, error, self.patience) from None


class _Again(Exception):  # noqa: N818 - reads as what is wanted
    """The server may do better later; after ``seconds``, if it said so."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class _Download:
    """One download, called again after each failure; it remembers what it has."""

    def __init__(self, client: httpx.Client, url: str, path: Path, stop: threading.Event) -> None:
        self.client = client
        self.url = url
        self.path = path
        self.stop = stop
        self.validator: str | None = None

    def __call__(self) -> None:
        headers = {}
        have = self.path.stat().st_size if self.path.exists() else 0
        if self.validator and have:
            headers = {"Range": f"bytes={have}-", "If-Range": self.validator}
        with self.client.stream("GET", self.url, headers=headers) as response:
            self._refuse(response)
            etag = response.headers.get("etag", "")
            # RFC 9110, 13.1.5: a weak validator cannot vouch that the rest belongs to the beginning.
            self.validator = etag if etag and not etag.startswith("W/") else response.headers.get("last-modified")
            started, received = time.monotonic(), 0
            with self.path.open("ab" if response.status_code == httpx.codes.PARTIAL_CONTENT else "wb") as file:
                for block in response.iter_raw():  # whole blocks would lose the last part of what came
                    if self.stop.is_set():
                        raise Stopped
                    file.write(block)
                    received += len(block)
                    elapsed = time.monotonic() - started
                    if elapsed > 60 and received < SLOWEST * elapsed:
                        raise _Again(f"slower than {SLOWEST} bytes a second")

    def _refuse(self, response: httpx.Response) -> None:
        status, url = response.status_code, shown(self.url)
        reason = f"{status} {response.reason_phrase}".strip()
        if self.stop.is_set():
            raise Stopped
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.path.unlink(missing_ok=True)
            raise _Again(reason)
        if status in (408, 429) or status >= 500:
            after = response.headers.get("retry-after", "")
            raise _Again(f"the server answered {reason}", float(after) if after.isdigit() else None)
        if status in (401, 403):
            raise Refused(
                FORBIDDEN.at(None, f"{url} answered {reason}", "use a public URL, or ask the provider for access")
            )
        if status >= 400:
            raise Refused(MISSING.at(None, f"{url} answered {reason}", "correct its URL in INPUTS, or leave it out"))


_backoff = tenacity.wait_exponential_jitter(multiplier=0.5, max=20, jitter=0.5)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.seconds if isinstance(error, _Again) else None
    return _backoff(state) if asked is None else asked


def _reason(state: tenacity.RetryCallState) -> str:
    error = state.outcome.exception() if state.outcome else None
    return str(error) or type(error).__name__


def _unreachable(url: str, error: Exception, patience: float) -> Refused:
    reason = str(error) or type(error).__name__
    return Refused(
        UNREACHABLE.at(
            None,
            f"{shown(url)} could not be fetched in {patience:g} s of trying: {reason}",
            "try again when the provider is back; FEEDSTOCK_PATIENCE=600 waits longer",
        )
    )


def _existing(url: str, path: Path) -> Path:
    try:
        with path.open("rb"):
            return path
    except (FileNotFoundError, NotADirectoryError):
        raise Refused(
            MISSING.at(None, f"there is no file {shown(url)}", "correct it in INPUTS, or leave it out")
        ) from None
    except IsADirectoryError:
        raise Refused(MISSING.at(None, f"{shown(url)} is a folder", "name the files in it, one by one")) from None
    except PermissionError:
        raise Refused(FORBIDDEN.at(None, f"{shown(url)} may not be read", f"chmod a+r {path}")) from None


def _copy_by_fsspec(url: str, path: Path) -> None:
    import fsspec

    try:
        with fsspec.open(url, "rb") as source, path.open("wb") as copy:
            shutil.copyfileobj(source, copy, _BLOCK)
    except FileNotFoundError:
        raise Refused(MISSING.at(None, f"there is no {shown(url)}", "correct it in INPUTS, or leave it out")) from None
    except PermissionError as error:
        fix = "use a public URL, or let the run's credentials read it"
        raise Refused(FORBIDDEN.at(None, f"{shown(url)} may not be read: {error}", fix)) from None
    except (ImportError, ValueError) as error:
        fix = "add the library that it names to feedstock/requirements.txt"
        raise Refused(PROTOCOL.at(None, f"{shown(url)} cannot be read: {error}", fix)) from None


def disk_full(where: str) -> Refused:
    """The refusal for a disk that has no space left for what is to be written at ``where``."""
    return Refused(
        FULL.at(None, f"the disk that holds {where} is full", "free some space; TMPDIR moves where inputs are kept")
    )
