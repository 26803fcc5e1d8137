"""The catalog's website in a real browser: phone and desk, light and dark, by keyboard, with and without scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from support import browser
from support.catalogs import HOSTILE, build, poison, publish

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1440, "height": 900}

# Every text with what is behind it: the least contrast of the page, as https://www.w3.org/TR/WCAG22/#contrast-minimum.
CONTRAST = """() => {
  const rgba = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = rgba(colour).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((rgba(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  let least = 21;
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
    const [one, other] = [light(getComputedStyle(element).color), light(behind(element))];
    least = Math.min(least, (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05));
  }
  return least;
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.launch() as running:
        yield running


@pytest.fixture(scope="module")
def website(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three datasets: an ordinary one, one with words of unusual length, one by a hostile hand."""
    folder = tmp_path_factory.mktemp("catalog")
    publish(folder / "a", title="Ocean temperature")
    publish(folder / "a", "long", title="Einhundertfünfundzwanzigtausend" * 5, description="x" * 400)
    for path in publish(folder / "a", "hostile", title=HOSTILE, description=HOSTILE).iterdir():
        document = json.loads(path.read_text())
        poison(document)
        path.write_text(json.dumps(document))
    build(folder / "site", folder / "a")
    return folder / "site"


PAGES = ("index.html", "ocean/v1/sst/index.html", "long/v1/sst/index.html", "hostile/v1/sst/index.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_pages_fit_the_screen_can_be_read_and_do_nothing_else(
    chromium: Browser, website: Path, size: dict[str, int], scheme: str
) -> None:
    with chromium.new_context(viewport=size, color_scheme=scheme) as context:  # type: ignore[arg-type]
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: request.url.startswith(website.as_uri()) or wrong.append(request.url))
        for name in PAGES:
            page.goto(f"{website.as_uri()}/{name}")
            assert page.evaluate("document.documentElement.scrollWidth") == size["width"], name
            assert page.evaluate(CONTRAST) >= 4.5, name
            expect(page.get_by_role("heading", level=1)).to_have_count(1)
            assert page.locator("figure img").evaluate_all("(all) => all.every((one) => one.naturalWidth > 0)"), name
        assert wrong == []


def test_without_scripts_the_list_and_the_pages_are_whole(chromium: Browser, website: Path) -> None:
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{website.as_uri()}/index.html")
        expect(page.locator(".datasets > li")).to_have_count(3)
        expect(page.get_by_role("search")).to_be_hidden()
        page.get_by_role("link", name="Ocean temperature").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Ocean temperature")
        expect(page.get_by_label("Python code that opens the dataset")).to_contain_text("xr.open_zarr(")
        expect(page.get_by_role("button")).to_have_count(0)
        page.get_by_role("link", name="Datasets").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Datasets")


@pytest.fixture
def listed(chromium: Browser, website: Path) -> Iterator[Page]:
    with chromium.new_context(viewport=DESK) as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(f"{website.as_uri()}/index.html")
        yield page


def test_a_dataset_is_found_and_opened_by_keyboard_alone(listed: Page) -> None:
    shown = listed.locator(".datasets > li:visible")
    listed.keyboard.press("/")
    expect(listed.get_by_label("Search")).to_be_focused()
    listed.keyboard.type("OCÉAN sea_surface")
    expect(shown).to_have_count(1)
    expect(listed.get_by_role("status")).to_have_text("1 of 3")
    listed.keyboard.press("ArrowDown")
    expect(listed.get_by_role("link", name="Ocean temperature")).to_be_focused()
    listed.keyboard.press("ArrowUp")
    expect(listed.get_by_label("Search")).to_be_focused()
    listed.keyboard.press("Enter")
    listed.keyboard.press("Enter")
    expect(listed.get_by_role("heading", level=1)).to_have_text("Ocean temperature")
    listed.go_back()
    expect(listed.get_by_label("Search")).to_have_value("OCÉAN sea_surface")
    expect(shown).to_have_count(1)


def test_a_search_that_finds_nothing_says_so_and_is_undone(listed: Page) -> None:
    shown = listed.locator(".datasets > li:visible")
    listed.get_by_label("Search").fill("no such words <b>")
    expect(shown).to_have_count(0)
    expect(listed.get_by_text("No dataset has these words.")).to_be_visible()
    listed.keyboard.press("Escape")
    expect(shown).to_have_count(3)
    listed.get_by_label("Search").fill("zzz")
    listed.get_by_role("button", name="Show all").click()
    expect(shown).to_have_count(3)


def test_the_keyboard_reaches_everything_in_the_order_of_the_page(listed: Page, website: Path) -> None:
    listed.keyboard.press("Tab")
    expect(listed.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(listed.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    listed.goto(f"{website.as_uri()}/ocean/v1/sst/index.html")
    names = []
    for _ in range(8):
        listed.keyboard.press("Tab")
        names.append(listed.evaluate("document.activeElement.textContent.trim().split('\\n')[0]"))
    assert names[:2] == ["Skip to the content", "Datasets"]
    assert any(name.startswith("import ") for name in names)
    assert "CC-BY-4.0" in names


def test_code_is_copied_as_it_stands(chromium: Browser, website: Path) -> None:
    with chromium.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        page.goto(f"{website.as_uri()}/ocean/v1/sst/index.html")
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.locator("pre code").text_content()
