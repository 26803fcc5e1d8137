"""The main job, whole: a release in a git repository becomes a dataset, by a real server and a real worker."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from conftest import Command
from demo import provider
from support import feedstocks, prefect
from support.feedstocks import Feedstock


def bake(
    command: Command,
    feedstock: Feedstock,
    event: tuple[str, Path],
    server: prefect.Server,
    bakeries: Path,
    code: int = 0,
) -> str:
    """Plan, register and watch, as the generated workflow does: three processes, the key only where it belongs."""
    name, payload = event
    output = feedstock.server / "plan.json"
    options = ["--event-name", name, "--event", str(payload)]
    job = feedstock.environment()
    command("plan", "-C", feedstock.folder, *options, "-o", output, env=job)
    command("register", output, *options, "--bakeries", bakeries, env=job | server.environment)
    watched = command("watch", output, *options, "--timeout", "120", env=job | server.environment)
    return watched.stdout + watched.stderr


def recipe(urls: list[str]) -> str:
    return textwrap.dedent(f"""
        from feedstock_forge.bake import bake

        INPUTS = {urls!r}

        def sst(target, mode="complete", prune=False):
            bake(INPUTS, target, mode=mode, prune=prune, concat_dim="time", chunks={{"time": 31}})
    """)


@pytest.mark.slow  # what the workflows do in test_workflows.py, without them
def test_a_release_is_baked_whole_and_a_merge_appends_what_is_new(
    command: Command, server: prefect.Server, worker: prefect.Worker, bakeries: Path, datasets: Path, tmp_path: Path
) -> None:
    files = provider.write_inputs(tmp_path / "inputs")
    with provider.serve(tmp_path / "inputs") as url:
        urls = [f"{url}/{file.name}" for file in files]
        feedstock = feedstocks.make(tmp_path / "server", "story", recipe=recipe(urls[:6]))
        meta = (feedstock.folder / "feedstock/meta.yaml").read_text()
        feedstock.write(
            "feedstock/meta.yaml",
            meta.replace('[{id: sst, object: "recipe:sst"}]', '[{id: sst, object: "recipe:sst"}]'),
        )
        said = bake(command, feedstock, ("release", feedstock.release("v1.0.0")), server, bakeries)
        dataset = str(datasets / "story/v1/sst.icechunk")
        assert "completed in" in said
        assert provider.check(dataset, files[:6]) == []
        entry = datasets / "catalog/story/v1/sst"
        described = [path.read_text() for path in (entry / "collection.json", entry / "v1.0.0.json")]

        feedstock.write("feedstock/recipe.py", recipe(urls[:9]))
        feedstock.commit("Merge pull request #3 from ada/more")
        bake(command, feedstock, ("push", feedstock.merge()), server, bakeries)
        assert provider.check(dataset, files[:9]) == []
        assert [path.read_text() for path in (entry / "collection.json", entry / "v1.0.0.json")] == described
