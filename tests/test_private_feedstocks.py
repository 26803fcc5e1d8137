"""Private feedstocks: what a job fetches of one, it fetches with its own token, and nobody else sees that."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from conftest import Command
from support import git_server
from support.feedstocks import Feedstock, git

TOKEN = "ghs_only-of-this-job"


def test_registering_fetches_meta_yaml_with_the_jobs_token_and_shows_it_to_nobody(
    feedstock: Feedstock, command: Command, tmp_path: Path
) -> None:
    event = feedstock.release("v1.0.0")
    options = ["--event-name", "release", "--event", str(event)]
    output = tmp_path / "plan.json"
    command("plan", "-C", feedstock.folder, *options, "-o", output, env=feedstock.environment())
    # A git that writes down how it is called, in a folder that is no clone: as in the job that registers.
    (tmp_path / "bin").mkdir()
    wrapper, arguments = tmp_path / "bin/git", tmp_path / "arguments"
    wrapper.write_text(f'#!{sys.executable}\nimport os, sys\nopen({str(arguments)!r}, "a").write(f"{{sys.argv}}\\n")\n')
    wrapper.write_text(wrapper.read_text() + f'os.execv({shutil.which("git")!r}, ["git", *sys.argv[1:]])\n')
    wrapper.chmod(0o755)
    git(feedstock.folder, "tag", "-d", "v1.0.0")
    with git_server.serve(feedstock.server, TOKEN, tmp_path) as server:
        env = feedstock.environment() | {
            "GITHUB_SERVER_URL": server.url,
            "GIT_SSL_CAINFO": str(server.certificate),
            "PATH": os.pathsep.join([str(wrapper.parent), os.environ["PATH"]]),
        }
        refused = command("register", output, *options, env=env, cwd=wrapper.parent, code=1)
        assert "[git-failed]" in refused.stderr
        # Prefect is the next to be asked, and there is none.
        done = command("register", output, *options, env=env | {"GITHUB_TOKEN": TOKEN}, cwd=wrapper.parent, code=1)
    assert "[prefect-url-missing]" in done.stderr
    assert "'fetch'" in arguments.read_text()
    for said in (arguments.read_text(), refused.stderr + done.stdout + done.stderr):
        assert TOKEN not in said
        assert "Authorization" not in said
