"""The dataset's store: where its URL points, what is published there, and how a new state is published at once."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import icechunk
import zarr
from zarr.abc.store import Store as ZarrStore
from zarr.storage import LocalStore

from ..findings import Refused, rule
from . import places
from .places import BUSY, UNWRITABLE, claimed, foreign, move_into_place, refuse_foreign

UNKNOWN = rule("target-store-unknown", "The ending of the dataset's URL says how it is stored.")
NOT_ATOMIC = rule(
    "target-not-atomic", "On object storage nothing replaces a folder at once, so readers would see half of it."
)

_BAKING = "baking"
"""The branch whose newest snapshot holds the progress of a run that has published nothing yet."""

_TAKEN_UP = "baking-taken-up"
"""The branch that stays at the snapshot from which a run goes on."""

if "ICECHUNK_LOG" not in os.environ:
    # It warns that its local storage takes one commit at a time, which the claim sees to.
    icechunk.set_logs_filter("error")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A published state of an Icechunk repository: its id and what its commit says."""

    id: str
    metadata: dict[str, Any]


class Store(Protocol):
    """A dataset's store, claimed for one run."""

    def published(self) -> ZarrStore | None:
        """The published dataset, read-only, or ``None`` if there is none."""

    def ensure_writable(self) -> None:
        """Find out whether a run may publish, before it works for it. Raises :class:`Refused`."""

    def begin(self, *, keep: bool, fork: bool = False) -> ZarrStore:
        """A store to write the next state into: with what is published, or empty. Forgets what an earlier run kept.

        Only with ``fork`` can it be sent to other processes, and its progress be kept.
        """

    def kept(self) -> dict[str, Any] | None:
        """What a run that has published nothing kept of its progress, if what is published is still what it was."""

    def take_up(self) -> ZarrStore:
        """The store that such a run has begun, to go on with."""

    def keep(self, progress: dict[str, Any], message: str) -> None:
        """Keep what is written so far for the next run, should this one publish nothing."""

    def publish(self, message: str, metadata: dict[str, Any], tag: str | None) -> None:
        """Make the next state the published one, all at once."""

    def head(self) -> Snapshot | None:
        """The newest published state, if the store keeps its history."""

    def tagged(self, tag: str) -> Snapshot | None:
        """The state that bears the tag, if the store knows tags and has it."""

    def tag(self, tag: str) -> None:
        """Tag the published state."""


@contextmanager
def claim(target: str) -> Iterator[Store]:
    """Claim the store at ``target`` for one run.

    Raises :class:`Refused` if the URL names no kind of store, another run is at it, it may not be written, or
    something that is no dataset is there.
    """
    kind = target.rstrip("/").rpartition(".")[2]
    if kind not in ("icechunk", "zarr"):
        fix = f"end it in .icechunk or .zarr: {target.rstrip('/')}.icechunk"
        raise Refused(UNKNOWN.at(None, f"{target} does not say how the dataset is stored", fix))
    path = places.path_of(target)
    if path is None:
        if kind == "zarr":
            fix = f"use {target.rstrip('/').removesuffix('.zarr')}.icechunk, whose commits are atomic"
            raise Refused(NOT_ATOMIC.at(None, f"{target} is plain Zarr on object storage", fix))
        yield IcechunkStore(target, partial(object_storage, target))
        return
    with claimed(path) as folder:
        if kind == "zarr":
            yield LocalZarr(path, folder)
        else:
            refuse_foreign(path, "repo", "refs", "snapshots")
            yield IcechunkStore(target, partial(icechunk.local_filesystem_storage, str(path)), path, folder)


class LocalZarr:
    """A plain Zarr v3 store in a folder."""

    def __init__(self, path: Path, folder: Path) -> None:
        refuse_foreign(path, "zarr.json")
        self.path = path
        self.folder = folder
        self.staged = folder / places.STORE

    def published(self) -> ZarrStore | None:
        """The store in its folder."""
        return LocalStore(self.path, read_only=True) if self.path.exists() else None

    def ensure_writable(self) -> None:
        """Nothing to do: the claim has made a folder where the dataset goes."""

    def begin(self, *, keep: bool, fork: bool = False) -> ZarrStore:  # noqa: ARG002 - a folder is anybody's
        """A folder to move into place; with ``keep``, of links to the published files.

        Zarr writes a file under another name and moves it over the old one, so a link's other end never changes. Before
        3.1.3 it wrote into the file itself, which is why pyproject.toml asks for no older one.
        """
        places.forget(self.folder)
        shutil.rmtree(self.staged, ignore_errors=True)
        if keep:
            shutil.copytree(self.path, self.staged, copy_function=_link)
        return LocalStore(self.staged)

    def kept(self) -> dict[str, Any] | None:
        """What is noted beside the folder."""
        progress = places.noted(self.folder)
        return progress if progress is not None and progress.pop("base", None) == self._base() else None

    def take_up(self) -> ZarrStore:
        """The folder that is there."""
        return LocalStore(self.staged)

    def keep(self, progress: dict[str, Any], message: str) -> None:  # noqa: ARG002 - it keeps no history
        """Note it once every chunk is on the disk."""
        os.sync()
        places.note(self.folder, {**progress, "base": self._base()})

    def _base(self) -> str:
        """What tells the published state from any other; each has a file of its own."""
        try:
            stat = (self.path / "zarr.json").stat()
        except OSError:
            return ""
        return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"

    def publish(self, message: str, metadata: dict[str, Any], tag: str | None) -> None:  # noqa: ARG002 - it keeps no history
        """Exchange the folders; the old one goes with the claim."""
        with warnings.catch_warnings():
            # Zarr warns that consolidated metadata is an extension; readers that do not know it ignore it.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(LocalStore(self.staged))
        places.forget(self.folder)
        move_into_place(self.staged, self.path)

    def head(self) -> Snapshot | None:
        """Nothing: it keeps no history."""

    def tagged(self, tag: str) -> Snapshot | None:
        """Nothing: it knows no tags."""

    def tag(self, tag: str) -> None:
        """Nothing to do."""


class IcechunkStore:
    """An Icechunk repository; one that is new on this machine is made aside and moved into place."""

    def __init__(
        self,
        target: str,
        storage: Callable[[], icechunk.Storage],
        path: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        self.target = target
        self.storage = storage
        self.path = path
        self.folder = folder
        self.staged = folder / places.STORE if folder else None
        self.branch = "main"
        """The branch from which the session starts."""
        self.session: icechunk.Session | None = None
        self.fork: icechunk.ForkSession | None = None
        self.repository: icechunk.Repository | None = None
        self.state: str | None = None
        """The snapshot that the main branch had when the run looked, and that only this run may follow."""
        # Only to ask for the storage of a folder makes the folder.
        if path is None or path.exists():
            with storage_errors(target):
                there = storage()
                if icechunk.Repository.exists(there):
                    self.repository = icechunk.Repository.open(there)
                    self.state = self.repository.lookup_branch("main")

    def published(self) -> ZarrStore | None:
        """The newest snapshot of the main branch, unless nothing was ever committed."""
        if self.repository is None or self.head() is None:
            return None
        store: ZarrStore = self.repository.readonly_session(snapshot_id=self.state).store
        return store

    def ensure_writable(self) -> None:
        """Do early what publishing takes: move the main branch, to where it is; or make the repository, still empty.

        That is the conditional write of a commit, and needs no other leave; it leaves the published state as it was.
        """
        with storage_errors(self.target):
            try:
                if self.repository is not None and self.state:
                    # Refused where it has moved, so it never goes back.
                    self.repository.reset_branch("main", self.state, from_snapshot_id=self.state)
                elif self.path is None:
                    self.repository = icechunk.Repository.create(self.storage())
                    self.state = self.repository.lookup_branch("main")
            except icechunk.IcechunkError as error:
                if self._has_moved():
                    raise _overtaken() from None
                if "clean prefixes" in str(error):
                    raise foreign(self.target) from None
                raise

    def _has_moved(self) -> bool:
        """Whether another run has made the repository or moved its main branch since this run looked."""
        if self.repository is None:
            return icechunk.Repository.exists(self.storage())
        return self.repository.lookup_branch("main") != self.state

    def begin(
        self,
        *,
        keep: bool,
        fork: bool = False,
        containers: Mapping[str, tuple[icechunk.VirtualChunkContainer, Any]] | None = None,
    ) -> ZarrStore:
        """A session on the main branch, or a fork of one.

        ``containers`` are where references are to lead, by URL prefix, each with the credentials to read there; the
        repository keeps the containers for its readers, and no credentials.
        """
        config = allowed = None
        if containers:
            config = self.repository.config if self.repository else icechunk.RepositoryConfig.default()
            for container, _ in containers.values():
                config.set_virtual_chunk_container(container)
            allowed = icechunk.containers_credentials({prefix: given for prefix, (_, given) in containers.items()})
        if self.repository is None:
            self._forget()
            if self.staged:
                shutil.rmtree(self.staged, ignore_errors=True)
            storage = icechunk.local_filesystem_storage(str(self.staged)) if self.staged else self.storage()
            self.repository = icechunk.Repository.create(storage, config, allowed)
            self.state = self.repository.lookup_branch("main")
        else:
            self.staged = None
            self._forget()
            if containers:
                self.repository = self.repository.reopen(config, allowed)
                self.repository.save_config()
        store = self._start(self.repository, fork=fork)
        if not keep:
            zarr.open_group(store, mode="w", zarr_format=3)
        return store

    def kept(self) -> dict[str, Any] | None:
        """What the newest snapshot of the side branch says."""
        repository = self.repository or self._half_made()
        if repository is None or _BAKING not in repository.list_branches():
            return None
        progress = dict(next(iter(repository.ancestry(branch=_BAKING))).metadata)
        state = self.state if self.repository is not None else repository.lookup_branch("main")
        return progress if progress.pop("base", None) == state else None

    def take_up(self) -> ZarrStore:
        """A fork of a session on the snapshot that :meth:`kept` speaks of."""
        if self.repository is not None:
            self.staged = None
        else:
            self.repository = self._half_made()
            assert self.repository is not None  # noqa: S101 - the order of calls
            self.state = self.repository.lookup_branch("main")
        _point(self.repository, _TAKEN_UP, self.repository.lookup_branch(_BAKING))
        self.branch = _TAKEN_UP
        return self._start(self.repository, fork=True)

    def keep(self, progress: dict[str, Any], message: str) -> None:
        """Point the side branch at a snapshot with everything written so far, while the session goes on."""
        assert self.repository is not None  # noqa: S101 - the order of calls
        assert self.session is not None  # noqa: S101
        assert self.fork is not None  # noqa: S101
        if self.branch != "main":
            _point(self.repository, self.branch, self.session.snapshot_id)  # another run may have removed it
        copy = self.repository.writable_session(self.branch)
        if copy.snapshot_id != self.session.snapshot_id or self._has_moved():
            raise _overtaken()
        copy.merge(self.fork)
        _point(self.repository, _BAKING, copy.flush(message, {**progress, "base": self.state}))
        if self.staged and self.folder:
            places.note(self.folder, progress)

    def _start(self, repository: icechunk.Repository, *, fork: bool) -> ZarrStore:
        self.session = repository.writable_session(self.branch)
        if self.branch == "main" and self.session.snapshot_id != self.state:
            raise _overtaken()
        # Only a fork can be sent to other processes or merged into two sessions, one to go on with and one to keep;
        # and only a session without changes can be forked.
        self.fork = self.session.fork() if fork else None
        store: ZarrStore = (self.fork or self.session).store
        return store

    def _half_made(self) -> icechunk.Repository | None:
        """The repository that an earlier run has begun beside where it is to be."""
        if self.folder is None or places.noted(self.folder) is None:
            return None
        return icechunk.Repository.open(icechunk.local_filesystem_storage(str(self.staged)))

    def _forget(self) -> None:
        if self.folder:
            places.forget(self.folder)
        if self.repository is not None:
            for branch in self.repository.list_branches() & {_BAKING, _TAKEN_UP}:
                # On object storage another run may be at it; whichever publishes last will be refused.
                with suppress(icechunk.IcechunkError):
                    self.repository.delete_branch(branch)

    def publish(self, message: str, metadata: dict[str, Any], tag: str | None) -> None:
        """Commit what the session has changed, tag the snapshot, and move a new repository into place."""
        assert self.repository is not None  # noqa: S101 - the order of calls
        assert self.session is not None  # noqa: S101
        if self.fork is not None:
            self.session.merge(self.fork)
        try:
            if self.branch == "main":
                if self.session.has_uncommitted_changes:  # Icechunk refuses a commit of nothing
                    self.state = self.session.commit(message, metadata)
            else:
                # What was taken up stays in the history: Icechunk 1 cannot make one snapshot of two.
                snapshot = self.session.flush(message, metadata)
                self.repository.reset_branch("main", snapshot, from_snapshot_id=self.state)
                self.state = snapshot
        except icechunk.ConflictError:
            raise _overtaken() from None
        except icechunk.IcechunkError:
            if self._has_moved():
                raise _overtaken() from None
            raise
        if tag:
            self.tag(tag)
        self._forget()
        if self.path and self.staged:
            move_into_place(self.staged, self.path)

    def head(self) -> Snapshot | None:
        """The newest snapshot of the main branch when the run looked; the one that it begins with does not count."""
        if self.repository is None:
            return None
        info = next(iter(self.repository.ancestry(snapshot_id=self.state)))
        return Snapshot(info.id, dict(info.metadata)) if info.parent_id else None

    def tagged(self, tag: str) -> Snapshot | None:
        """The snapshot of the tag."""
        if self.repository is None or _tag_name(tag) not in self.repository.list_tags():
            return None
        info = next(iter(self.repository.ancestry(tag=_tag_name(tag))))
        return Snapshot(info.id, dict(info.metadata))

    def tag(self, tag: str) -> None:
        """Tag what this run has published, or found."""
        assert self.repository is not None  # noqa: S101 - the order of calls
        assert self.state is not None  # noqa: S101
        self.repository.create_tag(_tag_name(tag), self.state)


def _overtaken() -> Refused:
    fix = "run it again: it starts from what the other run has published"
    return Refused(BUSY.at(None, "another run has published this dataset meanwhile", fix))


def _point(repository: icechunk.Repository, branch: str, snapshot: str) -> None:
    """Make the branch end at the snapshot, whether there is such a branch or not."""
    if branch in repository.list_branches():
        repository.reset_branch(branch, snapshot)
    else:
        repository.create_branch(branch, snapshot)


def _tag_name(version: str) -> str:
    # Git's tags may have a slash, Icechunk's may not.
    return version.replace("/", "-")


def object_storage(target: str) -> icechunk.Storage:
    """Icechunk's storage for an object store's URL; keys and regions come from the environment.

    ``AWS_SKIP_SIGNATURE`` and ``GOOGLE_SKIP_SIGNATURE`` read what is public without any, as obstore has it too.
    """
    parts = urlsplit(target.rstrip("/"))
    scheme, bucket, prefix = parts.scheme, parts.netloc, parts.path.lstrip("/")
    if scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return icechunk.s3_storage(
            bucket=bucket,
            prefix=prefix,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            endpoint_url=endpoint,
            allow_http=bool(endpoint and endpoint.startswith("http://")),
            # Servers other than Amazon's seldom have a host name for each bucket.
            force_path_style=endpoint is not None,
            anonymous=_is_set("AWS_SKIP_SIGNATURE"),
            from_env=not _is_set("AWS_SKIP_SIGNATURE"),
        )
    if scheme in ("gs", "gcs"):
        anonymous = _is_set("GOOGLE_SKIP_SIGNATURE")
        return icechunk.gcs_storage(bucket=bucket, prefix=prefix, anonymous=anonymous, from_env=not anonymous)
    if scheme in ("az", "abfs"):
        account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
        if not account:
            raise Refused(
                UNWRITABLE.at(
                    None, f"{target} needs a storage account", "set AZURE_STORAGE_ACCOUNT_NAME where the run happens"
                )
            )
        return icechunk.azure_storage(account=account, container=bucket, prefix=prefix, from_env=True)
    raise Refused(
        UNKNOWN.at(None, f"{target}: `{scheme}` is not a kind of storage known here", "use file, s3, gs or az")
    )


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true")


def storage_errors(where: str) -> AbstractContextManager[None]:
    """Turn what the storage of the dataset raises into a refusal."""
    return places.storage_errors(where, icechunk.IcechunkError)


def _link(source: str, copy: str) -> None:
    try:
        os.link(source, copy)
    except OSError:
        shutil.copy2(source, copy)
