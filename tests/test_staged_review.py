"""A recipe's pull request as its reviewers see it: one comment, one check, whose turn it is, and the queue."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt

from feedstock_forge.cli import staged
from support import feedstocks, github
from support.feedstocks import META, RECIPE, STAGED, Feedstock, git


@dataclass
class Scene:
    """The staged recipes on GitHub; Ada proposes, Rita reviews."""

    hub: github.GitHub
    staged: Feedstock
    bakeries: Path

    def propose(self, files: dict[str, str], branch: str = "sst") -> int:
        """Push files to a branch, and open a pull request if there is none; returns its number."""
        folder = self.staged.folder
        new = not git(folder, "branch", "--list", branch)
        git(folder, "checkout", "--quiet", *(["-b", branch] if new else [branch]))
        for name, text in files.items():
            self.staged.write(name, text)
        self.staged.commit()
        git(folder, "checkout", "--quiet", "main")
        return self.hub.open(STAGED, branch, "ada", f"Add {branch}") if new else len(self.hub.pulls[STAGED])

    def head(self, branch: str = "sst") -> str:
        return git(self.staged.folder, "rev-parse", branch)

    def report(self, number: int, *options: object) -> str:
        return self.staged_command("report", str(number), "--bakeries", self.bakeries, *options)

    def queue(self, form: str) -> str:
        return self.staged_command("queue", "--format", form)

    def staged_command(self, *arguments: object) -> str:
        """Run `feedstock staged` in this process: a process for each of many would be most of the time."""
        environment = {
            "GITHUB_SERVER_URL": self.hub.folder.as_uri(),
            "GITHUB_API_URL": self.hub.url,
            "GITHUB_TOKEN": "token-of-forge[bot]",
            "GITHUB_REPOSITORY": STAGED,
        }
        done = CliRunner().invoke(
            staged.command, [str(item) for item in arguments], env=environment, catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        return done.output

    def trial(self, tmp_path: Path, outcome: str = "completed", **said: object) -> Path:
        """What the check of the head hands over."""
        tried = {"recipe": "sst", "outcome": outcome, "seconds": 3.5, "memory": 2**28, **said}
        trial = {"commit": self.head(), "folders": [{"folder": "sst", "recipes": 1, "tried": [tried]}]}
        file = tmp_path / "trial.json"
        file.write_text(json.dumps(trial))
        return file

    @property
    def comment(self) -> str:
        (comment,) = [item for item in self.hub.comments[STAGED, 1] if item["login"] == "forge[bot]"]
        return str(comment["body"])

    @property
    def check(self) -> str:
        return str(self.hub.statuses[STAGED, self.head()][-1]["state"])

    @property
    def labels(self) -> list[str]:
        return self.hub.labels[STAGED, 1]


@pytest.fixture
def scene(tmp_path: Path, bakeries: Path) -> Iterator[Scene]:
    repository = feedstocks.stage(tmp_path / "server")
    with github.serve(repository.server) as hub:
        hub.add(STAGED, 77)
        hub.person("ada", 1)
        hub.person("rita", 2, {STAGED: "maintain"})
        hub.person("mallory", 4)
        hub.person("forge[bot]", 9, {STAGED: "write"})
        yield Scene(hub, repository, bakeries)
        assert hub.problems == []


def recipe(name: str = "sst", meta: str = META) -> dict[str, str]:
    listed = '[{id: sst, object: "recipe:sst"}]'
    return {
        f"recipes/{name}/meta.yaml": meta.format(id=name, recipes=listed),
        f"recipes/{name}/recipe.py": RECIPE,
        f"recipes/{name}/requirements.txt": "xarray\n",
    }


def test_a_sound_recipe_is_told_apart_at_a_glance_and_waits_for_a_reviewer(scene: Scene, tmp_path: Path) -> None:
    number = scene.propose(recipe())
    scene.report(number, "--began")
    assert (scene.check, scene.labels) == ("pending", ["checking"])
    assert "### Being checked" in scene.comment

    trial = scene.trial(tmp_path, stored=2**20, inputs=2, of=40, repr="<xarray.Dataset>\nDimensions: (time: 2)")
    scene.report(number, "--trial", trial, "--commit", scene.head())
    assert (scene.check, scene.labels) == ("success", ["review-requested"])
    for words in (
        "### Ready for review",
        "**Sea surface temperature**",
        "`local.dev` on release and merge: open to every feedstock",
        "completed with 2 of 40 inputs in 4 s, 256 MiB of memory, 1 MiB stored; all of it would be about 20 MiB",
        "<xarray.Dataset>\nDimensions: (time: 2)",
    ):
        assert words in scene.comment


def test_the_turn_passes_with_pushes_reviews_and_comments(scene: Scene, tmp_path: Path) -> None:
    number = scene.propose(recipe())

    def turn() -> list[str]:
        scene.report(number)
        return scene.labels

    scene.report(number, "--trial", scene.trial(tmp_path))
    assert turn() == ["review-requested"]
    scene.hub.say(STAGED, number, "mallory", "I want this merged")
    assert turn() == ["review-requested"]
    scene.hub.say(STAGED, number, "rita", "/run-recipe-test")
    assert turn() == ["review-requested"]
    scene.hub.review(STAGED, number, "rita", state="CHANGES_REQUESTED")
    assert turn() == ["awaiting-contributor"]
    scene.hub.say(STAGED, number, "ada", "Why so?")
    assert turn() == ["review-requested"]
    scene.hub.say(STAGED, number, "rita", "See the guide")
    assert turn() == ["awaiting-contributor"]
    scene.propose({"recipes/sst/more.py": "X = 1"})
    assert turn() == ["checking"]
    scene.report(number, "--trial", scene.trial(tmp_path))
    assert scene.labels == ["review-requested"]
    scene.hub.review(STAGED, number, "mallory")
    assert turn() == ["review-requested"]
    scene.hub.review(STAGED, number, "rita")
    assert turn() == ["ready-to-merge"]
    scene.propose({"recipes/sst/more.py": "X = 2"})
    scene.report(number, "--trial", scene.trial(tmp_path, "failed"))
    assert scene.labels == ["awaiting-contributor"]
    # Other labels are nobody's business here.
    scene.hub.labels[STAGED, 1].append("oceans")
    scene.report(number, "--trial", scene.trial(tmp_path))
    assert scene.labels == ["oceans", "review-requested"]


def test_lint_is_looked_at_anew_whatever_the_trial_claims(scene: Scene, tmp_path: Path) -> None:
    number = scene.propose(recipe(meta=META.replace("CC-BY-4.0", "CC-BY-NINE")))
    scene.report(number, "--trial", scene.trial(tmp_path))
    assert (scene.check, scene.labels) == ("failure", ["awaiting-contributor"])
    assert "licence-unknown" in scene.comment
    assert "recipes/sst/meta.yaml:" in scene.comment


def test_a_pull_request_that_changes_more_than_recipes_is_told_to_be_split(scene: Scene, tmp_path: Path) -> None:
    number = scene.propose(recipe() | {".github/workflows/check.yml": "on: pull_request_target"})
    scene.report(number, "--trial", scene.trial(tmp_path))
    assert scene.check == "failure"
    assert "recipe-pull-outside" in scene.comment
    assert "check.yml" in scene.comment


@pytest.mark.parametrize(
    "forged",
    [
        "not JSON",
        "[" * 100_000,
        '{"commit": "HEAD", "folders": []}',
        '{"commit": "COMMIT", "folders": [], "verdict": "success"}',
        '{"commit": "COMMIT", "folders": [{"folder": "../../x"}]}',
        '{"commit": "COMMIT", "folders": [{"folder": "x", "findings": [{"id": "<b>", "message": "", "fix": ""}]}]}',
        '{"commit": "0000000000000000000000000000000000000000", "folders": []}',
        '{"commit": "COMMIT", "folders": [{"folder": "sst", "tried": [{"recipe": "sst", "outcome": "great"}]}]}',
    ],
    ids=["text", "bomb", "commit", "extra", "path", "finding", "other", "outcome"],
)
def test_a_forged_trial_is_not_taken(scene: Scene, tmp_path: Path, forged: str) -> None:
    number = scene.propose(recipe())
    file = tmp_path / "trial.json"
    file.write_text(forged.replace("COMMIT", scene.head()))
    said = scene.report(number, "--trial", file)
    assert scene.check == "failure"
    assert "trial-" in said
    assert "### To be mended" in scene.comment


@pytest.mark.parametrize(
    "said",
    [
        {"stored": 10**400},
        {"stored": 1, "inputs": 1, "of": 10**400},
        {"memory": 10**400},
        {"seconds": float("inf")},
    ],
    ids=lambda said: list(said)[-1],
)
def test_a_trial_that_counts_without_end_is_not_taken(scene: Scene, tmp_path: Path, said: dict[str, float]) -> None:
    number = scene.propose(recipe())
    assert "trial-unreadable" in scene.report(number, "--trial", scene.trial(tmp_path, **said))
    assert scene.check == "failure"


def test_what_a_stranger_writes_cannot_forge_the_comment(scene: Scene, tmp_path: Path) -> None:
    hostile = "</details> ``` @rita o/r#1 <!-- --> ### Ready for review ![x](https://evil.example/x.png)"
    number = scene.propose(recipe(meta=META.replace("title: Sea surface temperature", f"title: '{hostile}'")))
    trial = scene.trial(tmp_path, repr=f"````\n{hostile}\n::add-mask::x\x1b[2J", findings=[
        {"id": "recipe-failed", "message": hostile, "fix": hostile, "file": hostile}
    ])  # fmt: skip
    scene.hub.say(STAGED, number, "mallory", "<!-- feedstock-forge: recipe preview -->\n### Ready for review")
    scene.report(number, "--trial", trial)
    page = MarkdownIt("commonmark").enable("table").render(scene.comment)
    shown = re.sub(r"<code.*?</code>", "", page, flags=re.DOTALL)
    assert "@rita" not in shown
    assert "#1" not in shown
    assert not re.search("<(img|a|script)", page)
    assert page.count("<details>") == page.count("</details>") == 1
    assert re.findall("<h3>(.*?)</h3>", page) == ["Ready for review"]  # its own, since the trial may say what it likes
    assert "\x1b" not in scene.comment


def test_a_run_that_ended_late_says_nothing_of_the_newer_commit(scene: Scene, tmp_path: Path) -> None:
    number = scene.propose(recipe())
    old, trial = scene.head(), scene.trial(tmp_path)
    scene.propose({"recipes/sst/more.py": "X = 1"})
    assert "has moved on" in scene.report(number, "--trial", trial, "--commit", old)
    assert not scene.hub.comments[STAGED, number]


def test_the_queue_shows_first_what_a_reviewer_can_act_on(scene: Scene, tmp_path: Path) -> None:
    assert "nothing waits" in scene.queue("table")
    scene.propose(recipe())
    scene.report(1, "--trial", scene.trial(tmp_path, "failed"))
    scene.propose(recipe("ice"), "ice")
    trial = json.loads(scene.trial(tmp_path).read_text())
    trial |= {"commit": scene.head("ice")}
    trial["folders"][0]["folder"] = "ice"
    (tmp_path / "trial.json").write_text(json.dumps(trial))
    scene.report(2, "--trial", tmp_path / "trial.json")
    rows = json.loads(scene.queue("json"))
    assert [(row["number"], row["turn"]) for row in rows] == [(2, "review-requested"), (1, "awaiting-contributor")]
    assert scene.queue("table").splitlines()[1].split()[:2] == ["#2", "review-requested"]
    assert "Add ice" in scene.queue("html")


def test_a_pull_request_of_very_many_files_is_looked_at_as_far_as_anybody_would(scene: Scene, tmp_path: Path) -> None:
    many = {f"recipes/sst/data/{number}.txt": "x" for number in range(480)}
    number = scene.propose(recipe() | many | {f"recipes/other-{index}/meta.yaml": "id: x" for index in range(30)})
    scene.report(number, "--trial", scene.trial(tmp_path))
    assert scene.check == "failure"
    assert "recipe-pull-too-large" in scene.comment
    assert len(scene.comment) < 65_536


def test_names_that_nobody_can_read_are_refused_and_shown_escaped(scene: Scene, tmp_path: Path) -> None:
    folder = scene.staged.folder
    git(folder, "checkout", "--quiet", "-b", "sst")
    for name in ("sst/recipe.py\n### Ready for review", "a\n### Ready for review/meta.yaml"):
        path = folder / "recipes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    for name, text in recipe().items():
        scene.staged.write(name, text)
    scene.staged.commit()
    git(folder, "checkout", "--quiet", "--force", "main")
    number = scene.hub.open(STAGED, "sst", "ada")
    scene.report(number, "--trial", scene.trial(tmp_path))
    assert scene.check == "failure"
    assert "recipe-folder-invalid" in scene.comment
    headings = [line for line in scene.comment.splitlines() if line.startswith("### ")]
    assert headings == ["### To be mended"]
