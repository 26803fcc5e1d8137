"""`feedstock new` makes what `copier copy` makes, all at once or not at all."""

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import copier
import pytest

from feedstock_forge import new
from feedstock_forge.findings import Refused
from feedstock_forge.template import fetched
from support import templates
from support.feedstocks import git
from test_template_engines import HARD

FEEDSTOCK = Path(sys.executable).with_name("feedstock")
ANSWERS = {name: answer for name, answer in templates.ANSWERS.items() if name != "license"}
MATRIX = {
    "xarray": {},
    "virtual": HARD[0] | {"kind": "virtual"},
    "beam": HARD[1] | {"kind": "beam", "store": "zarr"},
    "flow": HARD[2] | {"kind": "flow", "store": "zarr"},
    "staged-recipes": {"generates": "staged-recipes"},
}


@pytest.fixture(scope="module")
def forge(tmp_path_factory):
    """Two releases, a pre-release and work that is not released."""
    folder = templates.release(tmp_path_factory.mktemp("forge") / "forge")
    for version in ("v1.10.0", "v2.0.0rc1", None):
        templates.commit(folder, version)
    return folder


@pytest.fixture(scope="module")
def template(forge):
    with fetched(str(forge)) as template:
        yield template


def make(template, answers, folder=None, left=new.Open.DEFAULT):
    return new.make(template, str(template.clone.folder), answers, folder, left=left)


def data(answers):
    return [word for name, answer in answers.items() for word in ("--data", f"{name}={answer}")]


def modes(folder):
    return {path.relative_to(folder): path.stat().st_mode for path in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize("kind", MATRIX)
def test_the_files_and_their_modes_are_those_of_copier_copy(forge, template, tmp_path, kind):
    answers = ANSWERS | MATRIX[kind]
    copier.run_copy(str(forge), tmp_path / "copied", data=answers, defaults=True, quiet=True)
    made = make(template, answers, tmp_path / "deep/made")
    assert templates.tree(made.folder) == templates.tree(tmp_path / "copied")
    assert modes(made.folder) == modes(tmp_path / "copied")
    assert "_commit: v1.10.0" in (made.folder / ".copier-answers.yml").read_text(encoding="utf-8")
    assert f"cd {made.folder}" in made.words


def test_the_command_takes_answers_from_a_file_and_a_version_and_names_the_folder(forge, tmp_path, command):
    (tmp_path / "answers.yml").write_text(json.dumps(ANSWERS | {"id": "other"}), encoding="utf-8")
    arguments = ("--template", "forge", "--defaults", "--data-file", "answers.yml", "--data", "id=sst")
    (tmp_path / "forge").symlink_to(forge)
    done = command("new", "--to", "v1.0.0", *arguments)
    assert done.stdout.startswith("sst-feedstock is ready. Next:\n\n  cd sst-feedstock\n")
    recorded = (tmp_path / "sst-feedstock/.copier-answers.yml").read_text(encoding="utf-8")
    assert f"_commit: v1.0.0\n_src_path: {forge}\n" in recorded
    assert "error[new-folder-unusable]" in command("new", *arguments, code=1).stderr


def test_what_is_not_committed_is_left_out_and_said(tmp_path, command):
    forge = templates.release(tmp_path / "forge")
    (forge / "template/README.md").write_text("not committed", encoding="utf-8")
    done = command("new", "made", "--to", "HEAD", "--template", forge, "--defaults", *data(ANSWERS))
    assert "what is not committed in" in done.stderr
    assert "not committed" not in (tmp_path / "made/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("left", "answers", "finding_id", "words"),
    [
        (new.Open.REFUSE, ANSWERS, "new-answer-missing", "license, chunk_size are not answered"),
        (new.Open.REFUSE, {}, "new-answer-missing", "take the defaults of license, kind, store"),
        (new.Open.DEFAULT, {}, "new-answer-missing", "maintainers, forge have no default"),
        (new.Open.DEFAULT, ANSWERS | {"id": "SST"}, "new-answer-refused", "Write lower-case words"),
        (new.Open.DEFAULT, {"chunk_size": "1"}, "new-answer-refused", "Write a whole number"),
        (new.Open.DEFAULT, ANSWERS | {"kind": "xarry"}, "new-answer-refused", "not in ['xarray'"),
        (new.Open.DEFAULT, ANSWERS | {"titel": "A"}, "new-answer-refused", "did you mean `title`?"),
    ],
)
def test_answers_that_are_missing_or_refused_are_named_with_a_fix_and_nothing_is_made(
    template, tmp_path, left, answers, finding_id, words
):
    with pytest.raises(Refused) as refused:
        make(template, answers, tmp_path / "made", left)
    (finding,) = refused.value.findings
    assert finding.id == finding_id
    assert words in f"{finding.message}; {finding.fix}"
    assert list(tmp_path.iterdir()) == []


def test_who_has_no_copier_is_told_what_to_install(forge, tmp_path, command):
    (tmp_path / "copier.py").write_text("raise ModuleNotFoundError(name='copier')", encoding="utf-8")
    arguments = ("new", "made", "--template", forge, "--defaults", *data(ANSWERS))
    done = command(*arguments, env={"PYTHONPATH": str(tmp_path)}, code=1)
    assert "error[copier-missing] copier is not installed here" in done.stderr
    assert "pip install 'feedstock-forge[template]'" in done.stderr


def test_a_folder_in_use_is_refused_and_stays_as_it_was(template, tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    for folder in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(Refused, match=r"is not empty|is no folder") as refused:
            make(template, ANSWERS, folder)
        assert f"feedstock update {folder}" in refused.value.findings[0].fix
    assert templates.tree(tmp_path) == {"mine.txt": b"mine"}


def test_a_repository_that_was_just_begun_is_filled(template, tmp_path):
    git(tmp_path, "init", "--quiet")
    make(template, ANSWERS, tmp_path)
    assert "?? feedstock/meta.yaml" in templates.status(tmp_path)
    assert not list(tmp_path.parent.glob(".feedstock-new-*"))


def test_a_template_that_cannot_be_rendered_is_a_finding_and_leaves_nothing(tmp_path):
    forge = templates.release(tmp_path / "forge")
    (forge / "template/README.md").write_text("{% nonsense %}", encoding="utf-8")
    templates.commit(forge, "v1.1.0")
    with fetched(str(forge)) as template, pytest.raises(Refused, match=r"v1.1.0: .*nonsense") as refused:
        make(template, ANSWERS, tmp_path / "made")
    assert refused.value.findings[0].id == "new-template-broken"
    assert list(tmp_path.iterdir()) == [forge]


@pytest.mark.parametrize(
    ("recorded", "address"),
    [
        ({"url": "https://github.com/Ocean/forge.git", "vcs_info": {"vcs": "git", "commit_id": "0"}}, "gh:Ocean/forge"),
        ({"url": "https://git.example.org/forge", "vcs_info": {"vcs": "git"}}, "git+https://git.example.org/forge"),
        ({"url": "ssh://git@example.org/forge.git", "vcs_info": {"vcs": "git"}}, "ssh://git@example.org/forge.git"),
        ({"url": "FOLDER", "dir_info": {"editable": True}}, "FOLDER"),
        ({"url": "https://example.org/forge.zip", "archive_info": {}}, None),
        (None, None),
    ],
)
def test_the_template_is_where_the_program_was_installed_from(tmp_path, monkeypatch, recorded, address):
    """By what an installer records: https://packaging.python.org/en/latest/specifications/direct-url-data-structure/."""
    folder = tmp_path / "my forge"
    git(tmp_path, "init", "--quiet", folder.name)
    installed = tmp_path / "feedstock_forge-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: feedstock-forge\nVersion: 0.1.0\n")
    if recorded:
        (installed / "direct_url.json").write_text(json.dumps(recorded).replace("FOLDER", folder.as_uri()))
    monkeypatch.syspath_prepend(tmp_path)
    if address is None:
        with pytest.raises(Refused, match="does not know which"):
            new.installed_from()
    else:
        assert new.installed_from() == address.replace("FOLDER", str(folder))


@pytest.mark.parametrize(
    ("typed", "spelled"),
    [
        ("gh:ocean/forge", "gh:ocean/forge"),
        ("https://github.com/ocean/forge", "https://github.com/ocean/forge"),
        ("https://git.example.org/forge", "git+https://git.example.org/forge"),
        ("https://git.example.org/forge.git", "https://git.example.org/forge.git"),
        ("git@example.org:forge", "git@example.org:forge"),
    ],
)
def test_an_address_is_recorded_as_copier_knows_it_for_gits(typed, spelled):
    assert new.spelled(typed) == spelled


def test_a_template_is_cloned_from_an_address_that_is_told_to_be_gits(forge, tmp_path):
    address = f"git+{forge.as_uri()}"
    with fetched(address, "v1.0.0") as template:
        made = new.make(template, address, ANSWERS, tmp_path / "made", left=new.Open.DEFAULT)
    assert f"_src_path: {address}\n" in (made.folder / ".copier-answers.yml").read_text(encoding="utf-8")


class Terminal:
    """`feedstock new` at a terminal, for which a person answers each question when it is asked."""

    def __init__(self, folder, *arguments):
        self.said = ""
        self._end, its = pty.openpty()
        command = [FEEDSTOCK, "new", *map(str, arguments)]
        environment = os.environ | {"TERM": "xterm"}
        self._process = subprocess.Popen(command, cwd=folder, env=environment, stdin=its, stdout=its, stderr=its)
        os.close(its)

    def answer(self, question, answer):
        """Type once the question is there."""
        at = len(self.said)
        while question not in self.said[at:]:
            assert self._read(), f"{question!r} is not asked: {self.said}"
        os.write(self._end, answer.encode())

    def ends(self):
        """The exit status, at the end."""
        while self._read():
            pass
        os.close(self._end)
        return self._process.wait(60)

    def _read(self):
        ready, _, _ = select.select([self._end], [], [], 60)
        try:
            read = os.read(self._end, 65536) if ready else b""
        except OSError:  # as Linux says that the other end is closed
            return False
        self.said += read.decode(errors="replace")
        if b"\x1b[6n" in read:  # where is the cursor?
            os.write(self._end, b"\x1b[1;1R")
        return bool(read)


def test_a_person_is_asked_what_is_open_and_told_what_to_type(forge, tmp_path):
    (tmp_path / "sst-feedstock").mkdir()
    (tmp_path / "sst-feedstock/mine.txt").touch()
    left = ("id", "kind", "store", "forge")
    answers = {name: answer for name, answer in ANSWERS.items() if name not in left} | {"license": "proprietary"}
    terminal = Terminal(tmp_path, "--template", forge, *data(answers))
    terminal.answer("A short name", "SST\r")
    terminal.answer("Write lower-case words", "\x15sst\r")
    terminal.answer("Where can the licence be read?", "https://example.org/terms\r")
    terminal.answer("An empty Prefect flow", "\x1b[B\r")
    terminal.answer("What should the recipe write?", "\r")
    terminal.answer("Of which GitHub repository", "ocean-forge/forge\r")
    terminal.answer("Which folder instead", "other\r")
    assert terminal.ends() == 0
    assert "cd other" in terminal.said
    assert "kind: virtual\n" in (tmp_path / "other/.copier-answers.yml").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "sst-feedstock"]


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["ctrl-c", "ctrl-d"])
def test_who_has_enough_of_the_questions_leaves_nothing_behind(forge, tmp_path, key):
    terminal = Terminal(tmp_path, "--template", forge)
    terminal.answer("A short name", "sst\r")
    terminal.answer("The dataset's title", key)
    assert terminal.ends() == 130
    assert "stopped by you" in terminal.said
    assert list(tmp_path.iterdir()) == []
