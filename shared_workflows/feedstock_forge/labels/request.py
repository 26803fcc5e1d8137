"""Both halves of the handshake: the feedstock's meta.yaml asks, the bakery's grant file grants.

Each half is a branch, made without touching a working tree, and a pull request where there is a token. Which side
starts makes no difference to what stands in the end.
"""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

from ..bakery import (
    CLOSED,
    LABEL_CLOSED,
    UNKNOWN,
    Bakeries,
    BakeryFile,
    GrantFile,
    Limits,
    is_bakery_id,
    over_limit,
    unknown_label,
)
from ..findings import Place, Refused
from ..git import Repository, clone_url
from ..github import GitHub
from ..markdown import block, escape
from ..meta import FILE, FOLDER, Event, slug
from ..quantities import format_duration, format_memory
from ..yaml_file import parse_yaml
from .edit import with_request, with_values
from .grants import SOON, file_name

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
    recipes: tuple[str, ...] = ()
    """More recipes than are agreed on; none is what stands, or every recipe where nothing does."""
    events: tuple[Event, ...] = ()
    """More events than are agreed on; none is what stands, or ``release`` where nothing does."""
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
    """Make both branches. Raises :class:`Refused` where the bakery could not say yes, or a file cannot be edited.

    What is asked for is added to what both sides have agreed on, or are asked in an open request; to agree on less is
    a change that either makes alone.
    """
    branch = f"label/{wish.bakery}/{slug(wish.repository)}.{wish.label}"
    asking, granting = _parent(feedstock, branch), _parent(forge, branch)
    with tempfile.TemporaryDirectory() as scratch:
        bakeries = _bakeries(forge, forge.base, Path(scratch) / "now")
        bakery = _read(bakeries, wish.bakery, forge, forge_name)
        _refuse(bakery, wish)
        standing = _grant(bakeries, wish)
        existing = [path.name for path in bakeries.grants(wish.bakery)]
        going_on = (
            standing if granting == forge.base else _grant(_bakeries(forge, granting, Path(scratch) / "open"), wish)
        )
    text = feedstock.read(asking, META)
    asked = _asked(text, wish)
    mine = going_on.grant if going_on and _is_to(going_on, wish) else None
    recipes = [*(mine.recipes if mine else ()), *wish.recipes] or ["*"]
    wish = replace(
        wish,
        events=_events([*asked, *wish.events]) or _events(mine.events if mine else ["release"]),
        recipes=("*",) if "*" in recipes else tuple(dict.fromkeys(recipes)),
    )
    item: dict[str, Any] = {"id": wish.bakery, "label": wish.label}
    item |= {"on": list(wish.events)} if set(wish.events) != set(asked) else {}
    item |= {"target": wish.target} if wish.target != "default" else {}
    item |= {"resources": wish.resources} if wish.resources else {}
    subject = f"`{wish.label}` at {wish.bakery}"
    title = f"Ask for the label {subject}"
    theirs = _half(wish.repository, feedstock, branch, asking, META, with_request(text, item), title)
    name = going_on.document.path.name if going_on else file_name(wish.repository, wish.label, existing)
    path = f"bakeries/{wish.bakery}/grants/{name}"
    title = f"Grant {subject} to {wish.repository}"
    if bakery.bakery.labels[wish.label].grants == "on-request" and not _covers(standing, wish, today):
        ours = _half(forge_name, forge, branch, granting, path, granted(going_on, wish, today), title)
    else:
        ours = Half(forge_name, forge, branch, granting, path, "", title, changes=False)
    reviewers = tuple(operator.github for operator in bakery.bakery.operators)
    return Request(wish, bakery, theirs, replace(ours, reviewers=reviewers))


def refuse_unknown(forge: Repository, forge_name: str, bakery_id: str) -> None:
    """Raise :class:`Refused` where the forge has no such bakery, before anything else is fetched."""
    forge.refresh()
    with tempfile.TemporaryDirectory() as scratch:
        _read(_bakeries(forge, forge.base, Path(scratch) / "now"), bakery_id, forge, forge_name)


def _bakeries(forge: Repository, commit: str, into: Path) -> Bakeries:
    into.mkdir()
    forge.extract(commit, "bakeries", into)
    return Bakeries.at(into / "bakeries")


def _read(bakeries: Bakeries, bakery_id: str, forge: Repository, forge_name: str) -> BakeryFile:
    """The bakery as the forge's default branch has it, which is what a pull request would change."""
    try:
        return bakeries.read(bakery_id)
    except Refused as refused:
        (finding, *_) = refused.findings
        if finding.rule is not UNKNOWN:
            raise
        where = forge.ask("symbolic-ref", "--short", forge.base) or forge.base.removeprefix("refs/remotes/")
        fix = finding.fix
        if (
            is_bakery_id(bakery_id)
            and forge.ask("cat-file", "-e", f"HEAD:bakeries/{bakery_id}/bakery.yaml") is not None
        ):
            fix = f"let the commit that adds it into {where} first"
        raise Refused(UNKNOWN.at(None, f"{where} of {forge_name} has no bakery `{bakery_id}`", fix)) from None


def _grant(bakeries: Bakeries, wish: Wish) -> GrantFile | None:
    """The grant of the label to a feedstock of this name."""
    files = bakeries.grants_for(wish.bakery, slug(wish.repository)) if wish.bakery in bakeries.ids() else []
    return next((file for file in files if file.grant.label == wish.label), None)


def _is_to(file: GrantFile, wish: Wish) -> bool:
    """Whether a grant is to this very repository, as far as its id is known."""
    grant = file.grant
    return grant.repository.lower() == wish.repository.lower() and wish.repository_id in (0, grant.repository_id)


def _asked(text: str, wish: Wish) -> tuple[str, ...]:
    """The events for which a meta.yaml asks for the label already."""
    data = parse_yaml(text, Path(META)).data
    items = data.get("bakeries") if isinstance(data, dict) else None
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict) and (item.get("id"), item.get("label")) == (wish.bakery, wish.label):
            on = item.get("on", "release")
            return tuple(map(str, on)) if isinstance(on, list) else (str(on),)
    return ()


def _events(said: Iterable[str]) -> tuple[Event, ...]:
    """Each event once, in the order of the manual; whatever else a file says is refused where it is read."""
    return tuple(event for event in get_args(Event) if event in set(said))


def _half(name: str, git: Repository, branch: str, parent: str, path: str, text: str, title: str) -> Half:
    commit = git.commit(branch, parent, {path: text}, title.replace("`", ""))
    changes = git.run("rev-parse", f"{commit}^{{tree}}") != git.run("rev-parse", f"{git.base}^{{tree}}")
    return Half(name, git, branch, commit, path, text, title, changes)


def _parent(git: Repository, branch: str) -> str:
    """What the branch goes on from: the open request's, if there is one, else the default branch."""
    git.refresh()
    there = f"refs/remotes/origin/{branch}"
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
    """Whether a grant stands that says all that is wished for, and goes on for a while."""
    if file is None or file.grant.revoked or not _is_to(file, wish):
        return False
    grant = file.grant
    return (
        (grant.expires is None or grant.expires >= (wish.expires or today + SOON))
        and ("*" in grant.recipes or set(wish.recipes) <= set(grant.recipes))
        and set(wish.events) <= set(grant.events)
        and over_limit(wish.memory, wish.cpu, grant.limits, None) is None
    )


def granted(file: GrantFile | None, wish: Wish, today: datetime.date) -> str:
    """The grant's file: a new one, or the one that stands with what is wished for added, its comments kept."""
    if file is None or not _is_to(file, wish):
        return grant_text(wish, today)
    grant = file.grant
    values: dict[str, Any] = {}
    if "*" not in grant.recipes and not set(wish.recipes) <= set(grant.recipes):
        values["recipes"] = list(wish.recipes)
    if not set(wish.events) <= set(grant.events):
        values["events"] = list(_events([*grant.events, *wish.events]))
    if over_limit(wish.memory, wish.cpu, grant.limits, None):
        memory, cpu = grant.limits.memory, grant.limits.cpu
        most = {"memory": format_memory(max(memory, wish.memory or 0))} if memory else {}
        values["limits"] = most | ({"cpu": max(cpu, wish.cpu or 0)} if cpu else {})
    if wish.expires or (grant.expires and grant.expires < today + YEAR):
        values["expires"] = str(wish.expires or today + YEAR)
    if grant.revoked:
        values["revoked"] = False
    return with_values(file.document.text, file.document.path, values) or grant_text(wish, today)


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
            # The feedstock's own form for such a pull request; GitHub passes over a name that it does not know.
            f"    {server}/{half.repository}/compare/{half.branch}?expand=1&template=label-request.md",
        ]
    if request.forge.changes:
        lines += [
            "or, without a clone of the forge, propose the grant here:",
            f"    {_editor(request.forge, server)}",
        ]
    return lines


def page(request: Request, server: str) -> str:
    """The same as Markdown for a job's summary, whose branches end with the job: two changes to make in the browser."""
    wish = request.wish
    lines = [
        f"### Two changes to propose, so that `{wish.label}` at {wish.bakery} runs {wish.repository}",
        "",
        "This workflow has no token (the secret `FORGE_TOKEN`) with which it could open the pull requests. Each",
        "link below leads to GitHub's editor, which makes one; where you may not write, it makes a fork for you first.",
    ]
    for number, half in enumerate((half for half in request.halves if half.changes), start=1):
        change = half.git.run("diff", half.git.base, half.commit, "--", half.path)
        shown = [line for line in change.splitlines() if not line.startswith(("diff --git", "index "))]
        title, where = escape(half.title), _editor(half, server)
        lines += ["", f"{number}. [{title}]({where}): `{half.path}` of {half.repository} is to say", ""]
        lines.append(block("\n".join(shown), "diff"))
    lines += [
        "",
        "Write into each pull request where the other is. On your own machine, with `GITHUB_TOKEN` set, one command",
        f"does all of it: `feedstock label request {wish.bakery} {wish.label}`.",
    ]
    return "\n".join(lines)


def _editor(half: Half, server: str) -> str:
    """GitHub's page on which a half's file is made or edited."""
    place = f"{server}/{half.repository}"
    if half.git.ask("cat-file", "-e", f"{half.git.base}:{half.path}") is not None:
        return f"{place}/edit/{half.git.default_branch}/{quote(half.path)}"
    filled = f"filename={quote(half.path, safe='')}&value={quote(half.text, safe='')}"
    return f"{place}/new/{half.git.default_branch}?{filled}"


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
