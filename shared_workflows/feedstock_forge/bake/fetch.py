"""From the URL of an input to a file on this machine."""

from __future__ import annotations

import email.utils
import errno
import functools
import hashlib
import json
import logging
import math
import os
import re
import shutil
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import tenacity

from .. import certificates
from ..findings import Refused, Who, rule
from ..quantities import format_size
from .locks import scratch
from .steps import Stopped

MISSING = rule("input-missing", "A dataset with a hole where an input should be would be wrong without looking so.")
FORBIDDEN = rule("input-forbidden", "Whoever runs the recipe must be able to read its inputs.")
UNREACHABLE = rule("input-unreachable", "A provider that is down for long cannot be told from one that is gone.")
SLOW = rule("input-too-slow", "Who waits for a trickle holds a bakery for weeks.")
TRUNCATED = rule("input-truncated", "Half a file holds half the data, and its end may read as fill values.")
PROTOCOL = rule("input-protocol-unknown", "Each kind of URL needs the library that speaks it.")
FULL = rule("disk-full", "What is half there is of no use, and takes the room of what others need.", who=Who.OPERATOR)
SETTING = rule("setting-unusable", "A setting that cannot be kept to is not replaced by a guess.", who=Who.OPERATOR)

DEFAULT_PATIENCE = 120.0
"""Seconds after which a download that does not get on is given up; ``FEEDSTOCK_PATIENCE`` sets another span."""

SLOWEST = 1024
"""Bytes a second; a download that is slower does not get on."""

log = logging.getLogger("feedstock_forge.bake")


def patience() -> float:
    """Seconds after which an input is given up that does not come, or comes slower than :data:`SLOWEST`.

    Raises :class:`Refused` if what is set is no such number.
    """
    named = os.environ.get("FEEDSTOCK_PATIENCE") or str(DEFAULT_PATIENCE)
    try:
        seconds = float(named)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        fix = "write a number of seconds, such as FEEDSTOCK_PATIENCE=600, or unset it"
        raise Refused(SETTING.at(None, f"FEEDSTOCK_PATIENCE is {named!r}, which is no span of time", fix))
    return seconds


def shown(url: str) -> str:
    """A URL fit for logs: without a password or a query, where keys and signatures travel.

    It takes any words: what is refused because it is no URL has to be shown, too.
    """
    return url if file_named(url) is not None else re.sub(r"\?[^#]+", "?…", re.sub("://[^/?#]*@", "://", url))


def file_named(url: str) -> str | None:
    """What a path or a ``file://`` URL names, whose host may be ``localhost`` (RFC 8089, 2); else ``None``."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    return unquote(re.sub("^localhost(?=/)", "", rest)) if scheme.lower() == "file" else None


def local_path(url: str) -> Path | None:
    """The path that ``url`` names if it is a path or a ``file://`` URL, with ``~`` expanded; else ``None``."""
    path = file_named(url)
    return None if path is None else at_home(path)


def at_home(path: str) -> Path:
    """A path with ``~`` and ``~somebody`` expanded, where there is such a home."""
    with suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


@contextmanager
def fetching(stop: threading.Event) -> Iterator[Fetcher]:
    """A fetcher, and a folder for what it fetches, which goes at the end.

    With ``FEEDSTOCK_CACHE`` set to a folder, what is fetched is kept there, and fetched again only if the provider says
    that it has changed, or if what is kept is not what was fetched. Raises :class:`Refused` if it cannot be kept there.
    """
    named = os.environ.get("FEEDSTOCK_CACHE")
    cache = Path(named).expanduser() if named else None
    timeout = httpx.Timeout(min(30, patience()), connect=10)
    headers = {"Accept-Encoding": "identity"}  # a length that can be checked, and a file that can be taken up again
    with ExitStack() as stack:
        parent = cache or Path(tempfile.gettempdir())
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(scratch(parent, "feedstock-inputs-"))
        except OSError as error:
            fix = "let FEEDSTOCK_CACHE, or TMPDIR where that is not set, name a folder that the run may write"
            raise Refused(SETTING.at(None, f"no input can be kept in {parent}: {error.strerror}", fix)) from None

        @functools.cache
        def made() -> httpx.Client:
            trusted = certificates.authorities()
            return stack.enter_context(
                httpx.Client(follow_redirects=True, timeout=timeout, headers=headers, verify=trusted)
            )

        one_by_one = threading.Lock()

        def client() -> httpx.Client:
            with one_by_one:
                return made()

        yield Fetcher(folder, client, stop, cache, Room(folder))


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches inputs into a folder; usable from several threads at once."""

    folder: Path
    client: Callable[[], httpx.Client]
    """Made when it is asked for: its certificates take longer to read than a small local input."""
    stop: threading.Event
    cache: Path | None
    room: Room

    def fetch(self, url: str) -> Path:
        """The file of ``url``: itself if it is local, else a copy.

        What may pass (over HTTP: connection errors, 408, 429 and 5xx) is tried again with backoff, over HTTP from where
        it broke off if the server allows that, until for as long as patience lasts nothing came, or less than
        :data:`SLOWEST`, over however many connections. Raises :class:`Refused` naming the URL.
        """
        path = local_path(url)
        if path is not None:
            return _existing(url, path)
        try:
            parts = urlsplit(url)
            # The hash keeps inputs of the same name apart; the name helps whoever looks into the folder.
            name = f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{Path(parts.path).name[-100:]}"
        except ValueError as error:
            raise not_a_url(url, error) from None
        copy = self.folder / name
        download: Download
        if parts.scheme in ("http", "https"):
            download = _OverHttp(self.client(), url, copy, self.stop, self.room)
        else:
            from .file_systems import Copy

            download = Copy(url, copy, self.stop, self.room)
        try:
            if self.cache is not None:
                return self._cached(download, self.cache / name)
            self._download(download)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise disk_full(str(self.folder)) from None
        finally:
            self.room.leave(download)
        return copy

    def _cached(self, download: Download, kept: Path) -> Path:
        copy, note = download.path, kept.with_name(f"{kept.name}.json")
        download.unless = _unless_changed(kept, note)
        self._download(download)
        if download.unchanged:
            log.info("%s has not changed since it was fetched", shown(download.url))
            return kept
        # The note goes first: without it nobody trusts the file, and a run may be killed between the two.
        note.unlink(missing_ok=True)
        copy.replace(kept)
        written = copy.with_suffix(".json")
        written.write_text(json.dumps({"sha256": digest(kept), "unless": download.state}), encoding="utf-8")
        written.replace(note)
        return kept

    def _download(self, download: Download) -> None:
        url, path, seconds = download.url, download.path, download.pace.patience
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((Again, httpx.TransportError)),
            wait=_wait,
            stop=lambda state: download.pace.idle() + state.upcoming_sleep > seconds,
            sleep=tenacity.sleep_using_event(self.stop),
            before_sleep=lambda state: log.warning(
                "%s: %s; trying again in %.1f s", shown(url), _reason(state), state.upcoming_sleep
            ),
            reraise=True,
        )
        try:
            retrying(download)
        except httpx.RemoteProtocolError as error:
            if path.exists() and path.stat().st_size:
                raise _cut_short(url, f"it breaks off after {path.stat().st_size:,} bytes") from None
            raise _unreachable(download, error) from None
        except CutShort as error:
            raise _cut_short(url, str(error)) from None
        except (Slow, httpx.ReadTimeout) as error:
            if not download.pace.most:
                raise _unreachable(download, error) from None
            message = f"{shown(url)} came at {download.pace.rate():,.0f} bytes a second for {seconds:g} s"
            fix = f"try again when the provider sends {SLOWEST:,} a second, or name a faster copy of it in INPUTS"
            raise Refused(SLOW.at(None, message, fix)) from None
        except (Again, httpx.TransportError) as error:
            raise _unreachable(download, error) from None


def _unless_changed(kept: Path, note: Path) -> dict[str, str]:
    """The headers that ask for a file only if it is not the one that is kept; none if that one is not sound."""
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
        sound = noted["sha256"] == digest(kept)
        unless: dict[str, str] = noted["unless"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return unless if sound else {}


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Again(Exception):  # noqa: N818 - reads as what is wanted
    """The server may do better later; after ``seconds``, if it said so."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class CutShort(Again):
    """Less came than there is; the rest may come another time."""


class Slow(Again):
    """It may come faster over another connection."""


class Pace:
    """Whether a download gets on: brings at least :data:`SLOWEST` bytes a second that were not there before."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.size = self.most = 0
        """How many bytes there are, and the most that there ever were."""
        self._got_on = self._attempt = 0, time.monotonic()
        """How many bytes there were when it last got on, and when that was: in all, and in this attempt."""

    def begin(self, have: int) -> None:
        """Begin an attempt with so many bytes."""
        self.size = have
        self._attempt = have, time.monotonic()

    def reach(self, size: int) -> None:
        """Note that there are so many bytes. Raises :class:`Slow` if this attempt is too slow for half of patience."""
        now = time.monotonic()
        self.size, self.most = size, max(self.most, size)
        if _gets_on(self._got_on, size, now):
            self._got_on = size, now
        if _gets_on(self._attempt, size, now):
            self._attempt = size, now
        elif now - self._attempt[1] > self.patience / 2:
            raise Slow(f"slower than {SLOWEST:,} bytes a second")

    def idle(self) -> float:
        """Seconds since it last got on."""
        return time.monotonic() - self._got_on[1]

    def rate(self) -> float:
        """Bytes a second since then."""
        return (self.most - self._got_on[0]) / max(self.idle(), 1e-3)


def _gets_on(since: tuple[int, float], size: int, now: float) -> bool:
    had, then = since
    return size > had and size - had >= SLOWEST * (now - then)


class Room:
    """The space that a folder has for what is being downloaded into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sizes: dict[Download, int] = {}
        self._lock = threading.Lock()

    def take(self, download: Download, size: int) -> None:
        """Keep room for all ``size`` bytes of a download. Raises :class:`Refused` if there is none left for it."""
        with self._lock:
            self._sizes.pop(download, None)
            others = sum(max(0, whole - other.pace.size) for other, whole in self._sizes.items())
            disk = shutil.disk_usage(self.folder)
            left = max(0, disk.free - others)
            if size - download.pace.size > left and disk.total:  # some file systems do not tell, and say 0 of 0
                where = self.folder.parent
                message = f"{shown(download.url)} takes {format_size(size)}, and {where} has {format_size(left)} left"
                raise Refused(FULL.at(None, message, _MAKE_ROOM))
            self._sizes[download] = size

    def leave(self, download: Download) -> None:
        """Keep no more room for a download: it is there, or never will be."""
        with self._lock:
            self._sizes.pop(download, None)


class Download(ABC):
    """One download, called again after each failure; it remembers what it has."""

    def __init__(self, url: str, path: Path, stop: threading.Event, room: Room) -> None:
        self.url = url
        self.path = path
        self.stop = stop
        self.room = room
        self.unless: dict[str, str] | None = None
        """What tells whether the file that is kept has changed; ``None`` where none is kept."""
        self.state: dict[str, str] = {}
        """The same of the file that was downloaded, for the next time."""
        self.unchanged = False
        self.pace = Pace(patience())

    @abstractmethod
    def __call__(self) -> None:
        """Download it, or what is missing of it. Raises :class:`Again` for whatever may pass."""


class _OverHttp(Download):
    """A download over HTTP, which takes up where it broke off; ``unless`` holds headers."""

    def __init__(self, client: httpx.Client, url: str, path: Path, stop: threading.Event, room: Room) -> None:
        super().__init__(url, path, stop, room)
        self.client = client
        self._validator: str | None = None

    def __call__(self) -> None:
        have = self.path.stat().st_size if self.path.exists() else 0
        headers = self.unless or {}
        if self._validator and have:
            headers = {"Range": f"bytes={have}-", "If-Range": self._validator}
        with self._errors(), self.client.stream("GET", self.url, headers=headers) as response:
            self._refuse(response)
            if response.status_code == httpx.codes.NOT_MODIFIED:
                if not headers.keys() & {"If-None-Match", "If-Modified-Since"}:
                    raise Again("the server answered 304 Not Modified, which was not the question")
                self.unchanged = True
                return
            etag, modified = response.headers.get("etag", ""), response.headers.get("last-modified")
            self.state = {"If-None-Match": etag} if etag else {"If-Modified-Since": modified} if modified else {}
            # RFC 9110, 13.1.5: a weak validator cannot vouch that the rest belongs to the beginning.
            self._validator = etag if etag and not etag.startswith("W/") else modified
            continued = response.status_code == httpx.codes.PARTIAL_CONTENT
            self._receive(response, have if continued else 0)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Say of what would fail the next time as well where the URL leads."""
        try:
            yield
        except httpx.TooManyRedirects as error:
            message = f"{shown(self.url)} leads on without end, at last to {shown(str(error.request.url))}"
            fix = "open the URL in a browser: it may ask for a login or have moved"
            raise Refused(FORBIDDEN.at(None, message, fix)) from None
        except httpx.UnsupportedProtocol as error:
            if not error.request.url.scheme:
                raise not_a_url(self.url, error) from None
            end = shown(str(error.request.url))
            message = f"{shown(self.url)} leads to {end}, which is not HTTP"
            raise Refused(PROTOCOL.at(None, message, f"name {end} in INPUTS, if that is the file")) from None
        except (httpx.InvalidURL, UnicodeError) as error:  # the latter of a host whose name is too long for one
            raise not_a_url(self.url, error) from None

    def _receive(self, response: httpx.Response, have: int) -> None:
        self.pace.begin(have)
        with self.path.open("ab" if have else "wb") as file:
            if (length := response.headers.get("content-length", "")).isdigit():
                self.room.take(self, have + int(length))
            for block in response.iter_raw():  # whole blocks would lose the last part of what came
                if self.stop.is_set():
                    raise Stopped
                file.write(block)
                have += len(block)
                self.pace.reach(have)

    def _refuse(self, response: httpx.Response) -> None:
        status, url = response.status_code, shown(self.url)
        reason = f"{status} {response.reason_phrase}".strip()
        if self.stop.is_set():
            raise Stopped
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.path.unlink(missing_ok=True)
            raise Again(reason)
        if status in (408, 429) or status >= 500:
            after = _seconds(response.headers.get("retry-after", ""))
            asks = f", and asks to wait {after:,.0f} s" if after else ""
            raise Again(f"the server answered {reason}{asks}", after)
        if status in (401, 403):
            raise Refused(
                FORBIDDEN.at(None, f"{url} answered {reason}", "use a public URL, or ask the provider for access")
            )
        if status >= 400:
            raise Refused(MISSING.at(None, f"{url} answered {reason}", "correct its URL in INPUTS, or leave it out"))


def _seconds(after: str) -> float | None:
    """A Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3), in seconds from now."""
    if after.isdigit():
        return float(after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(after).timestamp() - time.time())
    except ValueError:
        return None


_backoff = tenacity.wait_exponential_jitter(multiplier=0.5, max=20, jitter=0.5)


def _wait(state: tenacity.RetryCallState) -> float:
    asked = _asked(state.outcome.exception() if state.outcome else None)
    return _backoff(state) if asked is None else asked


def _asked(error: BaseException | None) -> float | None:
    return error.seconds if isinstance(error, Again) else None


def _reason(state: tenacity.RetryCallState) -> str:
    error = state.outcome.exception() if state.outcome else None
    return str(error) or type(error).__name__


def not_a_url(url: str, error: Exception | str) -> Refused:
    """The refusal of an input that is no URL, for this reason."""
    return Refused(PROTOCOL.at(None, f"{shown(url)} cannot be asked for: {error}", "write https://host/path"))


def _cut_short(url: str, how: str) -> Refused:
    fix = "ask the provider to restore the file, or correct its URL in INPUTS"
    return Refused(TRUNCATED.at(None, f"{shown(url)} comes cut off, every time: {how}", fix))


def _unreachable(download: Download, error: Exception) -> Refused:
    reason, tried = str(error) or type(error).__name__, download.pace.idle()
    longer = max(600, (_asked(error) or 0) + 60)
    return Refused(
        UNREACHABLE.at(
            None,
            f"{shown(download.url)} could not be fetched in {tried:.1f} s of trying: {reason}",
            f"try again when the provider is back; FEEDSTOCK_PATIENCE={longer:.0f} waits longer",
        )
    )


def _existing(url: str, path: Path) -> Path:
    try:
        with path.open("rb"):
            return path
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last of a NUL byte, which no name has
        raise Refused(
            MISSING.at(None, f"there is no file {shown(url)}", "correct it in INPUTS, or leave it out")
        ) from None
    except IsADirectoryError:
        raise Refused(MISSING.at(None, f"{shown(url)} is a folder", "name the files in it, one by one")) from None
    except PermissionError:
        raise Refused(FORBIDDEN.at(None, f"{shown(url)} may not be read", f"chmod a+r {path}")) from None
    except OSError as error:  # a name that is too long, or leads in a circle
        message = f"{shown(url)} cannot be opened: {error.strerror}"
        raise Refused(MISSING.at(None, message, "correct it in INPUTS, or leave it out")) from None


_MAKE_ROOM = "free some space; TMPDIR, or FEEDSTOCK_CACHE where it is set, moves where inputs are kept"


def disk_full(where: str) -> Refused:
    """The refusal for a disk that has no space left for what is to be written at ``where``."""
    return Refused(FULL.at(None, f"the disk that holds {where} is full", _MAKE_ROOM))
