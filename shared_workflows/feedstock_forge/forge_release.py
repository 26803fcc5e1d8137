"""A release of the forge itself: its version, its part of the changelog, a tag, and its page on GitHub.

The ledger says which commit each version is, since a clone may lack tags. No commit can name itself, so a release is
two of them: the first is the version and carries the tag, the second writes it into the ledger. Both are made aside and
arrive on the branch at once; if the tag is still missing then, the same command makes it.

Run by `make release` and by `.github/workflows/release.yml`; docs/organisations.md is its manual.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from packaging.version import Version

from .cli import main
from .findings import Place, Refused, Who, rule
from .git import Repository
from .github import GitHub
from .yaml_file import parse_yaml, read_text

LEDGER = "releases.yaml"
CHANGELOG = "CHANGELOG.md"
BRANCH = "main"
UNRELEASED = "## Unreleased"

# Where the version stands, and what surrounds it there.
VERSIONED = {
    "pyproject.toml": r'(?m)^(version = ")[^"]+(")$',
    "shared_workflows/feedstock_forge/__init__.py": r'(?m)^(__version__ = ")[^"]+(")$',
    "uv.lock": r'(?m)^(name = "feedstock-forge"\nversion = ")[^"]+(")$',
}

BAD_VERSION = rule("forge-version-invalid", "Feedstocks compare versions; each is newer.", who=Who.ORGANISATION)
NOT_READY = rule("forge-not-ready", "A release is what everybody sees on the branch.", who=Who.ORGANISATION)
NO_NOTES = rule("forge-changes-missing", "Maintainers read what an update brings.", who=Who.ORGANISATION)
BAD_TAG = rule("forge-tag-differs", "Whoever takes a tag expects the version that it names.", who=Who.ORGANISATION)


@dataclass(frozen=True, slots=True)
class Release:
    """A released version and its commit."""

    version: str
    commit: str

    @property
    def tag(self) -> str:
        """The tag that names it in git and on GitHub."""
        return f"v{self.version}"


def ledger(folder: Path) -> list[Release]:
    """What was released by the commit that a checkout is at, oldest first.

    What only stands in the working tree does not count: a release that was stopped may have left it there.
    """
    rows = parse_yaml(Repository(folder).read("HEAD", LEDGER), Path(LEDGER)).data
    return [Release(version, commit) for version, commit in rows.items()]


def notes(folder: Path, version: str | None = None) -> str:
    """The entries of a version in the changelog, or of what is not released yet. Raises :class:`Refused` for none."""
    heading = rf"## {re.escape(version)} \([\d-]+\)" if version else re.escape(UNRELEASED)
    found = re.search(rf"(?ms)^{heading}\n(.*?)(?=^## |\Z)", read_text(folder / CHANGELOG))
    if not found or not re.search(r"^- \S", found[1], re.MULTILINE):
        what = f"has no entry under {f'`## {version} (<date>)`' if version else f'`{UNRELEASED}`'}"
        fix = "write a line for each change that users notice"
        raise Refused(NO_NOTES.at(Place(str(folder / CHANGELOG)), f"{CHANGELOG} {what}", fix))
    return found[1].strip()


def check(folder: Path, version: str) -> Release | None:
    """Whether a version can be released from a checkout; the release, if an earlier attempt made its commits already.

    Raises :class:`Refused` with everything that stands in the way.
    """
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version, re.ASCII):
        raise Refused(BAD_VERSION.at(None, f"`{version}` is no version", "write three numbers, such as 0.2.0"))
    repository = Repository(folder)
    released = ledger(folder)
    tagged = repository.resolve(f"refs/tags/v{version}")
    if done := next((release for release in released if release.version == version), None):
        if tagged not in (None, done.commit):
            message = f"the tag {done.tag} is at {tagged}, the ledger says {done.commit}"
            fix = f"look which is right; `git tag --delete {done.tag}` removes the tag"
            raise Refused(BAD_TAG.at(Place(LEDGER), message, fix))
        return done
    findings = []
    if released and Version(version) <= Version(released[-1].version):
        message = f"{version} is not newer than {released[-1].version}"
        findings.append(BAD_VERSION.at(Place(LEDGER), message, "write a greater one"))
    if tagged:
        message = f"there is a tag v{version} at {tagged}, and the ledger does not know it"
        findings.append(BAD_TAG.at(Place(LEDGER), message, f"`git tag -d v{version}` if it is a leftover"))
    if (branch := repository.ask("symbolic-ref", "--short", "HEAD")) != BRANCH:
        message = f"this is {branch or 'no branch'}, not {BRANCH}"
        findings.append(NOT_READY.at(None, message, f"`git switch {BRANCH}`"))
    if changed := repository.run("status", "--porcelain").splitlines():
        message = f"{len(changed)} files are not committed: {', '.join(line[3:] for line in changed[:5])}"
        findings.append(NOT_READY.at(None, message, "commit, stash or remove them (`git restore .` undoes changes)"))
    remote = repository.resolve(f"refs/remotes/origin/{BRANCH}")
    if remote and repository.ask("merge-base", "--is-ancestor", remote, "HEAD") is None:
        findings.append(NOT_READY.at(None, f"origin/{BRANCH} has commits that are not here", "`git pull --ff-only`"))
    try:
        notes(folder)
    except Refused as refused:
        findings += refused.findings
    if findings:
        raise Refused(*findings)
    return None


def cut(folder: Path, version: str) -> Release:
    """Release a version: its commit with changelog and version, the ledger's, and the tag. Run again, it goes on.

    Raises :class:`Refused` as :func:`check`, or if git does.
    """
    repository = Repository(folder)
    release = check(folder, version)
    if release is None:
        with tempfile.TemporaryDirectory(prefix="forge-release-") as scratch:
            aside = Path(scratch, "forge")
            repository.run("worktree", "add", "--quiet", "--detach", str(aside), "HEAD")
            try:
                release = _commit_version(aside, version)
                _commit_ledger(aside, release)
                made = Repository(aside).run("rev-parse", "HEAD").strip()
            finally:
                repository.ask("worktree", "remove", "--force", str(aside))
        repository.run("merge", "--quiet", "--ff-only", made)
    if repository.resolve(f"refs/tags/{release.tag}") is None:
        message = f"Feedstock Forge {version}\n\n{notes(folder, version)}\n"
        repository.run("tag", "--annotate", "--cleanup=verbatim", f"--message={message}", release.tag, release.commit)
    return release


def _commit_version(folder: Path, version: str) -> Release:
    for name, pattern in VERSIONED.items():
        path = folder / name
        text, count = re.subn(pattern, rf"\g<1>{version}\g<2>", read_text(path, max_bytes=1 << 24))
        if count != 1:
            message = f"{name} says the version {count} times"
            raise Refused(NOT_READY.at(Place(name), message, "let it stand there once"))
        path.write_text(text, encoding="utf-8")
    changelog = folder / CHANGELOG
    dated = f"## {version} ({datetime.now(UTC).date()})"
    changelog.write_text(read_text(changelog).replace(UNRELEASED, dated, 1), encoding="utf-8")
    repository = Repository(folder)
    repository.run("commit", "--quiet", "--all", "--signoff", "--message", f"Release {version}")
    return Release(version, repository.run("rev-parse", "HEAD").strip())


def _commit_ledger(folder: Path, release: Release) -> None:
    path = folder / LEDGER
    row = f"{release.version}: {release.commit}\n"
    path.write_text(read_text(path).removesuffix("{}\n") + row, encoding="utf-8")
    changelog = folder / CHANGELOG
    text = read_text(changelog)
    changelog.write_text(text.replace(f"## {release.version} (", f"{UNRELEASED}\n\n## {release.version} (", 1), "utf-8")
    message = f"Write {release.version} into the ledger, and begin the next changes"
    Repository(folder).run("commit", "--quiet", "--all", "--signoff", "--message", message)


def publish(folder: Path, tag: str, github: GitHub, repository: str) -> str:
    """Publish the version of a checkout as a release on GitHub, with its part of the changelog; returns its page.

    What is published already stays as it is. Raises :class:`Refused` if the tag is not the checkout's version.
    """
    (version,) = re.findall(r'(?m)^version = "(.+)"$', read_text(folder / "pyproject.toml"))
    if tag != f"v{version}":
        fix = "release with `make release`, which makes version and tag agree"
        raise Refused(BAD_TAG.at(Place("pyproject.toml"), f"the tag is {tag}, the version {version}", fix))
    text = notes(folder, version)
    made = github.release(repository, tag) or github.create_release(
        repository, tag=tag, name=f"Feedstock Forge {version}", body=text
    )
    return str(made["html_url"])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Release the forge itself."""


@command.command("check")
@click.argument("version")
def _check(version: str) -> None:
    """Say whether VERSION could be released now."""
    release = check(Path(), version)
    click.echo(f"{version} was begun at {release.commit[:12]}" if release else f"{version} can be released")


@command.command("cut")
@click.argument("version")
def _cut(version: str) -> None:
    """Make the commits and the tag of VERSION."""
    release = cut(Path(), version)
    click.echo(f"{release.tag} is {release.commit}, and the ledger knows it. Nothing has left this machine. Next:")
    click.echo(f"    git push --atomic origin {BRANCH} {release.tag}      # the workflow Release then publishes it")
    click.echo("Or take it back:")
    click.echo(f"    git tag --delete {release.tag} && git reset --keep {release.commit[:12]}~1")


@command.command("publish")
@click.argument("tag")
@click.option(
    "--repository", envvar="GITHUB_REPOSITORY", metavar="OWNER/NAME", required=True,
    help="The forge's. [default: $GITHUB_REPOSITORY]",
)  # fmt: skip
def _publish(tag: str, repository: str) -> None:
    """Publish TAG on GitHub, from its checkout."""
    with GitHub.from_environment(os.environ, say=lambda words: click.echo(words, err=True)) as github:
        page = publish(Path(), tag, github, repository)
    click.echo(f"{tag} is published: {page}")


if __name__ == "__main__":
    main(command=command, name="make release")
