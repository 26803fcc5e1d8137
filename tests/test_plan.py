"""Planning: recipes are imported with no secret in reach, and everything wrong with them has a name and a line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Command
from support import feedstocks
from support.feedstocks import Feedstock


def plan(command: Command, feedstock: Feedstock, code: int = 0, env: dict[str, str] | None = None) -> tuple[str, Path]:
    output = feedstock.server / "plan.json"
    event = feedstock.merge()
    done = command(
        "plan", "-C", feedstock.folder, "--event-name", "push", "--event", event, "-o", output,
        env=feedstock.environment() | (env or {}), code=code,
    )  # fmt: skip
    return done.stdout + done.stderr, output


def test_a_plan_says_what_would_be_registered(command: Command, feedstock: Feedstock) -> None:
    said, output = plan(command, feedstock)
    made = json.loads(output.read_text())
    assert made["repository"] == feedstock.repository
    assert made["commit"] == made["version"] == feedstock.head
    assert made["mode"] == "update"
    assert made["recipes"] == [{"id": "sst", "description": "Write down how it was called."}]
    assert [(wish["bakery"], wish["label"]) for wish in made["bakeries"]] == [("local", "dev")]
    assert "asks for local.dev" in said


def test_planning_leaves_the_checkout_as_it_was(command: Command, feedstock: Feedstock) -> None:
    plan(command, feedstock)
    assert feedstocks.git(feedstock.folder, "status", "--porcelain", "--ignored") == ""


@pytest.mark.parametrize("name", ["PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"])
def test_planning_beside_a_secret_is_refused_and_does_not_print_it(
    command: Command, feedstock: Feedstock, name: str
) -> None:
    said, output = plan(command, feedstock, code=1, env={name: "hunter2"})
    assert "plan-secret-in-reach" in said
    assert name in said
    assert "hunter2" not in said
    assert not output.exists()


def test_a_recipe_sees_nothing_of_the_environment_that_planned_it(command: Command, feedstock: Feedstock) -> None:
    feedstock.write(
        "feedstock/recipe.py",
        f"""
        import json, os, pathlib
        pathlib.Path({str(feedstock.server)!r}, "seen.json").write_text(json.dumps(dict(os.environ)))
        def sst(target, mode="complete", prune=False): ...
        """,
    )
    feedstock.commit()
    plan(
        command, feedstock, env={"GITHUB_TOKEN": "hunter2", "ACTIONS_RUNTIME_TOKEN": "hunter2", "MY_SECRET": "hunter2"}
    )
    seen = json.loads((feedstock.server / "seen.json").read_text())
    assert "hunter2" not in seen.values()
    assert not [name for name in seen if name.startswith(("GITHUB_", "ACTIONS_", "PREFECT_"))]


def test_what_a_recipe_prints_cannot_speak_to_the_runner(command: Command, feedstock: Feedstock) -> None:
    feedstock.write(
        "feedstock/recipe.py",
        """
        print("::add-mask::secret\\n::set-output name=x::y")
        def sst(target, mode="complete", prune=False): ...
        """,
    )
    feedstock.commit()
    said, _ = plan(command, feedstock)
    assert "::" not in said


def test_a_dict_of_recipes_is_planned_by_its_keys(command: Command, tmp_path: Path) -> None:
    feedstock = feedstocks.make(
        tmp_path / "server",
        recipes='{dict_object: "recipe:many", store: zarr}',
        recipe="""
        def one(target, mode="complete", prune=False): ...
        many = {f"year-{year}": one for year in range(1000)}
        """,
    )
    _, output = plan(command, feedstock)
    made = json.loads(output.read_text())
    assert made["dict_object"] == "recipe:many"
    assert len(made["recipes"]) == 1000
    assert made["stores"]["year-7"] == "zarr"


WRONG_RECIPES = {
    "recipe-module-missing": ('[{id: sst, object: "recipes:sst"}]', "", "did you mean `recipe`?"),
    "recipe-object-missing": ('[{id: sst, object: "recipe:ssst"}]', "", "did you mean `sst`?"),
    "entry-point-invalid": ('[{id: sst, object: "../../etc:passwd"}]', "", "recipe:"),
    "recipe-duplicate-id": ('[{id: a, object: "recipe:sst"}, {id: A, object: "recipe:sst"}]', "", "line 5"),
    "recipe-not-callable": ('[{id: sst, object: "recipe:x"}]', "x = 3", "int"),
    "recipe-contract": ('[{id: sst, object: "recipe:f"}]', "def f(target): ...", "`mode`"),
    "recipe-dict-invalid": ('{dict_object: "recipe:d"}', "d = {'a b': 1}", "'a b'"),
}


@pytest.mark.parametrize("identity", sorted(WRONG_RECIPES))
def test_a_recipe_that_is_wrong_is_named_with_its_line(identity: str, command: Command, tmp_path: Path) -> None:
    recipes, code, hint = WRONG_RECIPES[identity]
    feedstock = feedstocks.make(tmp_path / "server", recipes=recipes, recipe=feedstocks.RECIPE + code)
    said, output = plan(command, feedstock, code=1)
    assert f"[{identity}]" in said
    assert "meta.yaml:" in said
    assert hint in said
    assert not output.exists()


@pytest.mark.parametrize(
    ("code", "identity", "place"),
    [
        ("x = 1 / 0", "recipe-import-failed", "feedstock/recipe.py:2"),
        ("def broken(:", "recipe-import-failed", "feedstock/recipe.py:2"),
        ("import nowhere_to_be_found", "recipe-import-failed", "feedstock/requirements.txt"),
        ("raise SystemExit(0)", "recipe-import-failed", "feedstock/recipe.py:2"),
        ("import os; os._exit(3)", "recipe-import-failed", "status 3"),
        ("raise KeyboardInterrupt", "recipe-import-failed", "KeyboardInterrupt"),
    ],
)
def test_a_recipe_that_does_not_import_is_named_with_its_line(
    code: str, identity: str, place: str, command: Command, tmp_path: Path
) -> None:
    feedstock = feedstocks.make(tmp_path / "server", recipe=f'"""A recipe."""\n{code}\n')
    said, _ = plan(command, feedstock, code=1)
    assert f"[{identity}]" in said
    assert place in said


def test_a_recipe_file_that_leads_out_of_the_feedstock_is_refused(command: Command, feedstock: Feedstock) -> None:
    outside = feedstock.server / "outside.py"
    outside.write_text(feedstocks.RECIPE)
    inside = feedstock.folder / "feedstock/recipe.py"
    inside.unlink()
    inside.symlink_to(outside)
    feedstock.commit()
    said, _ = plan(command, feedstock, code=1)
    assert "[recipe-outside]" in said


def test_a_feedstock_that_takes_another_ones_id_is_refused(command: Command, feedstock: Feedstock) -> None:
    meta = (feedstock.folder / "feedstock/meta.yaml").read_text()
    feedstock.write("feedstock/meta.yaml", meta.replace("id: sst\nversion", "id: noaa-oisst\nversion"))
    feedstock.commit()
    said, _ = plan(command, feedstock, code=1)
    assert "[meta-id-other-repository]" in said
    assert "id: sst" in said


def test_a_feedstock_without_meta_yaml_is_told_so(command: Command, feedstock: Feedstock) -> None:
    (feedstock.folder / "feedstock/meta.yaml").unlink()
    feedstock.commit()
    said, _ = plan(command, feedstock, code=1)
    assert "[file-missing]" in said
    assert "feedstock/meta.yaml" in said


def test_a_plan_that_has_no_folder_to_go_to_is_refused_before_any_recipe_is_imported(
    command: Command, feedstock: Feedstock
) -> None:
    feedstock.write("feedstock/recipe.py", "raise RuntimeError")
    done = command("plan", "-C", feedstock.folder, "--as", "merge", "-o", "nowhere/plan.json", code=2)
    assert "there is no folder nowhere" in done.stderr


def test_a_plan_that_cannot_be_written_is_named_with_what_the_system_says(
    command: Command, feedstock: Feedstock
) -> None:
    in_the_way = feedstock.server / ".plan.json.partial"
    in_the_way.mkdir()
    done = command("plan", "-C", feedstock.folder, "--as", "merge", cwd=in_the_way.parent, code=1)
    assert done.stderr.startswith(".plan.json.partial: error[system-refused] Is a directory\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", [["plan", "--as", "merge", "-o", "../plan.json"], ["lint"]], ids=["plan", "lint"])
def test_a_command_does_its_work_where_nobody_listens(feedstock: Feedstock, arguments: list[str], closed: str) -> None:
    program = [sys.executable, "-m", "feedstock_forge", *arguments]
    done = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *program], cwd=feedstock.folder, capture_output=True, text=True, check=True
    )
    assert "Traceback" not in done.stdout + done.stderr
    if arguments[0] == "plan":
        assert json.loads((feedstock.folder / "../plan.json").read_text())["commit"] == feedstock.head


def test_an_event_with_nothing_to_register_says_so_and_succeeds(command: Command, feedstock: Feedstock) -> None:
    event = feedstock.server / "event.json"
    event.write_text("{}")
    output = feedstock.server / "plan.json"
    done = command("plan", "-C", feedstock.folder, "--event-name", "star", "--event", event, "-o", output)
    assert "nothing to register: a `star` event registers nothing" in done.stdout
    done = command("register", output, "--event-name", "star", "--event", event)
    assert "nothing to register" in done.stdout


def test_a_preview_needs_no_event(command: Command, feedstock: Feedstock) -> None:
    done = command("plan", "--as", "release", cwd=feedstock.folder, env={"GITHUB_REPOSITORY": feedstock.repository})
    assert "complete; asks for local.dev" in done.stdout
