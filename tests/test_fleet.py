"""An organisation's feedstocks: each gets one branch and one pull request, whatever happens in between."""

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import copier
import pytest

from feedstock_forge import cli
from feedstock_forge.pace import Pace, Stopped
from feedstock_forge.template import CHECK_WORKFLOW, OWN_CHECK, same_place
from support import git_server, github, prefect, templates
from support.feedstocks import git

NAMES = ["ocean/a-feedstock", "ocean/b-feedstock", "ocean/c-feedstock"]


@pytest.fixture(scope="module")
def forge(tmp_path_factory):
    """A release, and a newer one with a changelog that changes a workflow and the README."""
    folder = templates.release(tmp_path_factory.mktemp("server") / "ocean-forge/forge")
    path = folder / "template/README.md"
    path.write_text(path.read_text().replace("## Release it", "## Publish it"))
    path = folder / f"template/{CHECK_WORKFLOW}"
    path.write_text(path.read_text().replace("  merge_group:\n", "  merge_group:\n  workflow_dispatch:\n"))
    (folder / "CHANGELOG.md").write_text("# Changelog\n\n## 2.0.0\n\n- Checks start by hand too,\n  for @everyone.\n")
    templates.commit(folder, "v2.0.0")
    return folder


@pytest.fixture(scope="module")
def made(forge, tmp_path_factory):
    """A feedstock at v1.0.0."""
    folder = tmp_path_factory.mktemp("made") / "feedstock"
    copier.run_copy(str(forge), folder, data=templates.ANSWERS, vcs_ref="v1.0.0", defaults=True, quiet=True)
    return templates.begin(folder)


class Said(NamedTuple):
    stdout: str
    stderr: str


@dataclass
class Organisation:
    """The stand-in with three feedstocks, one of which has changed what the template changes, and a website."""

    hub: github.GitHub
    forge: Path
    token: str

    @property
    def environment(self):
        server = self.hub.folder.as_uri()
        return {"GITHUB_API_URL": self.hub.url, "GITHUB_SERVER_URL": server, "GITHUB_TOKEN": self.token}

    def run(self, *arguments, code=0, template=None, **environment):
        """Run the command in this process, which spares Copier's import."""
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(io.StringIO()) as stdout,
            contextlib.redirect_stderr(io.StringIO()) as stderr,
        ):
            for name, value in (self.environment | environment).items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as left:
                cli.main(["update", "--template", str(template or self.forge), *arguments])
        said = Said(stdout.getvalue(), stderr.getvalue())
        assert left.value.code == code, said
        return said

    def branches(self, name):
        return git(self.hub.folder / name, "for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines()

    def state(self):
        """All that a run leaves behind, but for the moments in which it was made."""
        shown = {}
        for name in self.hub.repositories:
            refs = {ref: git(self.hub.folder / name, "rev-parse", f"{ref}^{{tree}}") for ref in self.branches(name)}
            logs = {ref: git(self.hub.folder / name, "log", "--format=%an %s %b", ref) for ref in refs}
            pulls = [{key: pull[key] for key in ("title", "body", "branch", "state")} for pull in self.hub.pulls[name]]
            shown[name] = (refs, logs, pulls)
        return shown


@pytest.fixture
def ocean(forge, made, tmp_path):
    with github.serve(tmp_path / "server") as hub:
        hub.folder.mkdir()
        organisation = Organisation(hub, forge, hub.person("forge[bot]", 7))
        populate(organisation, made)
        yield organisation
        assert hub.problems == []


def populate(ocean, made):
    for number, name in enumerate([*NAMES, "ocean/website"], start=1):
        git(ocean.hub.folder, "clone", "--quiet", "--bare", str(made), name)
        ocean.hub.repositories[name] = number
        ocean.hub.roles[name, "forge[bot]"] = "write"
    change(ocean, "ocean/website", ".copier-answers.yml", None)
    readme = git(made, "show", "HEAD:README.md").replace("## Release it", "## How we release") + "\n"
    change(ocean, NAMES[1], "README.md", readme)


def change(ocean, name, path, text, branch="main"):
    """Commit a file to a branch of a repository on the server, or remove it."""
    folder = ocean.hub.folder / name
    work = folder.with_name(f"{folder.name}-work")
    git(folder, "worktree", "add", "--quiet", "--force", str(work), branch)
    if text is None:
        (work / path).unlink()
    else:
        (work / path).write_text(text, encoding="utf-8")
    templates.commit(work)
    git(folder, "worktree", "remove", str(work))


def test_each_feedstock_gets_one_pull_request_that_says_what_changes_and_what_is_left(ocean):
    done = ocean.run("ocean/*", "--pace", "0")
    assert "v2.0.0: 3 to update, 0 not; 1 are no feedstocks of this template" in done.stdout
    assert "[3/3] ocean/c-feedstock: v2.0.0 is https://github.com/ocean/c-feedstock/pull/1" in done.stdout
    for name in NAMES:
        (pull,) = ocean.hub.pulls[name]
        assert ocean.branches(name) == ["main", "template/v2.0.0"]
        assert pull["title"] == "Update the template to v2.0.0"
        assert "- Checks start by hand too, for @\u2060everyone." in pull["body"]
        assert f"- `{CHECK_WORKFLOW}`" in pull["body"]
        assert "workflow_dispatch" in git(ocean.hub.folder / name, "show", f"template/v2.0.0:{CHECK_WORKFLOW}")
    assert "**Left to you:**" not in ocean.hub.pulls[NAMES[0]][0]["body"]
    body = ocean.hub.pulls[NAMES[1]][0]["body"]
    assert re.search(r"- `README\.md`\n\n<details>.*\n\n```\n<<<<<<< before updating\n## How we release\n", body)
    assert "<<<<<<< " not in git(ocean.hub.folder / NAMES[1], "show", "template/v2.0.0:README.md")


def test_a_second_run_changes_nothing_and_a_merged_feedstock_is_not_cloned(ocean):
    ocean.run("ocean/*", "--pace", "0")
    before, asked = ocean.state(), len(ocean.hub.requests)
    git(ocean.hub.folder / NAMES[0], "branch", "--force", "main", "template/v2.0.0")
    ocean.hub.pulls[NAMES[0]][0]["state"] = "closed"
    done = ocean.run("ocean/*")
    assert "ocean/a-feedstock: has v2.0.0 already" in done.stdout
    assert "ocean/b-feedstock: v2.0.0 waits for you: https://github.com/ocean/b-feedstock/pull/1" in done.stdout
    assert [asked for asked in ocean.hub.requests[asked:] if not asked.startswith("GET")] == []
    assert not any("a-feedstock/pulls" in asked for asked in ocean.hub.requests[asked:])
    assert {name: ocean.state()[name] for name in NAMES[1:]} == {name: before[name] for name in NAMES[1:]}


def test_an_open_pull_request_gets_the_newer_version_on_top_of_what_people_added(ocean):
    ocean.run(NAMES[1], "--pace", "0")
    change(ocean, NAMES[1], "NOTES.md", "Settled.\n", branch="template/v2.0.0")
    newer = ocean.hub.folder / "newer"
    git(ocean.hub.folder, "clone", "--quiet", str(ocean.forge), str(newer))
    (newer / "template/NEW.md").write_text("New.\n")
    templates.commit(newer, "v3.0.0")
    ocean.run(NAMES[1], "--pace", "0", template=newer)
    (pull,) = ocean.hub.pulls[NAMES[1]]
    assert (pull["title"], pull["branch"]) == ("Update the template to v3.0.0", "template/v2.0.0")
    assert "from `v1.0.0` to `v3.0.0`" in pull["body"]
    folder = ocean.hub.folder / NAMES[1]
    assert git(folder, "show", "template/v2.0.0:NEW.md") == "New."
    assert git(folder, "show", "template/v2.0.0:NOTES.md") == "Settled."
    assert ocean.branches(NAMES[1]) == ["main", "template/v2.0.0"]


def test_a_closed_pull_request_is_a_no_to_that_version(ocean):
    ocean.run(NAMES[0], "--pace", "0")
    ocean.hub.pulls[NAMES[0]][0]["state"] = "closed"
    done = ocean.run(NAMES[0])
    assert "v2.0.0 was declined: https://github.com/ocean/a-feedstock/pull/1" in done.stdout
    assert len(ocean.hub.pulls[NAMES[0]]) == 1


def test_a_dry_run_prints_the_plan_and_the_budget_and_changes_nothing(ocean):
    before = ocean.state()
    done = ocean.run("ocean/*", "--dry-run")
    assert "ocean/b-feedstock: would get v2.0.0 in" in done.stdout
    assert "    left to you: README.md" in done.stdout
    assert "about 9 to come, 3 of them changes at 1 s or more from one to the next; 4,990 of 5,000" in done.stdout
    assert ocean.state() == before
    assert {asked.split()[0] for asked in ocean.hub.requests} == {"GET"}


def test_a_private_feedstock_is_found_with_the_token_alone(ocean):
    ocean.hub.private.add(NAMES[2])
    assert "c-feedstock" in ocean.run("ocean/*", "--dry-run").stdout
    hidden = ocean.run("ocean/*", "--dry-run", GITHUB_TOKEN="")
    assert "c-feedstock" not in hidden.stdout
    refused = ocean.run(NAMES[2], "--dry-run", GITHUB_TOKEN="", code=1)
    assert "error[github-not-found]" in refused.stderr


def test_the_feedstocks_of_a_person_are_found_and_the_private_ones_by_that_person_alone(ocean):
    for number, name in enumerate(["ada/open-feedstock", "ada/hidden-feedstock"], start=20):
        git(ocean.hub.folder, "clone", "--quiet", "--bare", NAMES[0], name)
        ocean.hub.repositories[name] = number
    ocean.hub.private.add("ada/hidden-feedstock")
    token = ocean.hub.person("ada", 8, {"ada/open-feedstock": "admin", "ada/hidden-feedstock": "admin"})
    assert "v2.0.0: 2 to update" in ocean.run("ada/*", "--dry-run", GITHUB_TOKEN=token).stdout
    assert "v2.0.0: 1 to update" in ocean.run("ada/*", "--dry-run").stdout


def test_a_private_feedstock_is_cloned_and_pushed_with_the_token_which_no_command_line_shows(ocean, tmp_path):
    ocean.hub.private.add(NAMES[0])
    wrapper = tmp_path / "bin/git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/commands\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    path = f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}"
    with git_server.serve(ocean.hub.folder, ocean.token, tmp_path) as server:
        where = {"GITHUB_SERVER_URL": server.url, "GIT_SSL_CAINFO": str(server.certificate), "PATH": path}
        done = ocean.run(NAMES[0], "--pace", "0", **where)
    assert ocean.branches(NAMES[0]) == ["main", "template/v2.0.0"]
    commands = (tmp_path / "commands").read_text()
    assert f"push --quiet -- {server.url}/{NAMES[0]}.git" in commands
    assert not {word for said in (commands, *done) for word in (ocean.token, "Basic ") if word in said}


def test_what_goes_wrong_in_one_feedstock_is_reported_and_the_others_go_on(ocean):
    hook = ocean.hub.folder / NAMES[0] / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    hook.chmod(0o755)
    ocean.hub.archived.add("ocean/old-feedstock")
    git(ocean.hub.folder, "clone", "--quiet", "--bare", NAMES[2], "ocean/old-feedstock")
    ocean.hub.repositories["ocean/old-feedstock"] = 9
    done = ocean.run("ocean/*", "ocean/old-feedstock", "ocean/website", "ocean/typo", "--pace", "0", code=3)
    for found in ("git-failed", "feedstock-archived", "feedstock-not-generated", "github-not-found"):
        assert f"error[{found}]" in done.stderr
    assert "pre-receive hook declined" in done.stderr
    assert [len(ocean.hub.pulls[name]) for name in NAMES] == [0, 1, 1]


def test_a_feedstock_of_another_template_is_passed_over_and_refused_only_by_name(ocean):
    answers = git(ocean.hub.folder / NAMES[0], "show", "main:.copier-answers.yml")
    change(ocean, NAMES[0], ".copier-answers.yml", re.sub(r"_src_path: .*", "_src_path: gh:else/where", answers) + "\n")
    done = ocean.run("ocean/*", "--dry-run")
    assert "2 to update, 0 not; 2 are no feedstocks of this template" in done.stdout
    assert "error[template-other]" in ocean.run(NAMES[0], "--dry-run", code=1).stderr


@pytest.mark.parametrize(
    ("conclusion", "code", "pulls"),
    [("success", 0, [1, 1, 1]), ("failure", 3, [1, 0, 0]), (None, 3, [1, 0, 0])],
    ids=["passing", "failing", "unending"],
)
def test_the_rest_waits_for_the_canarys_checks(ocean, conclusion, code, pulls):
    status = "completed" if conclusion else "in_progress"
    ocean.hub.checks[NAMES[0], "*"] = [{"name": "Check / Check", "status": status, "conclusion": conclusion}]
    waiting = ("--canary", "1", "--canary-minutes", "0", "--pace", "0")
    done = ocean.run("ocean/*", *waiting, code=code)
    assert [len(ocean.hub.pulls[name]) for name in NAMES] == pulls
    if code:
        why = {"failure": "Check / Check failed on", None: "no verdict within 0 minutes on"}[conclusion]
        assert f"{why} https://github.com/ocean/a-feedstock/pull/1" in done.stderr
        assert "2 feedstocks stay as they are" in done.stdout
        # Run again, it looks at the same canary before it does anything else.
        ocean.hub.checks[NAMES[0], "*"] = [{"name": "Check / Check", "status": "completed", "conclusion": "neutral"}]
        ocean.run("ocean/*", *waiting)
        assert [len(ocean.hub.pulls[name]) for name in NAMES] == [1, 1, 1]


def passed(name):
    return {"name": name, "status": "completed", "conclusion": "success"}


@pytest.mark.parametrize(("conclusion", "code", "pulls"), [("success", 0, [1, 1, 1]), ("failure", 3, [1, 0, 0])])
def test_a_check_that_passes_at_once_does_not_speak_for_the_feedstocks_own(ocean, conclusion, code, pulls):
    listed = ocean.hub.checks[NAMES[0], "*"]
    listed.append(passed("DCO"))
    looks = []

    def appear(asked):
        if asked.startswith(f"done GET /repos/{NAMES[0]}/commits/") and asked.endswith("/check-runs"):
            looks.append(asked)
            own = {"name": "Check / Check", "status": "queued", "conclusion": None}
            ended = own | {"status": "completed", "conclusion": conclusion}
            listed[1:] = [own] if len(looks) < 3 else [ended]

    ocean.hub.watchers.append(appear)
    done = ocean.run("ocean/*", "--canary", "1", "--canary-poll", "0.01", "--pace", "0", code=code)
    assert [len(ocean.hub.pulls[name]) for name in NAMES] == pulls
    assert len(looks) == 4
    assert ("Check / Check failed on" in done.stderr) is bool(code)


def test_a_canary_whose_own_check_never_appears_has_no_verdict(ocean):
    ocean.hub.checks[NAMES[0], "*"] = [passed("DCO")]
    done = ocean.run("ocean/*", "--canary", "1", "--canary-minutes", "0", "--pace", "0", code=3)
    assert "no verdict within 0 minutes" in done.stderr
    assert "where `Check / Check` has not appeared" in done.stderr
    assert [len(ocean.hub.pulls[name]) for name in NAMES] == [1, 0, 0]


def test_a_canary_without_the_templates_check_is_looked_at_until_two_looks_agree(ocean):
    change(ocean, NAMES[0], CHECK_WORKFLOW, None)
    listed = ocean.hub.checks[NAMES[0], "*"]
    listed.append(passed("DCO"))
    ocean.hub.watchers.append(
        lambda asked: asked.startswith("done") and asked.endswith("/check-runs") and listed.insert(1, passed("tests"))
    )
    ocean.run("ocean/*", "--canary", "1", "--canary-poll", "0.01", "--pace", "0")
    looks = [asked for asked in ocean.hub.requests if asked.endswith("/check-runs")]
    assert len(looks) == 3
    assert [len(ocean.hub.pulls[name]) for name in NAMES] == [1, 1, 1]


def test_the_name_of_the_feedstocks_own_check_is_that_of_its_jobs():
    called = (templates.ROOT / CHECK_WORKFLOW).read_text(encoding="utf-8")
    calling = (templates.ROOT / "template" / CHECK_WORKFLOW).read_text(encoding="utf-8")
    jobs = [re.findall(r"^    name: (.+)$", text, re.MULTILINE) for text in (calling, called)]
    assert " / ".join(name for (name,) in jobs) == OWN_CHECK


@pytest.mark.parametrize(
    ("token", "scopes"), [("", None), ("the-jobs-own", None), ("token-of-forge[bot]", "repo, read:org")]
)
def test_a_token_that_may_not_push_workflows_is_refused_before_anything_is_pushed(ocean, token, scopes):
    before = ocean.state()
    if scopes:
        ocean.hub.headers["x-oauth-scopes"] = scopes
    done = ocean.run("ocean/*", code=1, GITHUB_TOKEN=token, FEEDSTOCK_JOB_TOKEN="the-jobs-own")
    assert "error[token-without-workflows]" in done.stderr
    assert ocean.state() == before


def test_when_github_refuses_a_workflow_the_run_ends_at_once(ocean):
    for name in NAMES:
        hook = ocean.hub.folder / name / "hooks/update"
        said = "refusing to allow a GitHub App to create or update workflow `x.yml` without `workflows` permission"
        hook.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
        hook.chmod(0o755)
    done = ocean.run("ocean/*", "--canary", "1", "--jobs", "1", "--pace", "0", code=1)
    assert "error[token-without-workflows]" in done.stderr
    assert "stopped: 2 feedstocks stay as they are" in done.stdout


BEFORE_ITS_PULL_REQUEST = f"POST /repos/{NAMES[1]}/pulls"  # its branch is pushed by then
MOMENTS = [
    f"GET /repos/{NAMES[0]}/contents/.copier-answers.yml",
    f"GET /repos/{NAMES[1]}/pulls",
    BEFORE_ITS_PULL_REQUEST,
    f"done {BEFORE_ITS_PULL_REQUEST}",
]


@pytest.mark.parametrize("moments", [MOMENTS[2:3], pytest.param(MOMENTS, marks=pytest.mark.slow)], ids=["one", "all"])
def test_killed_at_any_moment_and_run_again_it_ends_as_if_undisturbed(forge, made, tmp_path, moments):
    ends = []
    for number, moment in enumerate([None, *moments]):
        with github.serve(tmp_path / f"server-{number}") as hub:
            hub.folder.mkdir()
            ocean = Organisation(hub, forge, hub.person("forge[bot]", 7))
            populate(ocean, made)
            if moment:
                killed_at(ocean, moment, tmp_path)
            ocean.run("ocean/*", "--pace", "0")
            assert hub.problems == []
            ends.append(ocean.state())
    assert ends[1:] == ends[:1] * len(moments)


def killed_at(ocean, moment, tmp_path):
    """Run an update and kill it when a request arrives."""
    arguments = ["update", "--template", str(ocean.forge), "ocean/*", "--jobs", "1", "--pace", "0"]
    running = []

    def kill(asked):
        if asked == moment and running:
            os.kill(running.pop().pid, signal.SIGKILL)

    ocean.hub.watchers.append(kill)
    with ocean.hub.lock:  # nothing is answered before we know whom to kill
        process = subprocess.Popen(
            [sys.executable, "-m", "feedstock_forge", *arguments],
            env=prefect.quiet(tmp_path / "home") | ocean.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        running.append(process)
    assert process.wait(timeout=120) == -signal.SIGKILL


def test_all_requests_wait_when_github_says_so_and_the_run_goes_on(ocean):
    ocean.hub.faults += [
        (f"GET /repos/{NAMES[1]}/pulls", 429, {"retry-after": "1"}),
        (f"POST /repos/{NAMES[2]}/pulls", 403, {"retry-after": "1"}),
    ]
    # The hour's budget is nearly used up, and there is a new one in a second.
    reset = str(int(time.time()) + 1)
    ocean.hub.headers |= {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "49", "x-ratelimit-reset": reset}
    done = ocean.run("ocean/*", "--pace", "0")
    assert done.stderr.count("GitHub has had enough requests for now; going on at") >= 2
    assert [len(ocean.hub.pulls[name]) for name in NAMES] == [1, 1, 1]


def test_changes_keep_their_distance_and_the_hours_budget_and_reading_does_not_wait():
    gate = Pace(0.02, an_hour=3)
    start = time.time()
    moments = [gate._book() for _ in range(4)]
    assert [round(moment - moments[0], 3) for moment in moments] == [0, 0.02, 0.04, 3600]
    gate.before("GET")
    assert time.time() - start < 1800
    said = []
    gate = Pace(say=said.append)
    told = {"x-ratelimit-limit": "5000", "x-ratelimit-reset": str(int(start) + 900)}
    gate.after(told | {"x-ratelimit-remaining": "51"})
    gate.after(told | {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "1"})
    assert said == []
    gate.after(told | {"x-ratelimit-remaining": "49"})
    assert len(said) == 1
    gate.stop()
    with pytest.raises(Stopped):
        gate.before("GET")


def test_an_address_is_the_same_however_it_is_written():
    spellings = ["gh:Ocean/forge", "https://github.com/ocean/forge.git", "git@github.com:ocean/forge.git"]
    assert {same_place(address) for address in spellings} == {"github.com/ocean/forge"}
    assert same_place("file:///srv/ocean/forge") == same_place("/srv/ocean/forge/")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere"], "`nowhere` is no folder here, and neither"),
        (["ocean/*", "."], "update them in two calls"),
        (["--canary", "1"], "--canary is for feedstocks on GitHub"),
    ],
)
def test_what_cannot_be_meant_is_told(command, arguments, why):
    assert why in command("update", *arguments, code=2).stderr
