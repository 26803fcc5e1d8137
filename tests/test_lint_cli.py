"""The command `feedstock lint`: what it says, in which form, and how it ends."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from feedstock_forge import bakery

ROOT = Path(__file__).parents[1]
FORGE = ROOT / "tests" / "data" / "forge"
FEEDSTOCK = Path(sys.executable).with_name("feedstock")

# Text that would call people, forge a table or a heading, or command the runner, if it were not kept from it.
EVIL = "x` @everyone `| <img src=x> [a](javascript:b) #1 https://evil.example\\n\\n# Merged"


@pytest.fixture
def forge(tmp_path):
    shutil.copytree(FORGE, tmp_path / "forge")
    return tmp_path / "forge"


def lint(forge, *arguments, folder="noaa-oisst-feedstock", environment=None, stdout=subprocess.PIPE):
    command = [FEEDSTOCK, "lint", *arguments, "--bakeries", str(forge / "bakeries")]
    kept = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FEEDSTOCK_BAKERIES")}
    return subprocess.run(
        command,
        cwd=forge / folder,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
        env=kept | (environment or {}),
    )


def change(forge, old, new, name="feedstock/meta.yaml"):
    path = forge / "noaa-oisst-feedstock" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_good_feedstock_ends_with_0_and_one_line(forge):
    done = lint(forge)
    assert done.stdout == "Nothing wrong in 8 files of 1 feedstock.\n"
    assert done.returncode == 0


@pytest.mark.parametrize(("disabled", "is_asked_for"), [(None, False), ("none-of-this-name", True)])
def test_the_metadata_of_what_is_installed_is_imported_only_for_plugins(forge, disabled, is_asked_for):
    command = [sys.executable, "-X", "importtime", FEEDSTOCK, "lint", "--bakeries", forge / "bakeries"]
    environment = {key: value for key, value in os.environ.items() if key != "PYDANTIC_DISABLE_PLUGINS"}
    environment |= {"PYDANTIC_DISABLE_PLUGINS": disabled} if disabled else {}
    folder = forge / "noaa-oisst-feedstock"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("Nothing wrong")
    assert ("importlib.metadata._adapters" in done.stderr) == is_asked_for


def test_what_was_not_checked_is_said(forge):
    (forge / "noaa-oisst-feedstock" / ".copier-answers.yml").write_text("_commit: v1.0.0\n")
    assert "not checked: Generated files were not compared with the template" in lint(forge).stdout


def test_an_error_ends_with_1_and_says_where_what_why_and_what_to_do(forge):
    change(forge, "CC0-1.0", "Open Data")
    done = lint(forge)
    assert done.returncode == 1
    head, place, fix, why, empty, summary, _ = done.stdout.splitlines()
    assert head == "feedstock/meta.yaml"
    assert place == "    14:12  error  `Open Data` is not an SPDX licence  [licence-unknown]"
    assert fix.startswith(
        "           fix: write an SPDX id from https://spdx.org/licenses, or, for terms of their own,"
    )
    assert why.startswith("           why: Whoever finds the dataset has to know")
    assert empty == ""
    assert summary == "1 error in 8 files of 1 feedstock."


def test_a_warning_ends_with_0_and_with_strict_with_1(forge):
    change(forge, "<2027", "", "feedstock/requirements.txt")
    assert lint(forge).returncode == 0
    assert lint(forge, "--strict").returncode == 1


def test_a_hint_never_ends_with_1(forge):
    change(forge, "CC0-1.0", "CC0")
    assert lint(forge, "--strict").returncode == 0


def test_nothing_to_look_at_is_an_error(forge):
    done = lint(forge, "nowhere")
    assert done.returncode == 1
    assert "there is no nowhere" in done.stdout


def test_colour_is_for_terminals_that_want_it(forge):
    change(forge, "CC0-1.0", "Open Data")

    def on_terminal(environment):
        reader, writer = pty.openpty()
        command = [FEEDSTOCK, "lint", "--bakeries", str(forge / "bakeries")]
        with subprocess.Popen(command, cwd=forge / "noaa-oisst-feedstock", stdout=writer, env=environment) as process:
            os.close(writer)
            process.wait(60)
            return os.read(reader, 65536)

    plain = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    assert b"\x1b[31merror" in on_terminal(plain)
    assert b"\x1b" not in on_terminal({**plain, "NO_COLOR": "1"})
    assert "\x1b" not in lint(forge).stdout


def test_json_holds_all_of_a_finding(forge):
    change(forge, "label: dev", "label: dve")
    document = json.loads(lint(forge, "--format", "json").stdout)
    assert document["summary"] == {
        "errors": 1, "warnings": 0, "hints": 0, "files": 8, "feedstocks": 1, "bakeries": 0,
    }  # fmt: skip
    (found,) = document["findings"]
    assert found == {
        "id": "label-unknown",
        "severity": "error",
        "file": "feedstock/meta.yaml",
        "line": 21,
        "column": 12,
        "message": "ldeo.aws.us-west-2 has no label `dve`",
        "why": bakery.UNKNOWN_LABEL.why,
        "fix": "did you mean `dev`?",
        "who": "contributor",
        "documentation": "docs/findings.md#label-unknown",
    }


def test_github_gets_annotations_at_the_line(forge):
    change(forge, "label: dev", "label: dve")
    first = lint(forge, "--format", "github").stdout.splitlines()[0]
    assert first.startswith(
        "::error title=label-unknown,file=feedstock/meta.yaml,line=21,col=12::ldeo.aws.us-west-2 has no"
    )
    assert "%0Afix: did you mean `dev`?" in first


def test_no_text_of_a_file_commands_githubs_runner(forge):
    change(forge, "id: noaa-oisst", 'id: "x\\n::error::forged%0A::warning::too"')
    for form in ("github", "text"):
        lines = lint(forge, "--format", form).stdout.splitlines()
        assert [line for line in lines if line.lstrip().startswith("::") and "title=feedstock-id" not in line] == []


def test_markdown_shows_forged_text_as_text(forge):
    change(forge, "github: rabernat", f'github: "{EVIL}"')
    change(forge, "label: dev", f'label: dev\n    "{EVIL}": 1')
    comment = lint(forge, "--format", "markdown").stdout
    assert comment.startswith("### ✗ Lint: 2 errors in ")
    outside_code = "".join(comment.split("`")[::2])
    for forged in ("@everyone", "<img", "\n# Merged", "](javascript"):
        assert forged not in outside_code


def test_markdown_of_a_thousand_findings_fits_into_a_comment(forge):
    recipes = "".join(f"  - {{id: r{number}, object: 'recipe:missing_{number}'}}\n" for number in range(1000))
    change(forge, "recipes:\n", f"recipes:\n{recipes}")
    comment = lint(forge, "--format", "markdown").stdout
    assert len(comment) < 65_536
    assert "were left out here" in comment


def test_sarif_is_what_code_scanning_reads(forge):
    change(forge, "CC0-1.0", "Open Data")
    document = json.loads(lint(forge, "--format", "sarif").stdout)
    (run,) = document["runs"]
    (result,) = run["results"]
    assert document["version"] == "2.1.0"
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "licence-unknown"
    place = result["locations"][0]["physicalLocation"]
    assert place == {
        "artifactLocation": {"uri": "feedstock/meta.yaml"},
        "region": {"startLine": 14, "startColumn": 12},
    }


@pytest.mark.parametrize("form", ["text", "json", "github", "markdown", "sarif"])
def test_a_file_name_that_is_not_unicode_is_no_trouble(forge, form):
    evil = os.fsencode(str(forge / "noaa-oisst-feedstock" / "feedstock")) + b"/::error::\xff\n.py"
    Path(os.fsdecode(evil)).write_bytes(b"x = '\x00'\n")
    done = lint(forge, "--format", form)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not any(line.startswith("::error::") for line in done.stdout.splitlines())


def test_what_finds_no_room_for_its_output_says_so_and_no_more(forge):
    with Path("/dev/full").open("w") as full:
        done = lint(forge, stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("error[system-refused] No space left on device\n")
    assert "Traceback" not in done.stderr


def test_fix_rewrites_and_looks_again(forge):
    change(forge, "CC0-1.0", "CC0")
    done = lint(forge, "--fix")
    assert done.stderr == "rewrote feedstock/meta.yaml\n"
    assert done.stdout == "Nothing wrong in 8 files of 1 feedstock.\n"
    assert "license: CC0-1.0\n" in (forge / "noaa-oisst-feedstock" / "feedstock" / "meta.yaml").read_text()


def test_what_fix_has_left_is_not_promised_to_be_rewritten(forge):
    change(forge, "  - name: Ryan Abernathey\n    orcid: 0000-0001-5999-4917", '  - {name: Ryan Abernathey, orcid: ""')
    change(forge, "\n    github: rabernat", ", github: rabernat}")
    assert "may rewrite 1." in lint(forge).stdout
    assert "rewrite" not in lint(forge, "--fix").stdout


def test_fix_only_says_nothing_of_what_it_cannot_fix(forge):
    change(forge, "label: dev", "label: dve")
    done = lint(forge, "--fix-only")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_explain_prints_the_manual(forge):
    done = lint(forge, "--explain", "orcid-invalid")
    assert done.stdout.startswith("orcid-invalid\n\nAn [ORCID iD]")
    wrong = lint(forge, "--explain", "orcid-invalld")
    assert wrong.returncode == 1
    assert "finding-unknown" in wrong.stderr
    assert "orcid-invalid" in wrong.stderr


def test_a_bakery_database_that_is_not_there_is_an_error(forge):
    done = subprocess.run(
        [FEEDSTOCK, "lint", "--bakeries", "nowhere"], cwd=forge, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "bakeries-missing" in done.stderr


def test_this_repositorys_own_bakeries_are_without_a_finding():
    done = subprocess.run([FEEDSTOCK, "lint", ROOT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("Nothing wrong in ")
