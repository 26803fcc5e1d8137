"""Running a recipe on a laptop: no server, no secret, and a clear word when the recipe is wrong."""

from __future__ import annotations

import pytest

from conftest import Command
from support.feedstocks import Feedstock


def test_the_only_recipe_needs_no_name(command: Command, feedstock: Feedstock) -> None:
    done = command("run", "--prune", cwd=feedstock.folder)
    assert done.stdout.strip().endswith("datasets/sst/v1/sst.pruned.icechunk")
    assert (feedstock.folder / "datasets/sst/v1/sst.pruned.icechunk/called").read_text() == "complete True"


def test_the_target_is_a_dataset_or_a_folder(command: Command, feedstock: Feedstock) -> None:
    for target, url in [("out", "out/sst/v1/sst.icechunk"), ("out/my.icechunk", "out/my.icechunk")]:
        done = command("run", "sst", "--mode", "update", "--target", target, cwd=feedstock.folder)
        assert done.stdout.strip() == url
        assert (feedstock.folder / url / "called").read_text() == "update False"


def test_every_recipe_runs_when_asked_for_all(command: Command, feedstock: Feedstock) -> None:
    meta = (feedstock.folder / "feedstock/meta.yaml").read_text()
    two = '[{id: one, object: "recipe:sst"}, {id: two, object: "recipe:sst"}]'
    feedstock.write("feedstock/meta.yaml", meta.replace('[{id: sst, object: "recipe:sst"}]', two))
    assert len(command("run", "--all", cwd=feedstock.folder).stdout.splitlines()) == 2
    assert len(command("run", "--all", "--at-most", "1", cwd=feedstock.folder).stdout.splitlines()) == 1
    done = command("run", cwd=feedstock.folder, code=1)
    assert "[recipe-unknown]" in done.stderr
    assert "one, two" in done.stderr
    assert "did you mean `two`" in command("run", "tow", cwd=feedstock.folder, code=1).stderr


def test_a_recipe_that_raises_is_named_with_its_line(command: Command, feedstock: Feedstock) -> None:
    feedstock.write(
        "feedstock/recipe.py",
        """
        def sst(target, mode="complete", prune=False):
            inner()

        def inner():
            raise ValueError("no such year")
        """,
    )
    done = command("run", cwd=feedstock.folder, code=1)
    assert "feedstock/recipe.py:5: error[recipe-failed]" in done.stderr
    assert "ValueError: no such year" in done.stderr


def test_a_recipe_may_be_asynchronous(command: Command, feedstock: Feedstock) -> None:
    feedstock.write(
        "feedstock/recipe.py",
        """
        import asyncio

        async def sst(target, mode="complete", prune=False):
            await asyncio.sleep(0)
            raise ValueError(f"{mode}, {prune}")
        """,
    )
    done = command("run", "--prune", cwd=feedstock.folder, code=1)
    assert "feedstock/recipe.py:5: error[recipe-failed]" in done.stderr
    assert "ValueError: complete, True" in done.stderr


def test_a_recipe_never_reaches_the_server_that_the_shell_is_set_to_nor_its_makers(
    command: Command, feedstock: Feedstock
) -> None:
    feedstock.write(
        "feedstock/recipe.py",
        """
        import os

        def sst(target, mode="complete", prune=False):
            from prefect.settings import get_current_settings

            print(sorted(name for name in os.environ if name.startswith("PREFECT_API")))
            print("analytics:", get_current_settings().server.analytics_enabled)
        """,
    )
    env = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_API_KEY": "hunter2"}
    done = command("run", cwd=feedstock.folder, env=env | {"PREFECT_SERVER_ANALYTICS_ENABLED": "true"})
    assert "[]" in done.stdout
    assert "analytics: False" in done.stdout


@pytest.mark.slow
def test_a_recipe_that_is_a_flow_brings_a_server_of_its_own_and_takes_it_away(
    command: Command, feedstock: Feedstock
) -> None:
    feedstock.write(
        "feedstock/recipe.py",
        """
        from pathlib import Path
        from prefect import flow, task

        @task
        def double(number):
            return 2 * number

        @flow
        def sst(target: str, mode: str = "complete", prune: bool = False):
            Path(target).parent.mkdir(parents=True)
            Path(target).write_text(str(double(21)))
        """,
    )
    done = command("run", cwd=feedstock.folder)
    assert "Stopping temporary server" in done.stderr
    assert (feedstock.folder / "datasets/sst/v1/sst.icechunk").read_text() == "42"
