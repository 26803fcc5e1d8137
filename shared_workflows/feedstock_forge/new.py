"""A new feedstock from the template: the files that `copier copy` writes, and all of them at once or none."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from .findings import Finding, Refused, Who, did_you_mean, rule
from .git import github_name
from .template import Template

NO_ADDRESS = rule("new-template-unknown", "A feedstock is pinned to the repository that its template came from.")
MISSING = rule("new-answer-missing", "The template asks what it cannot know, and nobody answers for you.")
REFUSED = rule("new-answer-refused", "The template says itself which answers it can be filled in with.")
NO_FOLDER = rule("new-folder-unusable", "A feedstock begins in a folder of its own, so that nothing is overwritten.")
BROKEN = rule("new-template-broken", "Only a whole feedstock is of use.", who=Who.ORGANISATION)

if TYPE_CHECKING:
    from .rendering import Version

PACKAGE = "feedstock-forge"
STAGED = "staged-recipes"

ANSWER = re.compile(r"(?:Validation error for question|Invalid choice for) '(\w+)': (.*)", re.DOTALL)
"""What Copier says of an answer that the template refuses."""


class Open(Enum):
    """What happens to a question that was not answered in advance."""

    ASK = "it is asked at the terminal"
    DEFAULT = "it gets its default"
    REFUSE = "nothing is made, and it is named"


@dataclass(frozen=True, slots=True)
class New:
    """What was made."""

    folder: Path
    words: str
    """What the template says to do next."""


def installed_from() -> str:
    """The address of the repository that this program was installed from, as Copier takes it.

    The installer records it: https://packaging.python.org/en/latest/specifications/direct-url/. Raises
    :class:`Refused` if it came from anywhere else, such as a package index, which tells nothing of a template.
    """
    recorded = json.loads(importlib.metadata.distribution(PACKAGE).read_text("direct_url.json") or "{}")
    url = str(recorded.get("url", ""))
    if recorded.get("vcs_info", {}).get("vcs") == "git":
        name = github_name(url)
        return f"gh:{name}" if name else spelled(url)
    folder = Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None
    if folder and (folder / ".git").exists():
        return str(folder)
    message = "this program does not know which repository's template to take"
    raise Refused(NO_ADDRESS.at(None, message, "name it: --template gh:OWNER/NAME"))


def spelled(address: str) -> str:
    """An address as Copier takes it, now and at every update: what it would not know for git's is told to be.

    https://copier.readthedocs.io/en/stable/generating/ lists what it knows. A folder's address is its whole path.
    """
    if (folder := Path(address).expanduser()).exists():
        return str(folder if folder.is_absolute() else folder.resolve())
    known = ("gh:", "gl:", "git+", "git@", "git://", "https://github.com/", "https://gitlab.com/")
    if address.startswith(known) or address.endswith(".git") or "://" not in address:
        return address
    return f"git+{address}"


def make(
    template: Template,
    address: str,
    answers: Mapping[str, Any],
    folder: Path | None = None,
    *,
    left: Open,
    instead: Callable[[Refused], Path] | None = None,
) -> New:
    """Make a feedstock, or what else the answers say, in ``folder``: by default a folder here, named after its id.

    ``address`` is recorded as where the template came from. ``instead`` is asked for another folder where the default
    one cannot be used, so that nobody has to answer twice. Raises :class:`Refused` if the folder is in use or an
    answer is missing or refused. What is not whole is never seen: until then it lies aside, on the same file system.
    """
    if folder is not None:
        _usable(folder)
    version = template.read()
    try:
        if unknown := [name for name in answers if name not in version.questions(address)]:
            message = f"the template has no question `{unknown[0]}`"
            raise Refused(REFUSED.at(None, message, did_you_mean(unknown[0], version.questions(address))))
        if left is Open.REFUSE and any(open_ := version.unanswered(address, answers)):
            raise Refused(_missing(*open_, "are not answered, and there is no terminal to ask at"))
        with ExitStack() as stack:
            made: list[tuple[Path, Path]] = []

            def place(given: Mapping[str, Any]) -> tuple[Path, Path]:
                final = folder or _free(_named(given), instead)
                made.append((_aside(final, stack), final))
                return made[-1]

            words = version.copy(address, answers, place, ask=left is Open.ASK)
            ((aside, final),) = made
            try:
                _move(aside, final)
            except OSError as error:
                raise _unusable(final, f"cannot be written: {error.strerror}") from None
    except Refused:
        raise
    except Exception as error:  # Copier, Jinja and YAML raise many kinds; whichever it is, there is no feedstock.
        if isinstance(error, ValueError) and (finding := _refusal(error, version, address, answers)):
            raise Refused(finding) from None
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        message = f"{address} cannot be rendered at {template.version}: {said}"
        fix = "take another version with --to, or tell the template's maintainers"
        raise Refused(BROKEN.at(None, message, fix)) from error
    return New(final, words)


def _refusal(error: ValueError, version: Version, address: str, answers: Mapping[str, Any]) -> Finding | None:
    """What is wrong with the answers, all that are missing named at once; ``None`` if it is something else."""
    found = ANSWER.fullmatch(str(error))
    if found and found[1] in answers:
        message = f"the template does not take this for `{found[1]}`"
        return REFUSED.at(None, message, " ".join(found[2].split()))
    try:
        required, _ = version.unanswered(address, answers)
    except ValueError as other:
        return _refusal(other, version, address, answers)
    return _missing(required, [], "have no default") if required else None


def _missing(required: list[str], optional: list[str], why: str) -> Finding:
    fixes = [f"answer with {' '.join(f'--data {name}=…' for name in required)}"] if required else []
    fixes += [f"take the defaults of {', '.join(optional)} with --defaults"] if optional else []
    return MISSING.at(None, f"{', '.join([*required, *optional])} {why}", " and ".join(fixes))


def _named(answers: Mapping[str, Any]) -> Path:
    """The folder to make where nobody named one."""
    if answers.get("generates") == STAGED:
        return Path(STAGED)
    if "id" not in answers:
        message = "the template asks for no id that the folder could be named after"
        raise Refused(NO_FOLDER.at(None, message, "name the folder: feedstock new FOLDER"))
    return Path(f"{answers['id']}-feedstock")


def _free(folder: Path, instead: Callable[[Refused], Path] | None) -> Path:
    while True:
        try:
            _usable(folder)
        except Refused as refused:
            if instead is None:
                raise
            folder = instead(refused)
        else:
            return folder


def _unusable(folder: Path, why: str) -> Refused:
    fix = f"name another: feedstock new FOLDER; to bring a feedstock that exists up to date: feedstock update {folder}"
    return Refused(NO_FOLDER.at(None, f"{folder} {why}", fix))


def _usable(folder: Path) -> None:
    """Raise :class:`Refused` if something is there, a fresh repository's ``.git`` aside."""
    try:
        if any(path.name != ".git" for path in folder.iterdir()):
            raise _unusable(folder, "is not empty")
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise _unusable(folder, "is no folder") from None
    except OSError as error:
        raise _unusable(folder, f"cannot be read: {error.strerror}") from None


def _aside(final: Path, stack: ExitStack) -> Path:
    """Where the files lie until they are whole: in a folder of the same name, near the one that they will be in."""
    _usable(final)
    near = next(parent for parent in final.absolute().parents if parent.is_dir())
    try:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix=".feedstock-new-", dir=near))
    except OSError as error:
        raise _unusable(final, f"cannot be made: {error.strerror}") from None
    return Path(scratch, final.resolve().name)


def _move(aside: Path, final: Path) -> None:
    """Put what is whole into its place. Raises ``OSError`` if that cannot be, and then nothing is there."""
    if not final.exists():
        final.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(final)
        return
    # Somebody may stand in the empty folder, so it stays the same one.
    moved: list[Path] = []
    try:
        moved.extend(path.rename(final / path.name) for path in sorted(aside.iterdir()))
    except BaseException:
        for path in moved:
            path.rename(aside / path.name)
        raise
