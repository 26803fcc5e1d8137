"""Environments: what a feedstock's ``requirements.txt`` asks for, locked, installed once and used by every run.

Where a ``requirements.lock`` lies beside it, the feedstock has locked them itself, and those versions are installed.

A worker runs the recipes of many feedstocks, whose requirements may exclude each other's and the worker's own. So a
recipe runs in an environment that uv makes for its requirements, beside the forge's own code. What the worker's
environment meets already, each locked version exactly, needs none. Nothing is ever installed into the worker's.

An environment is built beside its place and moved there at once, under a lock: a build that is killed leaves nothing
that a later run could take for whole. Its ``requirements.lock`` says what is in it. Building a package runs
a stranger's code: the limits of the run hold for it, and nothing that it starts outlives the build.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.metadata
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from . import __version__, leash, limits, recipes
from .bake.fetch import FULL, SETTING
from .bake.locks import scratch
from .bakery import Limits
from .findings import Place, Refused, Who, rule
from .limits import Use
from .meta import FOLDER
from .yaml_file import decode, is_inside

NO_UV = rule("uv-missing", "uv makes the environments of recipes.", who=Who.OPERATOR)
UNSOLVABLE = rule("environment-unsolvable", "A recipe runs only where everything that it needs fits together.")
NOT_BUILT = rule("environment-not-built", "A recipe's environment is installed before it runs.")

REQUIREMENTS = "requirements.txt"
LOCK = "requirements.lock"
PACKAGE = "feedstock-forge"

FOLDER_VARIABLE = "FEEDSTOCK_ENVIRONMENTS"
KEPT_DAYS = 30
"""Days after its last use that an environment is kept."""
LONGEST_BUILD = 30 * 60
"""Seconds that building an environment may take where nothing says how long the run may."""

_PLACE = Place(f"{FOLDER}/{REQUIREMENTS}")
_USED = "used"
_BUILDING = ".building-"
# What `requirements.txt` may hold besides names, versions and fixed addresses depends on files of the checkout.
_LOCAL = re.compile(r"^\s*(?:-(?!-hash)|\.|/|\w:)|file:", re.MULTILINE)
_INCLUDE = re.compile(r"^[ \t]*(?:-r|-c|--requirement|--constraint)(?:[ \t]*=[ \t]*|[ \t]+)(\S+).*$", re.MULTILINE)
_MOST_INCLUDED = 100
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_HASH = "--hash"
_ONE_VERSION = re.compile(r"===?[^*,]+")
# As Python and uv both say it.
_NO_SPACE = re.compile("|".join(re.escape(os.strerror(number)) for number in (errno.ENOSPC, errno.EDQUOT)))
_LONGEST_STORY = 1 << 20
"""Bytes of what uv says that are read: what a package prints while it is built is among it."""

# What a build leaves behind is whatever this process has below it that was not there before.
_one_at_a_time = threading.Lock()

_Uv = Callable[..., subprocess.CompletedProcess[str]]


def folder() -> Path:
    """Where environments are kept: ``FEEDSTOCK_ENVIRONMENTS``, or a folder of the user's cache."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / PACKAGE / "environments"


def python_for(
    checkout: Path,
    say: Callable[[str], None],
    beside: Sequence[str] = (),
    allowed: Limits | None = None,
    label: str = "",
) -> Path:
    """The Python that can run the recipes of a checkout: this one, or that of an environment, built if need be.

    ``beside`` are requirements of the bakery's, for its engine. ``allowed`` is what the run may take, and so may the
    build; ``label`` is the ``<bakery>.<label>`` that says so. Raises :class:`Refused` if the requirements cannot be
    read, or cannot be installed together, or not now, or not within that.
    """
    path = (checkout / FOLDER / REQUIREMENTS).absolute()
    text = "\n".join(_read(file, path.parents[1], set()) for file in _asked(path))
    if are_met("\n".join((text, *beside))):
        return Path(sys.executable)
    environments = folder()
    place = environments / _key(path, text, beside)
    python = place / "bin" / "python"
    with _refusing_the_folder(environments):
        environments.mkdir(parents=True, exist_ok=True)
        with _locked(_lock_file(place)):
            if not _is_whole(place):
                began = time.monotonic()
                files = " and ".join(f"{FOLDER}/{file.name}" for file in _asked(path))
                say(f"building an environment for {files or 'the engine of the bakery'}")
                _prune(environments)
                uv = partial(_uv, cwd=path.parents[1], allowed=allowed or Limits(), label=label, began=began)
                count = _build(place, path, beside, say, uv, verify=_holds_hashes(text))
                say(f"built environment {place.name}: {count} packages in {time.monotonic() - began:.1f} s")
            else:
                say(f"environment {place.name}")
            (place / _USED).touch()
    return python


def _is_whole(place: Path) -> bool:
    """Whether an environment has what starts a recipe: whoever clears a cache may leave some of it."""
    here = os.access(place / "bin" / "python", os.X_OK) and (place / "pyvenv.cfg").is_file()
    return here and any(place.glob("lib/python*/site-packages/feedstock_forge/recipe_process.py"))


@contextmanager
def _refusing_the_folder(environments: Path) -> Iterator[None]:
    """Raise :class:`Refused` where nothing can be kept in the folder for environments."""
    try:
        yield
    except OSError as error:
        if _NO_SPACE.search(str(error)):
            raise _disk_full(str(error)) from None
        if error.filename is None:  # it is of something else
            raise
        message = f"no environment can be kept in {environments}: {error.strerror}"
        fix = f"let {FOLDER_VARIABLE} name a folder that the worker may write"
        raise Refused(SETTING.at(None, message, fix)) from None


def _disk_full(reason: str) -> Refused:
    fix = f"free some space; {FOLDER_VARIABLE} moves where environments are kept, UV_CACHE_DIR where uv keeps packages"
    return Refused(FULL.at(None, f"an environment cannot be built: {reason}", fix))


def _asked(path: Path) -> list[Path]:
    """The files that say what to install: the requirements, and the lock beside them."""
    return [file for file in (path, path.with_name(LOCK)) if file.is_file()]


def _read(file: Path, checkout: Path, read: set[Path]) -> str:
    """The text of requirements, with that of the files of the checkout that they include in the place of those lines.

    Raises :class:`Refused` for a file that is not UTF-8.
    """

    def included(line: re.Match[str]) -> str:
        other = file.parent / line[1].strip("'\"")
        if not other.is_file() or not is_inside(other, checkout) or len(read) == _MOST_INCLUDED:
            return line[0]
        if (real := other.resolve()) in read:
            return ""
        read.add(real)
        return _read(other, checkout, read)

    return _INCLUDE.sub(included, decode(file.read_bytes(), Path(os.path.relpath(file, checkout))))


def _holds_hashes(text: str) -> bool:
    """Whether requirements hold hashes. Raises :class:`Refused` for one that uv would not verify, nor say so."""
    for line in text.replace("\\\n", "").splitlines():
        asked, hashed, _ = line.partition(_HASH)
        try:
            requirement = Requirement(asked)
        except InvalidRequirement:
            continue  # uv says what is wrong with it
        if hashed and not requirement.url and not _ONE_VERSION.fullmatch(str(requirement.specifier)):
            message = f"`{requirement}` has a hash, and no exact version that it could be the hash of"
            fix = f"write `{requirement.name}==<version>`, or make {LOCK} with `uv pip compile --generate-hashes`"
            raise Refused(NOT_BUILT.at(_PLACE, message, fix))
    return _HASH in text


def are_met(requirements: str) -> bool:
    """Whether this process's own environment meets a requirements file, as far as that can be told from names."""
    lines = (_COMMENT.sub("", line).strip() for line in requirements.replace("\\\n", "").splitlines())
    try:
        return all(_is_met(Requirement(line)) for line in lines if line)
    except InvalidRequirement:
        return False


def _is_met(requirement: Requirement, extra: str = "") -> bool:
    if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
        return True
    if requirement.url:
        return False
    try:
        installed = importlib.metadata.distribution(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    if not requirement.specifier.contains(installed.version, prereleases=True):
        return False
    needed = [Requirement(line) for line in installed.requires or [] if "extra" in line] if requirement.extras else []
    return all(
        _is_met(other, wanted)
        for wanted in requirement.extras
        for other in needed
        if other.marker and other.marker.evaluate({"extra": wanted})
    )


def _key(path: Path, text: str, beside: Sequence[str]) -> str:
    """What an environment depends on, as a name: other requirements, another Python, another forge are another one."""
    digest = hashlib.sha256()
    for part in (text, sys.version, platform.platform(), __version__, _LOCAL.search(text) and str(path)):
        digest.update(f"{part}\0".encode())
    for name, value in sorted(_environment().items()):
        digest.update(f"{name}={value}\0".encode() if name.startswith("UV_") else b"")
    for requirement in (*_own("bake"), *beside):
        digest.update(f"{requirement}\0".encode())
    package = Path(__file__).parent
    for file in sorted(package.rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:24]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for the others that want the same environment; the lock ends with the process, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(
    place: Path, requirements: Path, engine: Sequence[str], say: Callable[[str], None], uv: _Uv, *, verify: bool
) -> int:
    """Lock and install everything beside ``place``, then move it there; returns the number of packages.

    ``verify`` has what is installed held against the hashes in the requirements.
    """
    # What uv locks has no hashes, or those of the index; the feedstock's are in its own files. Only where there are
    # any: uv takes a branch that stands there, and the commit that it locked that to, for two.
    hashed = map(str, _asked(requirements)) if verify else ()
    with scratch(place.parent, _BUILDING) as beside:
        building = beside / "environment"
        lock = beside / LOCK
        locked = _lock(requirements, engine, lock, say, uv)
        for arguments in (
            ("venv", "--relocatable", "--python", sys.executable, str(building)),
            ("pip", "sync", "--python", str(building), str(lock), *hashed),
        ):
            done = uv(*arguments)
            if done.returncode:
                fix = "correct the requirement, or run it again if the network was at fault"
                raise Refused(NOT_BUILT.at(_PLACE, _reason(done.stderr), fix))
        site = next(building.glob("lib/python*/site-packages"))
        shutil.copytree(Path(__file__).parent, site / "feedstock_forge", ignore=shutil.ignore_patterns("__pycache__"))
        lock.rename(building / LOCK)
        if place.exists():  # broken, or none would be built
            place.rename(beside / "broken")
        building.rename(place)
    return locked


def _lock(requirements: Path, engine: Sequence[str], lock: Path, say: Callable[[str], None], uv: _Uv) -> int:
    """Write exact versions for the requirements and what the forge needs beside them; returns how many.

    The versions of this environment are preferred, since they are known to work together. Requirements that exclude
    what :mod:`feedstock_forge.bake` needs, as those of older recipes do, leave it out.
    """
    here = "\n".join(
        f"{item.name}=={item.version}" for item in importlib.metadata.distributions() if item.name != PACKAGE
    )
    prefect = [line for line in _own("flows") if Requirement(line).name in ("prefect", "prefect-dask")]
    asked = [str(file) for file in _asked(requirements)]
    reason = ""
    for beside, left_out in ((_own("bake") + prefect, ""), (_own("bake"), "Prefect"), (_own(), "feedstock_forge.bake")):
        if left_out:
            say(f"{FOLDER}/{REQUIREMENTS} excludes what {left_out} needs, so that is left out: {reason}")
        own = lock.with_suffix(".in")
        own.write_text("\n".join((*beside, *engine)), encoding="utf-8")
        lock.write_text(here, encoding="utf-8")
        done = uv(
            "pip", "compile", "--no-header", "--no-annotate", "--python", sys.executable,
            "--output-file", str(lock), *asked, str(own),
        )  # fmt: skip
        if done.returncode == 0:
            return sum(line[:1].isalnum() for line in lock.read_text(encoding="utf-8").splitlines())
        reason = _reason(done.stderr)
        if "No solution found" not in done.stderr:
            break
    unsolvable = "No solution found" in done.stderr
    loosen = f"loosen the versions, or make {LOCK} anew" if len(asked) > 1 else "loosen the versions"
    fix = loosen if unsolvable else "correct the line, or run it again if the network was at fault"
    raise Refused((UNSOLVABLE if unsolvable else NOT_BUILT).at(_PLACE, reason, fix))


def _own(extra: str = "") -> list[str]:
    """What the forge itself needs, with an extra or without, as its installed metadata says."""
    found = []
    for line in importlib.metadata.requires(PACKAGE) or []:
        requirement = Requirement(line)
        if requirement.name == PACKAGE:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            found.append(line.split(";")[0].strip())
    return found


# uv, and what it runs, end with the process that started them, however that ends.
_LEASHED = (
    f"import subprocess, sys; from {leash.__name__} import hold; hold(); "
    "sys.exit(subprocess.run(sys.argv[1:]).returncode)"
)


def _uv(*arguments: str, cwd: Path, allowed: Limits, label: str, began: float) -> subprocess.CompletedProcess[str]:
    """Run uv, which may run what a package builds itself with: no secret is in its environment, and the limits hold.

    ``cwd`` is the folder from which pip would be called: paths in requirements are relative to it. ``began`` is when
    the build did. Raises :class:`Refused` if it meets a limit, or if the disk is full.
    """
    if find_spec("uv") is None:
        raise Refused(NO_UV.at(None, "uv is not installed here", f"install it: `pip install '{PACKAGE}[flows]'`"))
    from uv import find_uv_bin

    longest = allowed.runtime or LONGEST_BUILD
    left = max(1, math.ceil(longest - (time.monotonic() - began)))
    command = [find_uv_bin(), "--no-config", "--quiet", "--no-progress", "--color=never", *arguments]
    use = Use()
    with tempfile.TemporaryFile() as said, _one_at_a_time:
        others = leash.adopt()
        with _on_processors(limits.processors(allowed)):
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _LEASHED, *command],
                cwd=cwd,
                env=_environment() | limits.threads(allowed),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
        try:
            met = limits.watch(process, allowed.model_copy(update={"runtime": left}), label, use, others=others)
        finally:
            leash.end(process, others)
        said.seek(0)
        story = said.read(_LONGEST_STORY).decode(errors="replace")
    if met:
        use.runtime = time.monotonic() - began
        met = limits.over(allowed.model_copy(update={"runtime": longest}), use, label) or met
        fix = "ask for versions that come as wheels, which need no building, or for a label that allows more"
        raise Refused(replace(met, message=f"while its environment was built, {met.message}", place=_PLACE, fix=fix))
    if process.returncode and _NO_SPACE.search(story):
        raise _disk_full(_reason(story))
    return subprocess.CompletedProcess(command, process.returncode, stderr=story)


@contextmanager
def _on_processors(chosen: list[int]) -> Iterator[None]:
    """Keep to some of the processors; who is started meanwhile inherits that."""
    if not chosen:
        yield
        return
    here = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, here)


def _environment() -> dict[str, str]:
    """A bare environment, and what tells uv where packages come from. https://docs.astral.sh/uv/reference/environment"""
    proxies = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    told = {
        key: value
        for key, value in os.environ.items()
        if key.startswith("UV_") or key.upper() in proxies or key == "XDG_CACHE_HOME"
    }
    return recipes.bare(os.environ) | told


def _reason(said: str) -> str:
    """uv's explanation on one line, without its drawing."""
    return " ".join(re.sub(r"[^\x20-\x7e]+", " ", said).replace(" x ", " ").split()) or "uv says nothing"


def _prune(environments: Path) -> None:
    """Remove what nobody has used for :data:`KEPT_DAYS`; from its place at once, since who removes it may be killed."""
    old = time.time() - KEPT_DAYS * 86400
    for used in environments.glob(f"*/{_USED}"):
        with _lock_file(used.parent).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # in use at this moment
            with suppress(OSError):  # another user's, or gone meanwhile
                if used.stat().st_mtime < old:
                    with scratch(environments, _BUILDING) as aside:
                        used.parent.rename(aside / "old")


def _lock_file(place: Path) -> Path:
    # It stays when the environment goes: others may be waiting for it.
    return place.with_name(f"{place.name}.lock")
