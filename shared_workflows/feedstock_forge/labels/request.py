"""Both halves of the handshake: the feedstock's meta.yaml asks, the bakery's grant file grants.

Each half is a branch, made without touching a working tree, and a pull request where there is a token. Which side
starts makes no difference to what stands in the end.
"""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..bakery import CLOSED, LABEL_CLOSED, Bakeries, BakeryFile, GrantFile, Limits, over_limit, unknown_label
from ..findings import Place, Refused
from ..git import Repository
from ..github import GitHub
from ..markdown import escape
from ..meta import FILE, FOLDER, Event
from ..quantities import format_duration, format_memory
from .edit import with_request
from .grants import feedstock_of, file_name

META = f"{FOLDER}/{FILE}"
FORK_SECONDS = 60.0
YEAR = datetime.timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be asked and granted."""

    repository: str
    repository_id: int
    """0 where GitHub could not be asked; the grant then waits for it."""
    bakery: str
    label: str
    recipes: tuple[str, ...] = ("*",)
    events: tuple[Event, ...] = ("release",)
    memory: int | None = None
    """Bytes."""
    cpu: float | None = None
    target: str = "default"
    reason: str = ""
    expires: datetime.date | None = None

    @property
    def resources(self) -> dict[str, Any]:
        """The resources as YAML writes them."""
        memory = {"memory": format_memory(self.memory)} if self.memory else {}
        return memory | ({"cpu": self.cpu} if self.cpu else {})


@dataclass(frozen=True, slots=True)
class Half:
    """One half: a branch that is ready, and what its pull request says."""

    repository: str
    git: Repository
    branch: str
    commit: str
    path: str
    text: str
    title: str
    changes: bool
    """Whether anything is left to agree on; ``False`` where this side has consented already."""
    reviewers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """Both halves, and what their pull requests have in common."""

    wish: Wish
    bakery: BakeryFile
    feedstock: Half
    forge: Half

    @property
    def halves(self) -> tuple[Half, Half]:
        """The feedstock's half and the forge's."""
        return self.feedstock, self.forge


def prepare(feedstock: Repository, forge: Repository, forge_name: str, wish: Wish, today: datetime.date) -> Request:
    """Make both branches. Raises :class:`Refused` where the bakery could not say yes, or a file cannot be edited."""
    branch = f"label/{wish.bakery}/{feedstock_of(wish.repository)}.{wish.label}"
    with tempfile.TemporaryDirectory() as scratch:
        forge.extract(forge.base, "bakeries", Path(scratch))
        bakeries = Bakeries.at(Path(scratch) / "bakeries")
        bakery = bakeries.read(wish.bakery)
        _refuse(bakery, wish)
        known = bakeries.grants_for(wish.bakery, feedstock_of(wish.repository))
        existing = [path.name for path in bakeries.grants(wish.bakery)]
    asking = _parent(feedstock, branch)
    text = feedstock.read(asking, META)
    item: dict[str, Any] = {"id": wish.bakery, "label": wish.label, "on": list(wish.events)}
    item |= {"target": wish.target} if wish.target != "default" else {}
    item |= {"resources": wish.resources} if wish.resources else {}
    text = with_request(text, item)
    subject = f"`{wish.label}` at {wish.bakery}"
    mine = _half(wish.repository, feedstock, branch, asking, META, text, f"Ask for the label {subject}")
    granted = next((file for file in known if file.grant.label == wish.label), None)
    name = granted.document.path.name if granted else file_name(wish.repository, wish.label, existing)
    path = f"bakeries/{wish.bakery}/grants/{name}"
    granting = _parent(forge, branch)
    needed = bakery.bakery.labels[wish.label].grants == "on-request" and not _covers(granted, wish, today)
    content = grant_text(wish, today) if needed else ""
    title = f"Grant {subject} to {wish.repository}"
    if needed:
        theirs = _half(forge_name, forge, branch, granting, path, content, title)
    else:
        theirs = Half(forge_name, forge, branch, granting, path, content, title, changes=False)
    reviewers = tuple(operator.github for operator in bakery.bakery.operators)
    return Request(wish, bakery, mine, replace(theirs, reviewers=reviewers))


def _half(name: str, git: Repository, branch: str, parent: str, path: str, text: str, title: str) -> Half:
    commit = git.commit(branch, parent, {path: text}, title.replace("`", ""))
    changes = git.run("rev-parse", f"{commit}^{{tree}}") != git.run("rev-parse", f"{git.base}^{{tree}}")
    return Half(name, git, branch, commit, path, text, title, changes)


def _parent(git: Repository, branch: str) -> str:
    """What the branch goes on from: the open request's, if there is one, else the default branch."""
    there = f"refs/remotes/origin/{branch}"
    git.ask("fetch", "--quiet", "origin", f"+refs/heads/{branch}:{there}")
    for ref in (there, f"refs/heads/{branch}"):
        if git.resolve(ref) and git.ask("merge-base", "--is-ancestor", ref, git.base) is None:
            return ref
    return git.base


def _refuse(bakery: BakeryFile, wish: Wish) -> None:
    """Raise :class:`Refused` where asking would be in vain."""
    spec = bakery.bakery.labels.get(wish.label)
    if spec is None:
        raise Refused(unknown_label(bakery, wish.label))
    operators = ", ".join(f"@{operator.github}" for operator in bakery.bakery.operators)
    if bakery.bakery.closed:
        raise Refused(CLOSED.at(None, f"the bakery {bakery.id} is closed", f"ask {operators}"))
    if spec.grants == "closed":
        raise Refused(LABEL_CLOSED.at(None, f"{bakery.id} has closed the label `{wish.label}`", f"ask {operators}"))
    place = Place(f"bakeries/{bakery.id}/bakery.yaml", bakery.document.place(("labels", wish.label)).line)
    if finding := over_limit(wish.memory, wish.cpu, spec.limits, place):
        raise Refused(finding)


def _covers(file: GrantFile | None, wish: Wish, today: datetime.date) -> bool:
    """Whether a grant stands that says all that is wished for."""
    if file is None or file.grant.revoked or (file.grant.expires and file.grant.expires < today):
        return False
    grant = file.grant
    return (
        grant.repository_id == wish.repository_id
        and ("*" in grant.recipes or set(wish.recipes) <= set(grant.recipes))
        and set(wish.events) <= set(grant.events)
        and over_limit(wish.memory, wish.cpu, grant.limits, None) is None
    )


def grant_text(wish: Wish, today: datetime.date) -> str:
    """The grant's file."""
    recipes = ", ".join(f'"{recipe}"' for recipe in wish.recipes)
    limits = ", ".join(f"{key}: {value}" for key, value in wish.resources.items())
    ask = "" if wish.repository_id else f"  # gh api repos/{wish.repository} --jq .id"
    lines = [
        f"# What {wish.bakery} has agreed to run for {wish.repository}; its operators review every change.",
        f"repository: {wish.repository}",
        f"repository_id: {wish.repository_id}{ask}",
        f"label: {wish.label}",
        f"recipes: [{recipes}]",
        f"events: [{', '.join(wish.events)}]",
        *([f"limits: {{{limits}}}"] if limits else []),
        f"expires: {wish.expires or today + YEAR}",
    ]
    return "\n".join(lines) + "\n"


def body(request: Request, other: str) -> str:
    """What a pull request says; ``other`` is where the other half stands."""
    wish, described = request.wish, request.bakery.bakery
    spec = described.labels[wish.label]
    target = described.targets.get(wish.target)
    operators = ", ".join(f"@{operator.github}" for operator in described.operators)
    asks = [format_memory(wish.memory) if wish.memory else "", f"{wish.cpu:g} cores" if wish.cpu else ""]
    events = " and ".join({"release": "each release", "merge": "each merge"}[event] for event in wish.events)
    recipes = "every recipe" if "*" in wish.recipes else ", ".join(f"`{escape(name)}`" for name in wish.recipes)
    lines = [
        f"Let **{wish.repository}** run at **{wish.bakery}** on the label **`{wish.label}`**.",
        *(["", f"> {escape(wish.reason)}"] if wish.reason else []),
        "",
        "| what | |",
        "|---|---|",
        f"| runs | {recipes}, on {events}{', pruned' if spec.prune == 'required' else ''} |",
        f"| where | work pool `{described.work_pool.name}` ({escape(described.work_pool.type)}) |",
        f"| asks for | {', '.join(filter(None, asks)) or 'nothing in particular'} |",
        f"| limits of the label | {_limits(spec.limits)} |",
        f"| writes below | {escape(target.url) if target else f'`{wish.target}`, which the bakery lacks'} |",
        f"| at whose cost | the bakery's: {escape(described.description)} |",
        f"| until | {wish.expires or 'a year from the grant'} |",
        "",
        f"**The feedstock's maintainers consent** to their recipes running there, by `{META}`.",
        f"**The bakery's operators consent** to running them within these limits, by `{request.forge.path}`.",
        "Both halves are needed; either can be taken back by one commit.",
        "",
        f"The other half: {other}",
        "",
        "- [ ] the recipes were run with `feedstock run --prune`",
        "- [ ] the resources are what a full run needs",
        f"- [ ] an operator of {wish.bakery} ({operators}) has approved the grant",
        "- [ ] a maintainer of the feedstock has approved the request",
    ]
    return "\n".join(lines) + "\n"


def _limits(limits: Limits) -> str:
    said = [
        format_memory(limits.memory) if limits.memory else "",
        f"{limits.cpu:g} cores" if limits.cpu else "",
        format_duration(limits.runtime) if limits.runtime else "",
    ]
    return ", ".join(filter(None, said)) or "none"


def instructions(request: Request, server: str) -> list[str]:
    """What to push by hand, where there is no token."""
    lines = []
    for half in request.halves:
        if not half.changes:
            lines.append(f"{half.repository}: has consented already")
            continue
        lines += [
            f"{half.repository}: the branch {half.branch} is ready",
            f"    git -C {half.git.folder} push origin {half.branch}",
            f"    {server}/{half.repository}/compare/{half.branch}?expand=1",
        ]
    forge = request.forge
    if forge.changes:
        link = f"filename={quote(forge.path, safe='')}&value={quote(forge.text, safe='')}"
        lines += [
            "or, without a clone of the forge, propose the grant here:",
            f"    {server}/{forge.repository}/new/HEAD?{link}",
        ]
    return lines


def propose(client: GitHub, request: Request, server: str, say: Callable[[str], None]) -> list[str]:
    """Push both branches and open both pull requests, linked; those that are open already are brought up to date.

    Returns their pages. Raises :class:`Refused` with a ``github-*`` or ``git-*`` finding; doing it again goes on.
    """
    pulls: dict[str, dict[str, Any]] = {}
    for half in request.halves:
        if half.changes:
            pulls[half.repository] = _open(client, request, half, server, say)
    for half, other in zip(request.halves, reversed(request.halves), strict=True):
        if half.repository not in pulls:
            continue
        pull = pulls[half.repository]
        there = pulls.get(other.repository)
        wanted = body(request, there["html_url"] if there else f"{other.repository} has consented already")
        if (pull.get("body") or "") != wanted:
            client.update_pull(half.repository, pull["number"], body=wanted)
    return [str(pull["html_url"]) for pull in pulls.values()]


def _open(client: GitHub, request: Request, half: Half, server: str, say: Callable[[str], None]) -> dict[str, Any]:
    there = client.repository(half.repository) or {}
    owner, url = half.repository.split("/")[0], clone_url(server, half.repository)
    if not (there.get("permissions") or {}).get("push"):
        fork = client.fork(half.repository)
        owner, url = fork["owner"]["login"], clone_url(server, fork["full_name"])
        say(f"{half.repository} cannot be pushed to: using the fork {fork['full_name']}")
        _wait(half.git, url)
    there_now = half.git.ask("ls-remote", url, f"refs/heads/{half.branch}") or ""
    if there_now.split("\t")[0] != half.commit:
        half.git.run("push", "--quiet", url, f"{half.commit}:refs/heads/{half.branch}")
    head = f"{owner}:{half.branch}"
    if found := client.open_pulls(half.repository, head):
        say(f"the request is open already: {found[0]['html_url']}")
        return found[0]
    pull = client.create_pull(
        half.repository,
        head=head,
        base=str(there.get("default_branch", "main")),
        title=half.title,
        body=body(request, "is being opened"),
    )
    say(f"opened {pull['html_url']}")
    _ask(client, half, pull, say)
    return pull


def _ask(client: GitHub, half: Half, pull: dict[str, Any], say: Callable[[str], None]) -> None:
    """Ask the reviewers; nobody can review their own, and GitHub knows only collaborators."""
    author = str(pull["user"]["login"]).lower()
    if asked := [login for login in half.reviewers if login.lower() != author]:
        try:
            client.request_reviewers(half.repository, pull["number"], asked)
        except Refused as refused:
            say(f"GitHub asks nobody for a review ({refused}); the pull request mentions {', '.join(asked)}")


def _wait(git: Repository, url: str) -> None:
    """Wait for a new fork, which GitHub fills after it has answered."""
    end = time.monotonic() + FORK_SECONDS
    while git.ask("ls-remote", url) is None and time.monotonic() < end:
        time.sleep(1)


def clone_url(server: str, repository: str) -> str:
    """Where git clones a repository from."""
    return f"{server.rstrip('/')}/{repository}{'' if server.startswith('file:') else '.git'}"
