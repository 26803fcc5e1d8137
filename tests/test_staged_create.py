"""A merged recipe becomes a feedstock, on real git repositories and the stand-in for GitHub, however often stopped."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml

from feedstock_forge import cli, meta
from feedstock_forge.staged.answers import derive
from feedstock_forge.staged.create import MAY_PUSH, marker
from support import feedstocks, github, templates
from support.feedstocks import Feedstock, git
from test_template_engines import MATRIX

STAGED, FORGE = "pangeo-forge/staged-recipes", "pangeo-forge/feedstock-forge"
OISST = "pangeo-forge/noaa-oisst-feedstock"


@dataclass
class Scene:
    """The organisation on GitHub: the forge, the staged recipes that it generated, and their people."""

    hub: github.GitHub
    staged: Feedstock
    capsys: pytest.CaptureFixture[str]
    tmp_path: Path

    def propose(self, *names: str, branch: str = "mine", **files: str) -> int:
        """Open a pull request of Grace's with recipes, in two commits, and merge it; returns its number."""
        git(self.staged.folder, "checkout", "--quiet", "--force", "-B", branch, "main")
        for name in names:
            for file, text in (self.recipe(name) | files).items():
                self.staged.write(f"recipes/{name}/{file}", text)
        self.commit("Add a recipe, for #3")
        for name in names:
            self.staged.write(f"recipes/{name}/notes.md", "Looked at the files.\n")
        self.commit("Take notes")
        git(self.staged.folder, "checkout", "--quiet", "--force", "main")
        number = self.hub.open(STAGED, branch, "grace", "Add a recipe")
        self.hub.merge(STAGED, number)
        return number

    def commit(self, message: str) -> None:
        git(self.staged.folder, "add", "--all")
        author = {"GIT_AUTHOR_NAME": "Grace", "GIT_AUTHOR_EMAIL": "grace@example.org"}
        command = ["git", "commit", "--quiet", "--message", message]
        subprocess.run(command, cwd=self.staged.folder, env=os.environ | feedstocks.IDENTITY | author, check=True)

    def recipe(self, name: str) -> dict[str, str]:
        """What a person would have written for the answers of :func:`answers`."""
        return written(str((self.hub.folder / FORGE).resolve()), name)

    @property
    def address(self) -> str:
        return str(self.hub.folder / FORGE)

    @property
    def environment(self) -> dict[str, str]:
        server = {"GITHUB_SERVER_URL": self.hub.folder.as_uri(), "GITHUB_API_URL": self.hub.url}
        return feedstocks.IDENTITY | server | {"GITHUB_TOKEN": "token-of-forge[bot]", "GITHUB_REPOSITORY": STAGED}

    def clone(self) -> Path:
        """A clone as the workflow has it."""
        folder = self.tmp_path / f"clone-{len(list(self.tmp_path.glob('clone-*')))}"
        git(self.tmp_path, "clone", "--quiet", self.staged.folder.as_uri(), str(folder))
        return folder

    def create(self, *arguments: object, code: int = 0, clone: Path | None = None, **environment: str) -> str:
        """Run `feedstock create` in this process, as `feedstock` does: a process for each would be half of the time."""
        words = ["create", "-C", str(clone or self.clone()), *map(str, arguments)]
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (self.environment | environment).items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                cli.main(words)
        said = "".join(self.capsys.readouterr())
        assert (ended.value.code or 0) == code, said
        return said

    @property
    def waiting(self) -> list[str]:
        return git(self.staged.folder, "ls-tree", "--name-only", "main", "recipes/").split()

    def state(self) -> dict[str, Any]:
        """Everything that stands on GitHub in the end; what is the same each time only if nothing was done twice."""
        refs = {name: git(self.hub.folder / name, "for-each-ref", "refs/heads/main") for name in self.hub.repositories}
        del refs[STAGED]
        comments = {number: [c["body"] for c in rows] for (_, number), rows in self.hub.comments.items()}
        return {
            "refs": refs,
            "waiting": self.waiting,
            "topics": dict(self.hub.topics),
            "rulesets": dict(self.hub.rulesets),
            "invited": dict(self.hub.invited),
            "started": dict(self.hub.started),
            "comments": comments,
        }


@cache
def written(address: str, name: str) -> dict[str, str]:
    """The files of a recipe as the template begins it."""
    with tempfile.TemporaryDirectory() as scratch:
        copier.run_copy(address, Path(scratch, name), data=answers(name), defaults=True, quiet=True)
        folder = Path(scratch, name, "feedstock")
        return {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir() if file.is_file()}


def answers(name: str) -> dict[str, str]:
    return templates.ANSWERS | {"id": name, "forge": FORGE}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return templates.release(tmp_path_factory.mktemp("forge") / "forge")


@pytest.fixture(scope="module")
def generated(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The staged recipes, as the organisation generates them."""
    folder = tmp_path_factory.mktemp("generated") / "staged-recipes"
    data = {"generates": "staged-recipes", "maintainers": "Rita @rita", "forge": FORGE}
    copier.run_copy(str(released), folder, data=data, defaults=True, quiet=True)
    return folder


@pytest.fixture
def scene(released: Path, generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Scene]:
    server = tmp_path / "server"
    (server / "pangeo-forge").mkdir(parents=True)
    (server / FORGE).symlink_to(released)
    staged = Feedstock(server, STAGED, 77)
    shutil.copytree(generated, staged.folder)
    git(staged.folder, "init", "--quiet")
    git(staged.folder, "config", "receive.denyCurrentBranch", "ignore")
    staged.commit("Begin")
    with github.serve(server) as hub:
        hub.add(STAGED, 77)
        for number, login in enumerate(("ada", "grace"), 1):
            hub.person(login, number)
        hub.person("rita", 3, {STAGED: "maintain"})
        hub.person("forge[bot]", 9, {STAGED: "write"})
        yield Scene(hub, staged, capsys, tmp_path)
        assert hub.problems == []


def test_a_merged_recipe_becomes_the_feedstock_that_a_person_would_have_generated(scene: Scene) -> None:
    number = scene.propose("noaa-oisst")
    said = scene.create()
    assert "noaa-oisst: created" in said

    made, by_hand = scene.tmp_path / "made", scene.tmp_path / "by-hand"
    git(scene.tmp_path, "clone", "--quiet", str(scene.hub.folder / OISST), str(made))
    copier.run_copy(scene.address, by_hand, data=answers("noaa-oisst"), defaults=True, quiet=True)
    made_tree, hand_tree = templates.tree(made), templates.tree(by_hand)
    assert made_tree.pop("feedstock/notes.md") == b"Looked at the files.\n"
    assert made_tree == hand_tree

    assert git(made, "log", "--format=%an: %s", "--", "feedstock/recipe.py") == f"Grace: Add a recipe, for {STAGED}#3"
    assert git(made, "log", "--format=%an") == "Feedstock Forge\nGrace\nGrace"
    assert git(made, "blame", "--porcelain", "feedstock/recipe.py").count("author Grace") == 1

    assert scene.waiting == ["recipes/example"]
    assert scene.hub.topics[OISST] == ["feedstock", "analysis-ready-data"]
    assert scene.hub.invited == {(OISST, "ada"): "push"}
    (rules,) = scene.hub.rulesets[OISST]
    assert rules["conditions"]["ref_name"]["include"] == ["~DEFAULT_BRANCH"]
    assert re.findall(r"'context': '(.+?)'", str(rules)) == ["Check / Check", "label consent"]
    assert scene.hub.started[OISST] == ["check.yml"]
    (comment,) = scene.hub.comments[STAGED, number]
    assert comment["body"].startswith(marker("noaa-oisst"))
    assert f"[{OISST}]({scene.hub.folder.as_uri()}/{OISST})" in comment["body"]

    assert "nothing to create" in scene.create()


def test_what_was_created_takes_an_update_of_the_template(scene: Scene, tmp_path: Path) -> None:
    scene.propose("noaa-oisst")
    forge = scene.hub.folder / FORGE
    own = templates.release(tmp_path / "own")
    forge.unlink()
    forge.symlink_to(own)
    scene.create()
    made = tmp_path / "made"
    git(tmp_path, "clone", "--quiet", str(scene.hub.folder / OISST), str(made))
    newer = templates.commit(own, "v1.1.0")
    copier.run_update(made, defaults=True, quiet=True, overwrite=True)
    assert f"@{newer} # v1.1.0" in (made / ".github/workflows/register.yml").read_text(encoding="utf-8")
    assert (made / "feedstock/notes.md").exists()


def test_of_several_recipes_each_is_made_or_told_why_not(scene: Scene) -> None:
    number = scene.propose("noaa-oisst", "ersst")
    bad = scene.staged.folder / "recipes/ersst/meta.yaml"
    git(scene.staged.folder, "checkout", "--quiet", "--force", "main")
    bad.write_text(bad.read_text(encoding="utf-8").replace("recipe:ersst", "recipe:sst"), encoding="utf-8")
    scene.staged.commit()
    said = scene.create(code=3)
    assert "recipes/ersst/meta.yaml:" in said
    assert "[recipe-object-missing]" in said
    assert scene.waiting == ["recipes/ersst", "recipes/example"]
    assert "pangeo-forge/ersst-feedstock" not in scene.hub.repositories
    # The change came without a pull request, so nobody is told of that one.
    assert [row["body"].split("\n")[0] for row in scene.hub.comments[STAGED, number]] == [marker("noaa-oisst")]

    bad.write_text(bad.read_text(encoding="utf-8").replace("recipe:sst", "recipe:ersst"), encoding="utf-8")
    git(scene.staged.folder, "reset", "--quiet", "--mixed", "main")
    git(scene.staged.folder, "commit", "--quiet", "--message", "Mend", "recipes/ersst/meta.yaml")
    scene.create()
    assert scene.waiting == ["recipes/example"]


def test_a_refusal_is_told_where_the_recipe_came_from(scene: Scene) -> None:
    number = scene.propose("noaa-oisst", **{"meta.yaml": "id: noaa-oisst\n"})
    scene.create(code=1)
    (comment,) = scene.hub.comments[STAGED, number]
    assert "**key-missing**" in comment["body"]
    assert scene.waiting == ["recipes/example", "recipes/noaa-oisst"]


def test_what_the_template_does_not_take_is_said_of_its_line_in_meta_yaml(scene: Scene) -> None:
    meta = "".join(line for line in scene.recipe("noaa-oisst")["meta.yaml"].splitlines(True) if " url:" not in line)
    scene.propose("noaa-oisst", **{"meta.yaml": meta})
    said = scene.create(code=1)
    assert "error[staged-answer-refused] the template does not take `provenance.providers.0.url`" in said
    assert "fix: Write a whole URL" in said


def occupy(scene: Scene) -> str:
    scene.hub.add(OISST, 5)
    other = Feedstock(scene.tmp_path, "other")
    other.folder.mkdir()
    git(other.folder, "init", "--quiet")
    other.write("README.md", "Ours.")
    head = other.commit()
    git(other.folder, "push", "--quiet", str(scene.hub.folder / OISST), "HEAD:refs/heads/main")
    return head


def test_a_repository_that_holds_something_else_is_left_alone(scene: Scene) -> None:
    head = occupy(scene)
    scene.propose("noaa-oisst")
    assert "error[feedstock-repository-taken]" in scene.create(code=1)
    assert git(scene.hub.folder / OISST, "rev-parse", "main") == head
    assert (scene.hub.topics, scene.hub.invited, dict(scene.hub.rulesets)) == ({}, {}, {})


def test_a_name_that_a_repository_had_is_not_taken_from_it(scene: Scene) -> None:
    scene.hub.add("pangeo-forge/oisst-feedstock", 5)
    scene.hub.former[OISST] = "pangeo-forge/oisst-feedstock"
    scene.propose("noaa-oisst")
    assert f"{OISST} is the former name of pangeo-forge/oisst-feedstock" in scene.create(code=1)


def test_an_empty_repository_and_one_that_has_moved_on_are_gone_on_with(scene: Scene) -> None:
    scene.hub.add(OISST, 5)
    scene.propose("noaa-oisst")
    scene.create()
    made, folder = scene.tmp_path / "made", scene.hub.folder / OISST
    git(scene.tmp_path, "clone", "--quiet", str(folder), str(made))
    git(made, "commit", "--quiet", "--allow-empty", "--message", "Mine")
    git(made, "push", "--quiet")
    head = git(made, "rev-parse", "HEAD")
    # The removal was lost, say by a revert: it is made again, and the feedstock stays as its maintainers have it.
    git(scene.staged.folder, "checkout", "--quiet", "--force", "main")
    git(scene.staged.folder, "revert", "--no-edit", "HEAD")
    assert "recipes/noaa-oisst" in scene.waiting
    git(scene.staged.folder, "reset", "--quiet", "--hard", "HEAD~2")
    assert "noaa-oisst: stands" in scene.create()
    assert scene.waiting == ["recipes/example"]
    assert git(folder, "rev-parse", "main") == head


def test_a_default_branch_that_takes_no_push_gets_one_pull_request(scene: Scene) -> None:
    scene.propose("noaa-oisst")
    git(scene.staged.folder, "config", "receive.denyCurrentBranch", "refuse")
    git(scene.staged.folder, "checkout", "--quiet", "--force", "main")
    for _ in range(2):
        assert "removes noaa-oisst" in scene.create()
    (pull,) = [pull for pull in scene.hub.pulls[STAGED] if pull["branch"] == "staged/created"]
    assert pull["state"] == "open"
    assert scene.waiting == ["recipes/example", "recipes/noaa-oisst"]
    scene.hub.merge(STAGED, pull["number"])
    assert scene.waiting == ["recipes/example"]


def test_a_recipe_that_changes_in_the_meantime_stays(scene: Scene) -> None:
    scene.propose("noaa-oisst")
    clone = scene.clone()
    git(scene.staged.folder, "checkout", "--quiet", "--force", "main")
    scene.staged.write("recipes/noaa-oisst/notes.md", "More.\n")
    scene.staged.commit()
    assert "nothing is left to remove" in scene.create(clone=clone)
    assert "recipes/noaa-oisst" in scene.waiting


def test_a_maintainer_whom_nobody_knows_is_left_to_people_and_the_rest_is_done(scene: Scene) -> None:
    del scene.hub.users["ada"]
    scene.hub.roles[OISST, "ada"] = "none"
    meta = scene.recipe("noaa-oisst")["meta.yaml"].replace("github: ada", "github: nobody-at-all")
    scene.propose("noaa-oisst", **{"meta.yaml": meta})
    said = scene.create(code=3)
    assert "warning[maintainer-not-invited] nobody-at-all" in said
    assert scene.waiting == ["recipes/example"]
    assert len(scene.hub.rulesets[OISST]) == 1


@pytest.mark.parametrize("kind", ["link", "name"])
def test_what_cannot_be_reviewed_is_refused(scene: Scene, kind: str) -> None:
    scene.propose("noaa-oisst")
    folder = scene.staged.folder
    git(folder, "checkout", "--quiet", "--force", "main")
    odd = folder / "recipes/noaa-oisst" / ("secrets.txt" if kind == "link" else "a\n::error::b")
    odd.symlink_to("/etc/hostname") if kind == "link" else odd.write_text("x", encoding="utf-8")
    scene.staged.commit()
    said = scene.create(code=1)
    assert f"error[staged-{'recipe-link' if kind == 'link' else 'file-name'}]" in said
    assert "\n::error::b" not in said


def test_a_title_that_is_a_template_is_refused_at_its_line(scene: Scene) -> None:
    title = '{{ 7 * 7 }} {% raw %} \\"x\\" : - #1'
    meta = scene.recipe("noaa-oisst")["meta.yaml"].replace(templates.ANSWERS["title"], title)
    scene.propose("noaa-oisst", **{"meta.yaml": meta})
    said = scene.create(code=1)
    assert "error[staged-answer-refused] the template does not take `title`" in said
    assert OISST not in scene.hub.repositories


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(scene: Scene) -> None:
    scene.propose("noaa-oisst")
    before = scene.state()
    said = scene.create("--dry-run", GITHUB_TOKEN="")
    assert f"would create {OISST}" in said
    assert scene.state() == before
    assert [asked for asked in scene.hub.requests if not asked.startswith("GET ")] == []


def test_without_a_token_nothing_is_begun_and_the_organisation_is_named(scene: Scene) -> None:
    scene.propose("noaa-oisst")
    said = scene.create(code=1, GITHUB_TOKEN="")
    assert "error[staged-token-missing]" in said
    assert "who: organisation maintainer" in said
    assert scene.hub.requests == []


def test_a_recipe_that_is_not_there_is_told_from_one_that_is(scene: Scene) -> None:
    scene.propose("noaa-oisst")
    assert "did you mean `noaa-oisst`?" in scene.create("noaa-oist", code=1)


def test_a_shallow_clone_is_refused_before_anything_is_asked_to_change(scene: Scene) -> None:
    scene.propose("noaa-oisst")
    clone = scene.tmp_path / "shallow"
    git(scene.tmp_path, "clone", "--quiet", "--depth", "1", scene.staged.folder.as_uri(), str(clone))
    assert "error[staged-history-shallow]" in scene.create(clone=clone, code=1)


def kill_at(scene: Scene, moment: int) -> None:
    """Run the command in a process of its own, and kill it at a moment: when GitHub is asked, or has done something."""
    command = [sys.executable, "-m", "feedstock_forge", "create", "-C", str(scene.clone())]
    environment = os.environ | scene.environment
    count = itertools.count()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        watcher = lambda _: os.kill(running.pid, signal.SIGKILL) if next(count) == moment else None  # noqa: E731
        scene.hub.watchers.append(watcher)
        assert running.wait() == -signal.SIGKILL
    scene.hub.watchers.remove(watcher)


def undisturbed(scene: Scene) -> tuple[dict[str, Any], int]:
    """How it stands after a creation that nothing disturbs, and how many moments that has; then all is undone."""
    main = git(scene.staged.folder, "rev-parse", "main")
    moments: list[str] = []
    scene.hub.watchers.append(moments.append)
    scene.create()
    scene.hub.watchers.clear()
    state = scene.state()
    forget(scene, main)
    return state, len(moments)


def forget(scene: Scene, main: str) -> None:
    for name in list(scene.hub.repositories):
        if name != STAGED:
            del scene.hub.repositories[name]
            shutil.rmtree(scene.hub.folder / name)
    for kept in (scene.hub.topics, scene.hub.rulesets, scene.hub.invited, scene.hub.started, scene.hub.comments):
        kept.clear()
    git(scene.staged.folder, "update-ref", "refs/heads/main", main)


def stopped(scene: Scene, step: int) -> None:
    """Stop a creation at every ``step``-th moment, go on, and find what an undisturbed one leaves."""
    scene.propose("noaa-oisst")
    main = git(scene.staged.folder, "rev-parse", "main")
    expected, count = undisturbed(scene)
    for moment in range(step - 1, count, step):
        kill_at(scene, moment)
        scene.create()
        assert scene.state() == expected, moment
        forget(scene, main)


def test_a_creation_that_is_killed_goes_on_where_it_stopped(scene: Scene) -> None:
    stopped(scene, 12)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_creation_that_is_killed_at_any_request_goes_on_where_it_stopped(scene: Scene) -> None:
    stopped(scene, 1)


@pytest.mark.parametrize("given", MATRIX, ids=lambda given: f"{given['kind']}-{given['store']}")
def test_the_answers_are_those_that_the_recipe_was_begun_with(
    given: dict[str, str], released: Path, tmp_path: Path
) -> None:
    given = templates.ANSWERS | {"chunk_size": "8 MiB"} | given
    copier.run_copy(str(released), tmp_path / "made", data=given, defaults=True, quiet=True)
    recorded = yaml.safe_load((tmp_path / "made/.copier-answers.yml").read_text(encoding="utf-8"))
    read = derive(meta.read(tmp_path / "made").meta, tmp_path / "made/feedstock")
    # People are separated in as many ways as people type.
    people = [value.pop("maintainers").replace("; ", ";").split(";") for value in (read, recorded)]
    assert people[0] == people[1]
    assert read == {name: value for name, value in recorded.items() if name[0] != "_" and name != "forge"}


def test_those_who_may_push_need_no_invitation(scene: Scene) -> None:
    scene.hub.roles[OISST, "ada"] = MAY_PUSH[0]
    scene.propose("noaa-oisst")
    scene.create()
    assert scene.hub.invited == {}
