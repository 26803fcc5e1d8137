"""The website of a catalog: whole without JavaScript, read by STAC's tools, safe against what entries say."""

from __future__ import annotations

import functools
import html.parser
import http.server
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pystac_client
import pytest
import xarray as xr
import zarr

from conftest import Command
from demo import provider
from feedstock_forge.catalog import dataset, quicklook, site, sources, validate
from feedstock_forge.findings import Refused
from support.catalogs import HOSTILE, build, poison, publish, sea

TIMES = "\N{MULTIPLICATION SIGN}"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Page(html.parser.HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self) -> list[str]:
        return [str(attrs[key]) for _, attrs in self.elements for key in ("href", "src") if key in attrs]


def broken_links(path: Path) -> list[str]:
    local = [link for link in Page(path).links() if "://" not in link and not link.startswith("#")]
    return [link for link in local if link.startswith("/") or not (path.parent / link).is_file()]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The folder ``www`` on this machine's loopback, under a path."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with provider.running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as url:
        yield url


def test_the_website_is_a_static_stac_catalog_for_pystac_and_pystac_client(tmp_path: Path, served: str) -> None:
    publish(tmp_path / "a")
    publish(tmp_path / "a", "lake")
    build(tmp_path / "www/deep/path", tmp_path / "a", title="Ours")
    client = pystac_client.Client.open(f"{served}/deep/path/catalog.json")
    assert client.title == "Ours"
    assert [child.id for child in client.get_children()] == ["lake-v1-sst", "ocean-v1-sst"]
    (item,) = client.get_child("ocean-v1-sst").get_items()  # type: ignore[union-attr]
    assert item.get_root().id == client.id  # type: ignore[union-attr]
    assert item.get_parent().id == "ocean-v1-sst"  # type: ignore[union-attr]
    asset = item.assets["data"]
    with xr.open_dataset(asset.href, **asset.extra_fields["xarray:open_kwargs"]) as opened:
        assert opened.identical(xr.decode_cf(sea()).chunk())
    local = pystac.Catalog.from_file(str(tmp_path / "www/deep/path/catalog.json"))
    walked = [local, *local.get_children(), *local.get_items(recursive=True)]
    assert len(walked) == 5
    assert [validate.problem(thing.to_dict(include_self_link=False)) for thing in walked] == [None] * 5
    thumbnail = item.assets["thumbnail"].get_absolute_href()
    assert thumbnail is not None
    assert thumbnail.startswith(f"{served}/deep/path/ocean/v1/sst/quicklook-")


def test_every_link_of_the_pages_leads_somewhere_from_any_place(tmp_path: Path) -> None:
    publish(tmp_path / "a")
    build(tmp_path / "site", tmp_path / "a")
    for path in (tmp_path / "site").rglob("*.html"):
        assert len(Page(path).links()) >= 5
        assert broken_links(path) == []


def test_a_page_tells_what_the_dataset_is_and_how_to_open_it(tmp_path: Path) -> None:
    publish(tmp_path / "a")
    publish(tmp_path / "a", version="v1.1.0")
    build(tmp_path / "site", tmp_path / "a")
    page = (tmp_path / "site/ocean/v1/sst/index.html").read_text()
    shown = Page(tmp_path / "site/ocean/v1/sst/index.html")
    for words in (
        *("Sea surface temperature", "A small dataset", "v1.0.0", "v1.1.0", "run-v1.0.0", "cccccccccccc", "NOAA"),
        *(
            "2000-01-01 to 2000-01-03",
            "80°S to 80°N",
            "CC-BY-4.0",
            "degree_Celsius",
            "3 \N{MULTIPLICATION SIGN} 9 \N{MULTIPLICATION SIGN} 18",
            "float64",
        ),
    ):
        assert words in shown.text, words
    assert "https://spdx.org/licenses/CC-BY-4.0.html" in shown.links()
    (picture,) = [attrs for tag, attrs in shown.elements if tag == "img"]
    assert picture["alt"] == "Map of sea surface temperature on 2000-01-01, from 0.322 to 15.78 °C."
    code = page.partition("<pre")[2].partition("<code>")[2].partition("</code>")[0]
    found: dict[str, Any] = {}
    exec(code.replace("&#34;", '"').replace("&#39;", "'"), found)  # noqa: S102 - it is there to be run
    assert found["ds"].sst.shape == (3, 9, 18)


def test_what_an_entry_says_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    target = tmp_path / "a"
    publish(target, title=HOSTILE, description=HOSTILE)
    folder = target / "catalog/ocean/v1/sst"
    for path in folder.iterdir():
        document = json.loads(path.read_text())
        poison(document)
        path.write_text(json.dumps(document))
    built = build(tmp_path / "site", target, title=HOSTILE)
    assert [finding.id for finding in built.findings] == []
    for path in (tmp_path / "site").rglob("*.html"):
        page = Page(path)
        scripts = [str(attrs.get("src")) for tag, attrs in page.elements if tag == "script"]
        assert [Path(source).name for source in scripts] == ["search.js"]
        assert [attrs for _, attrs in page.elements if any(key.startswith("on") for key in attrs)] == []
        schemes = ("javascript:", "data:", "file:")
        assert [link for link in page.links() if link.strip().lower().startswith(schemes)] == []
        assert HOSTILE.replace("\u202e", "\\u202e") in page.text
        assert "\u202e" not in path.read_text()
        assert "7006652" not in page.text


@pytest.mark.parametrize(
    ("url", "to"),
    [
        ("https://example.org/a", "https://example.org/a"),
        (" http://example.org", "http://example.org"),
        ("javascript:alert(1)", None),
        ("JaVaScRiPt://example.org/%0aalert(1)", None),
        ("java\nscript:alert(1)", None),
        ("//example.org", None),
        ("https:", None),
        ("http://[", None),
        (7, None),
    ],
)
def test_only_http_and_https_become_links(url: Any, to: str | None) -> None:
    assert site.link(url) == to


class TestBuildingAgain:
    def test_changes_nothing_where_nothing_has_changed(self, tmp_path: Path) -> None:
        publish(tmp_path / "a")
        build(tmp_path / "site", tmp_path / "a")
        before = {name: (tmp_path / "site" / name).stat().st_mtime_ns for name in files(tmp_path / "site")}
        built = build(tmp_path / "site", tmp_path / "a")
        assert (built.written, built.removed, built.drawn) == (0, 0, 0)
        after = {name: (tmp_path / "site" / name).stat().st_mtime_ns for name in files(tmp_path / "site")}
        assert after.keys() == before.keys()
        assert [name for name in after if after[name] != before[name]] == []

    def test_draws_only_what_has_changed_and_removes_what_is_gone(self, tmp_path: Path) -> None:
        publish(tmp_path / "a")
        gone = publish(tmp_path / "a", "lake")
        build(tmp_path / "site", tmp_path / "a")
        publish(tmp_path / "a", version="v1.1.0", times=4)
        for path in gone.iterdir():
            path.unlink()
        gone.rmdir()
        built = build(tmp_path / "site", tmp_path / "a")
        assert built.drawn == 1
        assert not (tmp_path / "site/lake").exists()
        assert len(list((tmp_path / "site").rglob("quicklook-*.png"))) == 1
        build(tmp_path / "anew", tmp_path / "a")
        assert files(tmp_path / "site") == files(tmp_path / "anew")

    def test_finishes_what_a_build_that_was_killed_has_begun(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(tmp_path / "a")
        gone = publish(tmp_path / "a", "lake")
        build(tmp_path / "site", tmp_path / "a")
        gone.rename(tmp_path / "away")
        publish(tmp_path / "a", version="v1.1.0")
        publish(tmp_path / "a", "river")
        build(tmp_path / "whole", tmp_path / "a")
        replace = Path.replace

        class Killed(BaseException):
            pass

        for moment in range(0, 40, 2):
            left = moment

            def dying(self: Path, target: Path) -> Path:
                nonlocal left
                left -= 1
                if left < 0:
                    raise Killed
                return replace(self, target)

            monkeypatch.setattr(Path, "replace", dying)
            try:
                build(tmp_path / "site", tmp_path / "a")
            except Killed:
                assert broken_links(tmp_path / "site/index.html") == []
            else:
                break
        monkeypatch.undo()
        assert moment > 3
        build(tmp_path / "site", tmp_path / "a")
        assert files(tmp_path / "site") == files(tmp_path / "whole")

    def test_never_touches_a_folder_that_holds_something_else(self, tmp_path: Path) -> None:
        publish(tmp_path / "a")
        (tmp_path / "site").mkdir()
        (tmp_path / "site/thesis.tex").write_text("years of work")
        with pytest.raises(Refused) as refused:
            build(tmp_path / "site", tmp_path / "a")
        assert refused.value.findings[0].id == "catalog-output-foreign"
        assert files(tmp_path / "site") == {"thesis.tex": b"years of work"}
        build(tmp_path / "other", tmp_path / "a")
        (tmp_path / "other/notes.txt").write_text("mine")
        (tmp_path / "other" / site.MANIFEST).write_text(json.dumps({"files": ["../site/thesis.tex", "/etc/hostname"]}))
        build(tmp_path / "other")
        assert (tmp_path / "other/notes.txt").exists()
        assert (tmp_path / "site/thesis.tex").exists()

    def test_waits_for_nobody_and_disturbs_nobody(self, tmp_path: Path) -> None:
        publish(tmp_path / "a")
        found = sources.read([sources.Source(str(tmp_path / "a"))]).entries

        def meanwhile(_: str) -> None:
            with pytest.raises(Refused) as refused:
                site.build(found, tmp_path / "site")
            assert refused.value.findings[0].id == "catalog-output-busy"

        assert site.build(found, tmp_path / "site", say=meanwhile).datasets == 1


def test_entries_that_are_broken_are_left_out_and_said(command: Command, tmp_path: Path) -> None:
    for number, damage in enumerate(DAMAGES):
        damage(publish(tmp_path / "a", f"broken-{number}"))
    publish(tmp_path / "a")
    (tmp_path / "a/catalog/..weird/v1/x").mkdir(parents=True)
    done = command("catalog", "build", "a", "-o", "site", "--no-pictures", cwd=tmp_path, code=3)
    assert done.stderr.count("[catalog-entry-broken]") == len(DAMAGES) - 1
    assert done.stderr.count("[catalog-file-too-large]") == 1
    assert done.stdout.startswith(f"{Path('site/index.html')}: 1 dataset;")
    children = json.loads((tmp_path / "site/catalog.json").read_text())["links"][1:]
    assert [link["href"] for link in children] == ["./ocean/v1/sst/collection.json"]
    before = files(tmp_path / "site")
    with pytest.raises(Refused) as refused:
        build(tmp_path / "site", tmp_path / "mistyped")
    assert refused.value.findings[0].id == "catalog-source-missing"
    assert files(tmp_path / "site") == before


def _edit(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        change(document)
        (folder / name).write_text(json.dumps(document))

    return damage


DAMAGES: list[Callable[[Path], Any]] = [
    lambda folder: (folder / "v1.0.0.json").unlink(),
    lambda folder: (folder / "collection.json").write_text("{"),
    lambda folder: (folder / "collection.json").write_text("[" * 100_000),
    lambda folder: (folder / "collection.json").write_bytes(b" " * (9 << 20)),
    _edit("collection.json", lambda it: it.pop("extent")),
    _edit("collection.json", lambda it: it.update(links=[])),
    _edit("collection.json", lambda it: it["links"].append({"rel": "item", "href": "./none.json"})),
    _edit("v1.0.0.json", lambda it: it["assets"].clear()),
    _edit("v1.0.0.json", lambda it: it["properties"].pop("cube:dimensions")),
    _edit("collection.json", lambda it: it.update(stac_extensions=[{}])),
    _edit("collection.json", lambda it: it["feedstock:maintainers"][0].update(github="\ud800")),
    _edit("collection.json", lambda it: it["extent"]["spatial"].update(bbox=[[-(10**400), -80, 180, 80]])),
    _edit("v1.0.0.json", lambda it: it["assets"]["data"].update({"feedstock:bytes": 10**400})),
    _edit("v1.0.0.json", lambda it: it["assets"]["data"].update({"feedstock:bytes": float("nan")})),
]


class TestQuicklooks:
    def test_show_the_first_variable_that_shows_something(self) -> None:
        picture = quicklook.legend(quicklook.draw(xr.decode_cf(sea())))
        assert picture is not None
        assert (picture.variable, picture.unit, picture.when, picture.width) == ("sst", "°C", "2000-01-01", 960)

    def test_are_the_same_bytes_for_the_same_dataset(self) -> None:
        assert quicklook.draw(sea()) == quicklook.draw(sea())

    @pytest.mark.parametrize("chunks", [(1, 300, 300), (1, 4000, 300)])
    def test_of_a_large_grid_are_read_in_strides(self, tmp_path: Path, chunks: tuple[int, int, int]) -> None:
        shape = (2, 4000, 3000)
        group = zarr.open_group(tmp_path / "x.zarr", mode="w")
        group.create_array("v", shape=shape, chunks=chunks, dtype="f4", dimension_names=("t", "lat", "lon"))
        for number, name in ((1, "lat"), (2, "lon")):
            axis = group.create_array(name, shape=shape[number : number + 1], dtype="f8", dimension_names=(name,))
            axis[:] = np.linspace(-80, 80, shape[number])
            axis.attrs["units"] = {"lat": "degrees_north", "lon": "degrees_east"}[name]
        group["v"][0, ::100, ::100] = np.arange(40 * 30).reshape(40, 30)  # type: ignore[index]
        opened = dataset.open_published(str(tmp_path / "x.zarr")).dataset
        part, _ = quicklook._slice(opened, "v", "lat", "lon")
        assert max(part.shape) <= quicklook.MOST_CELLS
        assert quicklook.legend(quicklook.draw(opened)) is not None

    @pytest.mark.parametrize(
        "change", [lambda it: it.drop_vars("lat"), lambda it: it.where(False), lambda it: it[["time"]]]
    )
    def test_are_not_made_up(self, change: Callable[[xr.Dataset], xr.Dataset]) -> None:
        with pytest.raises(Refused) as refused:
            quicklook.draw(change(sea()))
        assert refused.value.findings[0].id == "catalog-no-quicklook"

    def test_a_dataset_that_cannot_be_opened_has_a_page_without_one(self, tmp_path: Path) -> None:
        publish(tmp_path / "a")
        (tmp_path / "a/ocean").rename(tmp_path / "away")
        built = build(tmp_path / "site", tmp_path / "a")
        assert [finding.id for finding in built.findings] == ["catalog-dataset-unreadable"]
        assert "Sea surface temperature" in Page(tmp_path / "site/ocean/v1/sst/index.html").text


def test_a_dataset_at_two_targets_has_two_pages(tmp_path: Path) -> None:
    for name in ("a", "b"):
        publish(tmp_path / name)
    build(tmp_path / "site", tmp_path / "a", tmp_path / "b")
    pages = sorted(str(path.parent.name) for path in (tmp_path / "site/ocean").rglob("index.html"))
    assert len(pages) == 2
    assert pages[0] == "sst"


def test_no_dataset_yet_is_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert build(tmp_path / "site", tmp_path / "a").datasets == 0
    assert "There is no dataset yet" in Page(tmp_path / "site/index.html").text
