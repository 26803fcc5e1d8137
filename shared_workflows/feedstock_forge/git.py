"""Git, spoken to in one place: reading files at a commit, and commits made without touching anybody's working tree."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .findings import Refused, rule
from .yaml_file import MAX_BYTES

FAILED = rule("git-failed", "Branches and commits are git's; without it nothing can be prepared or read.")
NOT_A_REPOSITORY = rule("git-no-repository", "What is asked for and granted is a change to a git repository.")
NO_FILE = rule("git-file-missing", "The commit is what was reviewed, and it does not hold this file.")

FORGE = {
    "GIT_AUTHOR_NAME": "Feedstock Forge",
    "GIT_AUTHOR_EMAIL": "feedstock-forge@users.noreply.github.com",
    "GIT_COMMITTER_NAME": "Feedstock Forge",
    "GIT_COMMITTER_EMAIL": "feedstock-forge@users.noreply.github.com",
}
"""The environment in which git names the forge itself as who commits."""

_GITHUB = re.compile(
    r"(?:gh:|(?:git\+)?(?:https?|ssh|git)://(?:[^/@]+@)?(?:www\.|ssh\.)?github\.com(?::[0-9]+)?/|(?:[^/@]+@)?github\.com:)"
    r"/*([\w.-]+/[\w.-]+?)/*(?:\.git)?/*",
    re.ASCII,
)
_REMOTE = re.compile(r"([^/:]+)/([^/]+?)(?:\.git)?/?\Z")


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository in a folder."""

    folder: Path
    token: str | None = None
    """Sent to ``server`` only, and never on a command line, where every process could read it."""
    server: str = ""

    def run(self, *arguments: str, stdin: str | None = None, environment: Mapping[str, str] | None = None) -> str:
        """Run git here and return what it prints. Raises :class:`Refused` with git's own words if it fails."""
        return self._output(arguments, stdin, environment).decode("utf-8", "surrogateescape")

    def ask(self, *arguments: str) -> str | None:
        """What git prints, or ``None`` if it says no."""
        done = self._run(arguments, None, None)
        return None if done.returncode else done.stdout.decode("utf-8", "surrogateescape").strip()

    def attempt(self, *arguments: str) -> tuple[int, bytes]:
        """Git's status and what it prints, for commands that answer with the status."""
        done = self._run(arguments, None, None)
        return done.returncode, done.stdout

    def _output(self, arguments: tuple[str, ...], stdin: str | None, environment: Mapping[str, str] | None) -> bytes:
        done = self._run(arguments, stdin, environment)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"it ended with {done.returncode}"]
            told = [line for line in said if line.startswith(("fatal:", "error:", "remote:"))] or said
            if rejected := [line.strip() for line in said if "rejected]" in line]:
                told = ["; ".join([*rejected, *(line for line in told if line.startswith("remote:"))])]
            message = f"git {arguments[0]} in {self.folder}: {told[0]}"
            raise Refused(FAILED.at(None, message, "mend what git names, then run the same command again"))
        return done.stdout

    def _run(
        self, arguments: tuple[str, ...], stdin: str | None, environment: Mapping[str, str] | None
    ) -> subprocess.CompletedProcess[bytes]:
        extra = {"GIT_TERMINAL_PROMPT": "0", **(environment or {})}
        if self.token and self.server.startswith("https://"):
            basic = base64.b64encode(f"x-access-token:{self.token}".encode()).decode()
            extra |= {
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": f"http.{self.server}/.extraHeader",
                "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
            }
        try:
            return subprocess.run(
                ["git", "-C", str(self.folder), *arguments],
                input=(stdin or "").encode("utf-8", "surrogateescape"),
                env=os.environ | extra,
                capture_output=True,
                check=False,
            )
        except FileNotFoundError:
            raise Refused(FAILED.at(None, "git is not installed here", "install git")) from None

    @property
    def name(self) -> str | None:
        """``owner/name`` by the URL of ``origin``, if there is one."""
        match = _REMOTE.search(self.ask("remote", "get-url", "origin") or "")
        return f"{match[1]}/{match[2]}" if match else None

    @property
    def base(self) -> str:
        """What a new branch starts from: the default branch of ``origin`` as last fetched, or the branch that is out.

        Raises :class:`Refused` if this is no repository or has no commit.
        """
        for ref in ("refs/remotes/origin/HEAD", "refs/remotes/origin/main", "HEAD"):
            if self.ask("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"):
                return ref
        message = f"{self.folder} is no git repository with a commit"
        raise Refused(NOT_A_REPOSITORY.at(None, message, "run this in a clone, or name one"))

    @property
    def default_branch(self) -> str:
        """The name of the default branch of ``origin``, as far as it is known here."""
        known = self.ask("symbolic-ref", "--short", "refs/remotes/origin/HEAD")
        return (known or self.ask("symbolic-ref", "--short", "HEAD") or "main").removeprefix("origin/")

    def refresh(self) -> None:
        """Bring what is known of ``origin`` up to date; without a network it stays as it was."""
        fetched = self.ask("fetch", "--quiet", "--prune", "origin", "+refs/heads/*:refs/remotes/origin/*")
        if fetched is not None and self.ask("symbolic-ref", "--quiet", "refs/remotes/origin/HEAD") is None:
            self.ask("remote", "set-head", "origin", "--auto")

    def resolve(self, ref: str) -> str | None:
        """The commit that a ref names, if it is here."""
        return self.ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")

    def read(self, commit: str, path: str) -> str:
        """A text file at a commit. Raises :class:`Refused` if it is not there, no file, too large or not UTF-8."""
        entry = self.run("ls-tree", "-z", commit, "--", path)
        if not entry.startswith("100"):
            message = f"{path} is no file at {commit[:12]}"
            raise Refused(NO_FILE.at(None, message, f"commit {path}"))
        size = int(self.run("cat-file", "-s", f"{commit}:{path}"))
        if size > MAX_BYTES:
            raise Refused(NO_FILE.at(None, f"{path} has {size:,} bytes at {commit[:12]}", "shorten it"))
        try:
            return self._output(("cat-file", "blob", f"{commit}:{path}"), None, None).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused(NO_FILE.at(None, f"{path} is not UTF-8 at {commit[:12]}", "save it as UTF-8")) from None

    def blob(self, name: str) -> bytes:
        """The content of a blob. Raises :class:`Refused` if it is not here."""
        return self._output(("cat-file", "blob", name), None, None)

    def extract(self, commit: str, folder: str, into: Path, *, without: Iterable[str] = ()) -> None:
        """Write the files below a folder at a commit into ``into``; nothing leaves it, whatever the tree holds.

        As a checkout would write them: with the modes that the umask gives. ``without`` names folders that stay away.
        """
        left = (f":(exclude,top){name}" for name in without)
        packed = self._output(("archive", "--format=tar", commit, "--", folder, *left), None, None)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(into, filter=_as_checked_out)  # noqa: S202 (a filter that refuses what would leave)
            for member in archive:
                if member.isreg() and member.mode & 0o100:
                    path = into / member.name
                    path.chmod((mode := path.stat().st_mode) | (mode & 0o444) >> 2)

    def commit(self, branch: str, parent: str, files: Mapping[str, str], message: str) -> str:
        """Commit files on top of ``parent`` as a branch, and return the commit; no working tree is touched.

        A commit that would change nothing is not made: the branch then is the parent.
        """
        with tempfile.TemporaryDirectory() as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            self.run("read-tree", parent, environment=index)
            for path, text in files.items():
                blob = self.run("hash-object", "-w", "--stdin", stdin=text).strip()
                self.run("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", environment=index)
            tree = self.run("write-tree", environment=index).strip()
        made = self.run("rev-parse", f"{parent}^{{commit}}").strip()
        if tree != self.run("rev-parse", f"{parent}^{{tree}}").strip():
            made = self.run("commit-tree", tree, "-p", parent, stdin=message).strip()
        self.run("update-ref", f"refs/heads/{branch}", made)
        return made


def _as_checked_out(member: tarfile.TarInfo, into: str) -> tarfile.TarInfo:
    """Refuse what would leave the folder, and take no mode from the archive, so that the umask decides."""
    return tarfile.data_filter(member, into).replace(mode=None, deep=False)  # type: ignore[arg-type]


def clone_url(server: str, repository: str) -> str:
    """Where git clones ``owner/name`` from; GitHub's addresses end in ``.git``, a folder of repositories has none."""
    return f"{server.rstrip('/')}/{repository}{'' if server.startswith('file:') else '.git'}"


def fetch(url: str, commit: str, folder: Path, *, token: str | None = None, server: str = "") -> Repository:
    """Fetch one commit into an empty folder. Raises :class:`Refused` if it cannot be had."""
    repository = Repository(folder, token, server)
    repository.run("init", "--quiet", "--bare")
    repository.run("fetch", "--quiet", "--depth", "1", "--no-tags", "--", url, commit)
    return repository


def clone(url: str, folder: Path, *, token: str | None = None, server: str = "") -> Repository:
    """A clone of a repository without a working tree, or the one that an earlier call made, brought up to date."""
    repository = Repository(folder, token, server)
    if folder.exists():
        repository.run("fetch", "--quiet", "--prune", "origin")
        return repository
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Under another name until it is whole: who stops it here finds no half of it next time.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        partial = Repository(Path(scratch) / "clone", token, server)
        partial.folder.mkdir()
        partial.run("clone", "--quiet", "--no-checkout", "--filter=blob:none", "--", url, ".")
        partial.folder.rename(folder)
    return repository


def github_name(address: str) -> str | None:
    """The ``owner/name`` that a git address names, if it is one on GitHub; copier.yml reads addresses the same way."""
    found = _GITHUB.fullmatch(address)
    return found[1] if found else None
