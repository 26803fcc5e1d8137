"""Commands in comments: always answered, done only for those who may, and only for the commit that they saw."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from feedstock_forge import cli
from feedstock_forge.staged.commands import parse
from support import events, feedstocks, github, prefect
from support.feedstocks import META, RECIPE, STAGED, Feedstock, git
from support.prefect import Server

CONTEXT = "recipe check"


@dataclass
class Scene:
    """The staged recipes on GitHub: Grace proposes, Rita reviews, Bob operates the bakery, Mallory passes by."""

    hub: github.GitHub
    staged: Feedstock
    bakeries: Path
    capsys: pytest.CaptureFixture[str]
    environment: dict[str, str] = field(default_factory=dict)

    def push(self, name: str = "sst", recipes: str = '[{id: sst, object: "recipe:sst"}]', code: str = RECIPE) -> str:
        """Push a recipe to Grace's branch; the check begins. Returns the commit."""
        folder = self.staged.folder
        git(folder, "checkout", "--quiet", "-B", "mine", "mine" if self.hub.pulls[STAGED] else "main")
        self.staged.write(f"recipes/{name}/meta.yaml", META.format(id=name, recipes=recipes))
        self.staged.write(f"recipes/{name}/recipe.py", code)
        self.staged.write(f"recipes/{name}/requirements.txt", "")
        head = self.staged.commit()
        git(folder, "checkout", "--quiet", "main")
        if not self.hub.pulls[STAGED]:
            self.hub.open(STAGED, "mine", "grace", "Add a recipe")
        self.begin(head)
        return head

    def begin(self, head: str) -> None:
        status = {"context": CONTEXT, "state": "pending", "description": "", "created_at": self.hub.now()}
        self.hub.statuses[STAGED, head].append(status)

    def say(self, body: str, login: str = "rita") -> Path:
        """Let a person comment; returns the event that GitHub sends."""
        self.hub.say(STAGED, 1, login, body)
        comment = self.hub.comments[STAGED, 1][-1]
        payload = events.comment(STAGED, 1, repository_id=77)
        payload["comment"] |= {"id": comment["id"], "body": body, "created_at": comment["created_at"]}
        payload["comment"]["user"] = {"login": login, "id": self.hub.users[login], "type": "User"}
        return events.write(payload, self.staged.server / f"comment-{comment['id']}.json")

    def answer(self, event: Path, code: int = 0, bakeries: Path | None = None) -> str:
        """Run the command as the job does; returns the answer on the pull request."""
        variables = {
            "GITHUB_SERVER_URL": self.staged.server.as_uri(),
            "GITHUB_API_URL": self.hub.url,
            "GITHUB_TOKEN": "token-of-forge[bot]",
            "GITHUB_REPOSITORY": STAGED,
            "GITHUB_RUN_ID": "4711",
        }
        words = ["staged", "answer", "--event", str(event), "--bakeries", str(bakeries or self.bakeries)]
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (feedstocks.IDENTITY | variables | self.environment).items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                cli.main([*words, "--wait", "120"])
        said = "".join(self.capsys.readouterr())
        assert (ended.value.code or 0) == code, said
        number = json.loads(event.read_text())["comment"]["id"]
        marker = f"<!-- feedstock-forge: answer to {number} -->"
        answers = [row["body"] for row in self.hub.comments[STAGED, 1] if row["login"] == "forge[bot]"]
        (answer,) = [body for body in answers if body.startswith(marker)] or [""]
        return str(answer)

    def ask(self, body: str, login: str = "rita", code: int = 0) -> str:
        return self.answer(self.say(body, login), code)


@pytest.fixture
def scene(tmp_path: Path, bakeries: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Scene]:
    staged = feedstocks.stage(tmp_path / "server")
    with github.serve(staged.server) as hub:
        hub.add(STAGED, 77)
        for number, login in enumerate(("grace", "mallory", "pangeo-forge"), 1):
            hub.person(login, number)
        hub.person("rita", 7, {STAGED: "maintain"})
        hub.person("forge[bot]", 9, {STAGED: "write"})
        made = Scene(hub, staged, bakeries, capsys)
        made.push()
        yield made
        assert hub.problems == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("/help", ("help", "")),
        ("/run-recipe-test sst\r\nplease", ("run-recipe-test", "sst")),
        ("/Run_Recipe_Test", ("run-recipe-test", "")),
        ("/run-recipe-test $(id)", ("run-recipe-test", "$(id)")),
        ("/usr/bin/python fails", None),
        (" /help", None),
        ("> /help", None),
        ("thanks\n/help", None),
        ("/", None),
        ("", None),
    ],
)
def test_a_command_is_a_word_after_a_slash_at_the_very_beginning(body: str, expected: tuple[str, str] | None) -> None:
    found = parse(body)
    assert (found and (found.word, found.argument)) == expected


def test_help_lists_every_command_to_everybody(scene: Scene) -> None:
    said = scene.ask("/help", "mallory")
    for word in ("/run-recipe-test [recipe]", "/lint", "/preview", "/explain", "/help"):
        assert f"| `{word}` |" in said


def test_an_unknown_command_is_told_the_near_one(scene: Scene) -> None:
    assert "did you mean `/run-recipe-test`?" in scene.ask("/run-recipe-tests", "mallory")


def test_who_may_not_is_told_who_may_and_nothing_happens(scene: Scene) -> None:
    said = scene.ask("/run-recipe-test", "mallory")
    assert "**command-denied**" in said
    assert "an operator of local: @pangeo-forge" in said
    assert scene.ask("/run-recipe-test", "grace").count("command-denied") == 2  # and its place in the manual


def test_a_name_that_changed_hands_is_not_the_person(scene: Scene) -> None:
    event = scene.say("/run-recipe-test", "rita")
    scene.hub.users["rita"] = 8
    assert "**command-denied**" in scene.answer(event)


HOSTILE = [
    "/run-recipe-test $(id)",
    "/run-recipe-test `touch pwned`; rm -rf ~",
    "/run-recipe-test ../../etc",
    "/run-recipe-test --help",
    "/run-recipe-test <!-- feedstock-forge: recipe preview --> </details> @everyone ![x](http://evil)",
]


@pytest.mark.parametrize("body", HOSTILE)
def test_a_hostile_argument_is_contained_and_answered(scene: Scene, body: str) -> None:
    said = scene.ask(body)
    assert "**command-recipe-unknown**" in said
    assert not list(scene.staged.server.rglob("pwned"))
    outside = said.replace("<!-- feedstock-forge: answer to", "").split("`")[::2]
    assert not any("<!--" in part or "@everyone" in part for part in outside)


def test_nobody_answers_what_is_no_command_of_a_person_on_a_pull_request(scene: Scene) -> None:
    event = scene.say("/help")
    for path, value in (("action", "edited"), ("issue", {"number": 1}), ("user", "Bot")):
        payload = json.loads(event.read_text())
        if path == "user":
            payload["comment"]["user"]["type"] = value
        else:
            payload[path] = value
        assert scene.answer(events.write(payload, event.with_suffix(".other"))) == ""


def test_an_answer_that_somebody_else_wrote_before_is_not_taken_for_ours(scene: Scene) -> None:
    event = scene.say("/help")
    number = json.loads(event.read_text())["comment"]["id"]
    scene.hub.say(STAGED, 1, "mallory", f"<!-- feedstock-forge: answer to {number} -->\nForged")
    assert "### Commands" in scene.answer(event)


def test_the_check_of_the_newest_commit_is_made_again(scene: Scene) -> None:
    assert "**command-check-missing**" in scene.ask("/lint", "grace")
    run = {"id": 5, "head_sha": git(scene.staged.folder, "rev-parse", "mine"), "status": "in_progress"}
    scene.hub.runs[STAGED] = [run]
    assert "is running already" in scene.ask("/preview", "grace")
    assert scene.hub.rerun[STAGED] == []
    run["status"] = "completed"
    assert f"runs again: [follow it]({scene.staged.server.as_uri()}/{STAGED}/actions/runs/5)" in scene.ask("/lint")
    assert scene.hub.rerun[STAGED] == [5]


def test_explain_says_what_is_asked_of_whom(scene: Scene) -> None:
    assert "`sst` at `local.dev` on release and merge: open to every feedstock" in scene.ask("/explain", "mallory")


def test_a_push_after_the_comment_voids_it(scene: Scene) -> None:
    event = scene.say("/run-recipe-test")
    scene.push(code=RECIPE + "\nSTOLEN = 1\n")
    assert "**command-commit-unseen**" in scene.answer(event)


def test_a_commit_that_says_it_is_old_is_still_new(scene: Scene) -> None:
    """Its author may write any date into it; the check that begins on it is what counts, and that has not begun."""
    event = scene.say("/run-recipe-test")
    git(scene.staged.folder, "checkout", "--quiet", "mine")
    git(scene.staged.folder, "commit", "--quiet", "--allow-empty", "--message", "Old", "--date", "2001-01-01T00:00:00Z")
    git(scene.staged.folder, "checkout", "--quiet", "main")
    assert "**command-commit-unseen**" in scene.answer(event)


def test_a_branch_that_goes_back_to_an_older_commit_after_the_comment_voids_it(scene: Scene) -> None:
    old = git(scene.staged.folder, "rev-parse", "mine")
    scene.push(code=RECIPE + "\nMORE = 1\n")
    event = scene.say("/run-recipe-test")
    git(scene.staged.folder, "branch", "--force", "mine", old)
    scene.hub.timelines[STAGED, 1].append({"event": "head_ref_force_pushed", "created_at": scene.hub.now()})
    assert "moved by force" in scene.answer(event)


def test_without_prefect_the_refusal_names_who_can_mend_it(scene: Scene) -> None:
    scene.environment = {"PREFECT_API_URL": ""}
    said = scene.ask("/run-recipe-test", code=1)
    assert "### Nothing was run" in said
    assert "**prefect-url-missing**" in said


def test_a_closed_label_of_the_development_bakery_is_said(scene: Scene, tmp_path: Path) -> None:
    closed = tmp_path / "bakeries"
    (closed / "local").mkdir(parents=True)
    text = (scene.bakeries / "local/bakery.yaml").read_text(encoding="utf-8")
    (closed / "local/bakery.yaml").write_text(text.replace("grants: open", "grants: closed"), encoding="utf-8")
    said = scene.answer(scene.say("/run-recipe-test"), code=1, bakeries=closed)
    assert "### Nothing was run" in said
    assert "label-closed" in said


def deployed(server: Server, tag: str) -> list[dict[str, Any]]:
    with server.client() as client:
        return list(client.deployments_tagged(tag))


def listening(server: Server) -> None:
    """Wait until the worker has made its pool and its queue."""
    with server.client() as client:
        while not client.work_pool("local") or "dev" not in client.work_queues("local"):
            time.sleep(0.5)


def test_a_folder_that_is_not_called_as_its_feedstock_is_to_be_is_answered_too(scene: Scene) -> None:
    whole = META.format(id="noaa-oisst", recipes='[{id: sst, object: "recipe:sst"}]')
    git(scene.staged.folder, "checkout", "--quiet", "mine")
    scene.staged.write("recipes/NOAA_OISST/meta.yaml", whole)
    scene.staged.write("recipes/NOAA_OISST/recipe.py", RECIPE)
    scene.begin(scene.staged.commit())
    git(scene.staged.folder, "checkout", "--quiet", "main")
    scene.environment = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    assert "**prefect-unreachable**" in scene.ask("/run-recipe-test", code=1)


def test_a_maintainer_has_the_recipes_run_pruned_at_the_development_bakery(
    scene: Scene, server: prefect.Server, worker: prefect.Worker, datasets: Path
) -> None:
    scene.environment = dict(server.environment)
    listening(server)
    said = scene.ask("/run-recipe-test sst")
    head = git(scene.staged.folder, "rev-parse", "mine")
    assert "### 1 of 1 run completed" in said
    assert f"commit `{head[:12]}`" in said
    (called,) = (datasets / "staged-1-sst").rglob("called")
    assert called.read_text() == "complete True"
    assert deployed(server, "feedstock:staged-1-sst") == []


def test_a_recipe_that_fails_is_told_by_its_last_words(
    scene: Scene, server: prefect.Server, worker: prefect.Worker
) -> None:
    scene.environment = dict(server.environment)
    listening(server)
    scene.push(
        "bad", '[{id: bad, object: "recipe:bad"}]', "def bad(target, mode, prune):\n    raise OSError('no ```')\n"
    )
    scene.hub.clock = scene.hub.clock.replace(year=2027)
    said = scene.ask("/run-recipe-test bad", code=1)
    assert "### 0 of 1 run completed" in said
    assert "OSError: no ```" in said
