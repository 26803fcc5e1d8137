"""The website of a catalog: a page with a list, a page for each dataset, and the same as a static STAC catalog.

Whatever an entry says is a stranger's word: it is escaped wherever it is shown, and only ``http`` and ``https`` become
links. Every file is replaced at once, in an order in which nothing is linked before it is there, and what is gone is
removed last: a build that is killed leaves a website that works, and the next one finishes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jinja2
import pystac
from markupsafe import Markup

from ..bake.locks import lock
from ..findings import Finding, Place, Refused, rule
from ..quantities import format_size
from . import opening, quicklook
from .dataset import open_published
from .entry import COLLECTION, run_rows
from .sources import Entry
from .validate import problem

OUTPUT = rule("catalog-output-foreign", "A build removes what it no longer needs, so its folder must be its own.")
BUSY = rule("catalog-output-busy", "Two builds at once would each remove the other's pages.")

MANIFEST = ".feedstock-catalog.json"
"""Names the files that builds have written; nothing else is ever removed."""

_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_TIMES = " \N{MULTIPLICATION SIGN} "

QUICKLOOK_VERSION = 1
"""Raised when pictures are drawn in another way, so that all are drawn anew."""


@dataclass(slots=True)
class Built:
    """What a build has done, in numbers of files and pages."""

    datasets: int = 0
    written: int = 0
    unchanged: int = 0
    removed: int = 0
    drawn: int = 0
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page:
    """What the page of a dataset shows."""

    folder: str
    """The page's folder below the website, with ``/``."""
    entry: Entry
    picture: str | None
    legend: quicklook.Legend | None

    @property
    def title(self) -> str:
        """The dataset's title, or its id where it has none."""
        return str(self.entry.collection.get("title") or self.entry.collection["id"])

    @property
    def up(self) -> str:
        """The way from the page to the website's root."""
        return "../" * (self.folder.count("/") + 1)


def build(
    entries: list[Entry],
    output: Path,
    *,
    title: str = "Datasets",
    pictures: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Built:
    """Make or renew the website in ``output``; only what differs is written.

    Raises :class:`Refused` if the folder holds something else, or another build is at it.
    """
    with _claimed(output) as before:
        built = Built(datasets=len(entries))
        files_now: dict[str, bytes] = dict(_static())
        pages = []
        for folder, entry in _folders(entries):
            say(f"{folder}")
            page = Page(folder, entry, *(_picture(folder, entry, output, before, built) if pictures else (None, None)))
            pages.append(page)
            files_now |= _page_files(page, title, output)
        pages.sort(key=lambda page: (page.title.lower(), page.folder))
        files_now |= _root_files(pages, title)
        _write_manifest(output, before | set(files_now))
        for name, data in files_now.items():
            _write(output / name, data, built)
        for name in sorted(before - set(files_now)):
            _remove(output, name, built)
        for leftover in output.rglob(".*.partial"):
            leftover.unlink()
        _write_manifest(output, set(files_now))
        return built


@contextlib.contextmanager
def _claimed(output: Path) -> Iterator[set[str]]:
    """Claim the output folder; yields the files that the builds before wrote."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        held = lock(output)
    except OSError as error:
        fix = "name a folder that can be made and written"
        raise Refused(OUTPUT.at(Place(str(output)), f"it is no folder to write to: {error.strerror}", fix)) from None
    if held is None:
        raise Refused(BUSY.at(Place(str(output)), "another build is writing it", "wait until it ends, then try again"))
    try:
        yield _manifest(output)
    finally:
        os.close(held)


def _manifest(output: Path) -> set[str]:
    try:
        text = (output / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError:
        if any(output.iterdir()):
            fix = "name an empty folder, or one that `feedstock catalog build` has made"
            raise Refused(OUTPUT.at(Place(str(output)), "it holds what no build has written", fix)) from None
        return set()
    try:
        names = json.loads(text)["files"]
        return {
            name for name in names if isinstance(name, str) and not name.startswith("/") and ".." not in name.split("/")
        }
    except (ValueError, KeyError, TypeError):
        fix = "remove the folder, and build it anew"
        raise Refused(OUTPUT.at(Place(str(output / MANIFEST)), "it cannot be understood", fix)) from None


def _write_manifest(output: Path, names: Iterable[str]) -> None:
    text = json.dumps({"made by": "feedstock catalog build", "files": sorted(names)}, indent=1)
    _write(output / MANIFEST, text.encode(), Built())


def _write(path: Path, data: bytes, built: Built) -> None:
    if path.is_file() and path.read_bytes() == data:
        built.unchanged += 1
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    partial.write_bytes(data)
    partial.replace(path)
    built.written += 1


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _remove(output: Path, name: str, built: Built) -> None:
    path = output / name
    if path.is_file():
        path.unlink()
        built.removed += 1
    for parent in path.relative_to(output).parents:
        if parent != Path():
            with contextlib.suppress(OSError):
                (output / parent).rmdir()


def _folders(entries: list[Entry]) -> Iterator[tuple[str, Entry]]:
    """A folder for each entry; one dataset at two targets has two, the second with a mark of its target."""
    taken: set[str] = set()
    for entry in entries:
        folder = entry.address.folder
        if folder in taken:
            folder += f"-{hashlib.sha256(entry.source.url.encode()).hexdigest()[:8]}"
        if folder not in taken:
            taken.add(folder)
            yield folder, entry


def _static() -> Iterator[tuple[str, bytes]]:
    for name in ("style.css", "search.js"):
        yield name, files(__package__).joinpath("pages", name).read_bytes()


def _picture(
    folder: str, entry: Entry, output: Path, known: set[str], built: Built
) -> tuple[str | None, quicklook.Legend | None]:
    """A dataset's picture: the one that is there, if it shows this state of the dataset, else a new one."""
    state = json.dumps([QUICKLOOK_VERSION, entry.newest], sort_keys=True)
    name = f"quicklook-{hashlib.sha256(state.encode()).hexdigest()[:12]}.png"
    path = output / folder / name
    if path.is_file() and (legend := quicklook.legend(path.read_bytes())):
        return name, legend
    try:
        png = quicklook.draw(open_published(entry.address.url, entry.tag).dataset)
    except Refused as refused:
        found = refused.findings
        built.findings += [one.rule.at(Place(entry.address.url), one.message, one.fix) for one in found]
        return None, None
    except Exception as error:
        # The dataset is a stranger's, and a picture is not worth a website.
        message = f"the picture could not be drawn: {type(error).__name__}: {error}"
        built.findings.append(quicklook.NO_PICTURE.at(Place(entry.address.url), message, "look at the dataset"))
        return None, None
    # Written as soon as it is drawn, so that a build that is killed need not draw it again.
    known.add(f"{folder}/{name}")
    _write_manifest(output, known)
    _write(path, png, Built())
    built.drawn += 1
    return name, quicklook.legend(png)


def _code(entry: Entry) -> str:
    kwargs = entry.data.get("xarray:open_kwargs")
    return opening.code(
        entry.address.url,
        tag=entry.tag,
        consolidated=isinstance(kwargs, dict) and kwargs.get("consolidated") is True,
        public_url=_public_url(entry),
        region=entry.source.region,
        refers_to=[one for one in _list(entry.data.get("feedstock:refers_to")) if isinstance(one, str)],
    )


def _public_url(entry: Entry) -> str | None:
    base = entry.source.public_url
    return f"{base.rstrip('/')}/{entry.address.folder}.{entry.address.store}" if base else None


def _page_files(page: Page, title: str, output: Path) -> dict[str, bytes]:
    """The files of one dataset: items, collection, picture and page, in the order in which they are written."""
    found: dict[str, bytes] = {}
    if page.picture:
        found[f"{page.folder}/{page.picture}"] = (output / page.folder / page.picture).read_bytes()
    entry = page.entry
    root = {"rel": "root", "href": f"{page.up}catalog.json", "type": "application/json"}
    own = {"rel": "collection", "href": f"./{COLLECTION}", "type": "application/json"}
    for name, item in entry.items.items():
        document = {**item, "links": [root, {**own, "rel": "parent"}, own], "assets": _assets(page, item["assets"])}
        found[f"{page.folder}/{name}"] = _valid(document)
    kept = [link for link in entry.collection["links"] if link["rel"] in ("license", "about")]
    links = [
        root,
        {**root, "rel": "parent"},
        *({"rel": "item", "href": f"./{name}", "type": "application/geo+json"} for name in entry.items),
        *kept,
        {"rel": "alternate", "href": "./index.html", "type": "text/html"},
    ]
    assets = _assets(page, entry.collection.get("assets", {}))
    found[f"{page.folder}/{COLLECTION}"] = _valid({**entry.collection, "links": links, "assets": assets})
    found[f"{page.folder}/index.html"] = _render(
        "dataset.html", page=page, title=title, code=_code(entry), **_facts(page)
    )
    return found


def _assets(page: Page, assets: dict[str, Any]) -> dict[str, Any]:
    """The assets as the website gives them: the dataset where everybody reads it, and the picture."""
    found = dict(assets)
    if "data" in found:
        found["data"] = {**found["data"], "href": _public_url(page.entry) or page.entry.address.url}
    if page.picture:
        found["thumbnail"] = {"href": f"./{page.picture}", "type": "image/png", "roles": ["thumbnail"]}
    return found


def _root_files(pages: list[Page], title: str) -> dict[str, bytes]:
    catalog = pystac.Catalog("catalog", "Analysis-ready datasets, made by feedstocks.", title)
    document = catalog.to_dict(include_self_link=False)
    document["links"] = [{"rel": "root", "href": "./catalog.json", "type": "application/json"}]
    document["links"] += [
        {"rel": "child", "href": f"./{page.folder}/{COLLECTION}", "type": "application/json", "title": page.title}
        for page in pages
    ]
    rows = [(page, _facts(page)) for page in pages]
    return {"catalog.json": _valid(document), "index.html": _render("index.html", rows=rows, title=title)}


def _valid(document: dict[str, Any]) -> bytes:
    wrong = problem(document)
    if wrong:
        raise ValueError(f"the website's own {document.get('id')} is not valid STAC: {wrong}")
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _facts(page: Page) -> dict[str, Any]:
    """What a page and its line in the list say, each in words; what is not there or not of its type is left out."""
    entry = page.entry
    collection, item, data = entry.collection, entry.newest, entry.data
    properties = item["properties"]
    interval = collection["extent"]["temporal"]["interval"][0]
    unknown = collection.get("feedstock:extent_unknown") is True
    return {
        "description": str(collection["description"]),
        "version": _text(properties.get("feedstock:version")),
        "created": _text(properties.get("created"))[:10],
        "calendar": _text(properties.get("feedstock:calendar")),
        "period": _period(interval),
        "area": "" if unknown else _area(collection["extent"]["spatial"]["bbox"][0]),
        "size": _size(data.get("feedstock:bytes")),
        "stored": _size(data.get("feedstock:bytes_stored")),
        "store": {"icechunk": "Icechunk", "zarr": "Zarr"}[entry.address.store],
        "tag": entry.tag,
        "snapshot": _text(data.get("icechunk:snapshot_id")),
        "url": _public_url(entry) or entry.address.url,
        "licence": _text(collection.get("feedstock:license")) or collection["license"],
        "licence_link": next((link["href"] for link in collection["links"] if link["rel"] == "license"), None),
        "providers": [
            {
                "name": one["name"],
                "url": one.get("url"),
                "roles": one.get("roles", []),
                "description": one.get("description", ""),
            }
            for one in collection.get("providers", [])
        ],
        "maintainers": [
            {key: _text(person.get(key)) for key in ("name", "github", "orcid")}
            for person in _list(collection.get("feedstock:maintainers"))
            if isinstance(person, dict)
        ],
        "repository": _text(collection.get("feedstock:repository")),
        "commit": _text(properties.get("feedstock:commit")),
        "run": _text(properties.get("feedstock:run")),
        "inputs": _inputs(properties.get("feedstock:inputs")),
        "runs": [_run(run) for run in reversed(run_rows(collection))],
        "dimensions": [_dimension(name, value) for name, value in _dict(properties.get("cube:dimensions")).items()],
        "variables": [_variable(name, value) for name, value in _dict(properties.get("cube:variables")).items()],
        "items": list(reversed(entry.items)),
    }


def _run(run: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": _text(run.get("version")),
        "commit": _text(run.get("commit")),
        "run": _text(run.get("run")),
        "when": _text(run.get("when")),
        "inputs": _inputs(run.get("inputs")),
        "tag": _text(run.get("icechunk_tag")),
    }


def _inputs(inputs: Any) -> dict[str, str] | None:
    if not isinstance(inputs, dict) or not isinstance(count := inputs.get("count"), int):
        return None
    return {"count": f"{count:,}", "sha256": _text(inputs.get("sha256"))}


def _dimension(name: str, value: Any) -> dict[str, str]:
    value = _dict(value)
    extent, step = value.get("extent"), value.get("step")
    span = ""
    if value.get("type") == "temporal" and isinstance(extent, list):
        span = _period(extent)
    elif isinstance(extent, list) and len(extent) == 2:
        span = f"{_number(extent[0])} to {_number(extent[1])}"
    elif values := _list(value.get("values")):
        span = ", ".join(map(str, values[:6])) + (" …" if len(values) > 6 else "")
    return {
        "name": name,
        "span": span,
        "step": _number(step) if isinstance(step, int | float) else "",
        "unit": _text(value.get("unit")),
        "description": _text(value.get("description")),
    }


def _variable(name: str, value: Any) -> dict[str, Any]:
    value = _dict(value)
    shape, chunks = (_numbers(value.get(key)) for key in ("shape", "chunks"))
    dims = [str(dim) for dim in _list(value.get("dimensions"))]
    return {
        "name": name,
        "description": _text(value.get("description")) or _text(value.get("standard_name")).replace("_", " "),
        "unit": _text(value.get("unit")),
        "data": value.get("type") == "data",
        "type": _text(value.get("data_type")),
        "dims": _TIMES.join(dims),
        "shape": _TIMES.join(f"{length:,}" for length in shape),
        "chunks": _TIMES.join(f"{length:,}" for length in chunks),
        "size": _size(value.get("bytes")),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _numbers(value: Any) -> list[int]:
    return [number for number in _list(value) if isinstance(number, int)]


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and math.isfinite(value) else "…"


def _size(value: Any) -> str:
    return format_size(value) if isinstance(value, int | float) and value >= 0 else ""


def _period(interval: list[Any]) -> str:
    start, end = (_text(one)[:10] for one in interval)
    if not start and not end:
        return ""
    return start if start == end else f"{start or '…'} to {end or '…'}"


def _area(bbox: list[float]) -> str:
    west, south, east, north = bbox if len(bbox) == 4 else (bbox[0], bbox[1], bbox[3], bbox[4])
    latitudes = f"{_degrees(south, 'N', 'S')} to {_degrees(north, 'N', 'S')}"
    if east - west >= 360:
        return f"all longitudes, {latitudes}"
    return f"{_degrees(west, 'E', 'W')} to {_degrees(east, 'E', 'W')}, {latitudes}"


def _degrees(value: float, positive: str, negative: str) -> str:
    return f"{abs(value):g}°{positive if value > 0 else negative if value < 0 else ''}"


def link(url: Any) -> str | None:
    """A URL that a page may link to, or ``None``: no other scheme than http and https is a stranger's to choose."""
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return None
    return url.strip() if parts.scheme in ("http", "https") and parts.netloc else None


def _in_order(value: Any) -> Any:
    """A value for a page: the characters that would turn round what stands beside it are shown, and not obeyed.

    https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _DIRECTIONS.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), value)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_in_order,
    )
    environment.filters["link"] = link
    environment.globals["gradient"] = ", ".join(quicklook.gradient())
    return environment


def _render(template: str, **values: Any) -> bytes:
    return _environment().get_template(template).render(**values).encode("utf-8", "replace")
