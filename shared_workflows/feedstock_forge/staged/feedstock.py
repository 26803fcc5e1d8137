"""The feedstock that a proposed recipe becomes, as one commit on top of the recipe's own history.

Made from the template as a person would make it, and from nothing else: the same recipe, the same version of the
template and the same address give the same commit, so whoever makes it again after an interruption finds it made.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .. import lint, meta
from ..findings import Refused, Severity, Who, below, rule
from ..git import FORGE, Repository, github_name
from ..meta import ANSWERS, FILE, FOLDER, Meta
from ..template import Template as Fetched
from ..template import fetched
from ..yaml_file import parse_yaml, read_yaml
from . import answers, folders, history
from .history import Moved

NOT_RENDERED = rule(
    "staged-template-unreachable", "Only the template can make a feedstock.", who=Who.ORGANISATION
)  # fmt: skip

REQUIREMENTS = "requirements.txt"
TESTS = "tests"


@dataclass(frozen=True, slots=True)
class Template:
    """Where the template is, as a person would name it to Copier, and which version of it."""

    forge: str
    """``owner/name`` of its repository."""
    server: str = "https://github.com"
    version: str | None = None
    """A commit or a tag; the newest release if there is none."""

    @property
    def address(self) -> str:
        """What Copier is given."""
        if self.server == "https://github.com":
            return f"gh:{self.forge}"
        if self.server.startswith("file://"):
            return f"{self.server.removeprefix('file://')}/{self.forge}"
        return f"git+{self.server}/{self.forge}.git"


class Source:
    """The template, fetched when the first recipe needs it and kept for the others. Use it as a context."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self._stack = ExitStack()
        self._fetched: Fetched | None = None

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def fetched(self) -> Fetched:
        """The repository and the version in it. Raises :class:`Refused` if it cannot be had."""
        if self._fetched is None:
            self._fetched = self._stack.enter_context(fetched(self.template.address, self.template.version))
        return self._fetched


def of_staged(folder: Path) -> Template:
    """The template that a repository of staged recipes came from, at the version that it is at.

    So what a pull request was shown is what is made of it. Raises :class:`Refused` without recorded answers.
    """
    document = read_yaml(folder / ANSWERS, within=folder)
    known = document.data
    forge = known.get("forge") or github_name(str(known.get("_src_path", "")))
    if not isinstance(forge, str) or not isinstance(known.get("_commit"), str):
        fix = "run `copier recopy` there, or name --template and --to"
        raise Refused(NOT_RENDERED.at(document.place(), f"{ANSWERS} does not say where the template is", fix))
    return Template(forge, version=known["_commit"])


@dataclass(frozen=True, slots=True)
class Feedstock:
    """A feedstock that is made and not yet anywhere but in the clone of the staged recipes."""

    name: str
    """The recipe's folder, which is the feedstock's id."""
    meta: Meta
    commit: str
    moved: Moved
    version: str
    """The template's version."""
    recipe_tree: str
    """The recipe's folder as it was made from."""
    files: tuple[str, ...]


def make(repository: Repository, commit: str, name: str, source: Source, staged: str) -> Feedstock:
    """Make the feedstock of the recipe ``name`` as it is at a commit of a full clone of ``staged`` (``owner/name``).

    Raises :class:`Refused` with everything that lint has against the recipe, or with what the template has against its
    meta.yaml. Nothing of the recipe is run or imported.
    """
    tree, file, version = _made(repository, commit, name, source, staged)
    moved = history.move(repository, commit, folders.path_of(name), FOLDER, staged)
    message = f"Make a feedstock of the recipe\n\nFrom {staged}, {folders.path_of(name)}, and the template {version}.\n"
    date = f"@{moved.date}"
    made = repository.run(
        "commit-tree", tree, "-p", moved.tip, stdin=message,
        environment=FORGE | {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date},
    ).strip()  # fmt: skip
    recipe_tree = repository.run("rev-parse", f"{commit}:{folders.path_of(name)}").strip()
    return Feedstock(name, file, made, moved, version, recipe_tree, _listed(repository, tree))


def files(repository: Repository, commit: str, name: str, source: Source, staged: str) -> tuple[str, ...]:
    """The files that :func:`make` would make, for a preview; the clone may be shallow. Raises as it does."""
    tree, _, _ = _made(repository, commit, name, source, staged)
    return _listed(repository, tree)


def _listed(repository: Repository, tree: str) -> tuple[str, ...]:
    return tuple(path for path in repository.run("ls-tree", "-r", "-z", "--name-only", tree).split("\0") if path)


def _made(repository: Repository, commit: str, name: str, source: Source, staged: str) -> tuple[str, Meta, str]:
    """The feedstock as a tree in the clone, its meta.yaml, and the template's version."""
    folders.refuse_odd(repository, commit, name)
    with tempfile.TemporaryDirectory(prefix="feedstock-") as scratch:
        recipe, rendered = Path(scratch, folders.path_of(name)), Path(scratch, f"{name}-feedstock")
        repository.extract(commit, folders.path_of(name), Path(scratch))
        file = _read(recipe, Path(scratch), f"{staged.split('/')[0]}/{name}-feedstock")
        _render(source, rendered, answers.derive(file, recipe), recipe)
        _give_way(rendered, recipe, answers.from_skeleton(file))
        version = str(parse_yaml((rendered / ANSWERS).read_text("utf-8"), rendered).data["_commit"])
        tree = _tree(repository, rendered, commit, name, Path(scratch, "index"))
    return tree, file, version


def _read(recipe: Path, root: Path, repository: str) -> Meta:
    # Which bakeries there are is said on the pull request; a feedstock may well ask for one that is yet to come.
    report = lint.lint([recipe], lint.Options(repository=repository))
    errors = [below(finding, root) for finding in report.findings if finding.severity is Severity.ERROR]
    if errors:
        raise Refused(*errors)
    model, findings = meta.check(read_yaml(recipe / FILE, within=recipe), repository)
    if model is None:
        raise Refused(*findings)
    return model


def _render(source: Source, into: Path, given: dict[str, str], recipe: Path) -> None:
    template = source.template
    data = given | ({} if template.address.startswith("gh:") else {"forge": template.forge})
    try:
        # A template that wants to run something is not rendered.
        source.fetched().read().copy(template.address, data, lambda _: (into, into), ask=False)
    except ValueError as error:
        document = parse_yaml((recipe / FILE).read_text("utf-8"), Path(folders.path_of(recipe.name)) / FILE)
        raise Refused(answers.refusal(error, document)) from None
    except Exception as error:  # Copier, git and Jinja raise many kinds; whichever it is, there is no feedstock.
        said = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        message = f"{template.address} cannot be rendered at {template.version or 'its newest release'}: {said}"
        fix = "check the template's address and version (--template, --to)"
        raise Refused(NOT_RENDERED.at(None, message, fix)) from error


def _give_way(rendered: Path, recipe: Path, from_skeleton: bool) -> None:
    """Take the skeleton out of the template's tree, where the recipe's own files will stand."""
    for path in (rendered / FOLDER).iterdir():
        # requirements-dev.txt leads to this one.
        if path.name != REQUIREMENTS or (recipe / REQUIREMENTS).exists():
            path.unlink()
    if not from_skeleton:
        # It imports the skeleton's function by a name that this recipe does not have.
        for path in (rendered / TESTS).iterdir():
            path.unlink()


def _tree(repository: Repository, rendered: Path, commit: str, name: str, index: Path) -> str:
    """The rendered files and the recipe's, as a tree in the clone."""
    where = {"GIT_DIR": repository.run("rev-parse", "--absolute-git-dir").strip(), "GIT_INDEX_FILE": str(index)}
    Repository(rendered).run("add", "--all", "--force", ".", environment=where | {"GIT_WORK_TREE": str(rendered)})
    entries = []
    for entry in repository.run("ls-tree", "-r", "-z", commit, "--", f"{folders.path_of(name)}/").split("\0"):
        if entry:
            kind, path = entry.split("\t", 1)
            mode, _, blob = kind.split()
            entries.append(f"{mode} {blob}\t{FOLDER}/{path.removeprefix(f'{folders.path_of(name)}/')}\0")
    repository.run("update-index", "-z", "--index-info", stdin="".join(entries), environment=where)
    return repository.run("write-tree", environment=where).strip()
