"""YAML as people write it: what it means, where it stands, and what is refused."""

from pathlib import Path

import pytest

from feedstock_forge.findings import Place, Refused
from feedstock_forge.yaml_file import is_inside, parse_yaml, read_text, read_yaml

HERE = Path("meta.yaml")


def data(text):
    return parse_yaml(text, HERE).data


def refused(text):
    with pytest.raises(Refused) as caught:
        parse_yaml(text, HERE)
    (finding,) = caught.value.findings
    return finding.id, (finding.place.line, finding.place.column)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("on", "on"), ("yes", "yes"), ("No", "No"), ("1_000", "1_000"), ("12:30", "12:30"),
        ("2027-11-01", "2027-11-01"),
        ("0777", 777), ("0o17", 15), ("0x1F", 31), ("1e3", 1000.0), (".5", 0.5), ("true", True), ("False", False),
        ("~", None), ("", None), ("'1'", "1"), ('"true"', "true"), ("=", "="), ("!!str 1", "1"),
    ],
)  # fmt: skip
def test_a_value_means_what_yaml_1_2_says(written, meant):
    assert data(f"key: {written}") == {"key": meant}


def test_keys_are_words_whatever_they_look_like():
    assert data("on: 1\n1.0: 2\nnull: 3\n") == {"on": 1, "1.0": 2, "null": 3}


def test_the_text_of_a_number_is_kept_since_1_10_is_a_version():
    document = parse_yaml("version: 1.10", HERE)
    assert document.data == {"version": 1.1}
    assert document.raw[("version",)] == "1.10"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_value_and_key_has_its_place_counted_in_characters(newline):
    document = parse_yaml(newline.join(["título: é", "recipes:", "  - {id: ä, object: 'x:y'}", ""]), HERE)
    assert document.place(("título",)) == Place("meta.yaml", 1, 9)
    assert document.place(("recipes", 0, "object")) == Place("meta.yaml", 3, 21)
    assert document.place(("recipes", 0, "object"), key=True) == Place("meta.yaml", 3, 13)
    span = document.values[("recipes", 0, "object")]
    assert document.text[span.start : span.end] == "'x:y'"


def test_what_is_not_there_is_placed_at_its_nearest_parent():
    document = parse_yaml("provenance:\n  license: x\n", HERE)
    assert document.place(("provenance", "providers", 0)) == Place("meta.yaml", 2, 3)
    assert document.place(("nothing",)) == Place("meta.yaml", 1, 1)


def test_what_was_moved_is_placed_where_it_really_stands():
    document = parse_yaml("bakery:\n  id: ldeo\n", HERE)
    document.moved[("bakeries", 0)] = ("bakery",)
    assert document.place(("bakeries", 0, "id")) == Place("meta.yaml", 2, 7)


def test_an_alias_stands_for_its_anchor():
    assert data("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "finding", "place"),
    [
        ("a: 1\nb: 2\na: 3\n", "yaml-duplicate-key", (3, 1)),
        ("a:\n\tb: 1\n", "yaml-broken", (2, 1)),
        ("a: [1, 2\nb: 3\n", "yaml-broken", (2, 2)),
        ("a: *x\n", "yaml-broken", (1, 4)),
        ("a: 1\n---\nb: 2\n", "yaml-broken", (2, 1)),
        ("? [a, b]\n: 1\n", "yaml-broken", (1, 3)),
        ("a: !!binary aGk=\n", "yaml-broken", (1, 4)),
        ("a: !custom {b: 1}\n", "yaml-broken", (1, 4)),
        ("%TAG ! tag:x,2000:\n---\na: 1\n", "yaml-broken", (1, 1)),
        ("a: " + "[" * 50 + "]" * 50, "yaml-too-deep", (1, 44)),
        ("a:\n" + "- x\n" * 30_000, "yaml-too-big", (19_999, 3)),
    ],
)
def test_what_cannot_be_read_is_refused_at_its_place(text, finding, place):
    assert refused(text) == (finding, place)


def test_a_tab_is_named_as_the_cause():
    with pytest.raises(Refused, match="tab"):
        parse_yaml("a:\n\tb: 1\n", HERE)


@pytest.mark.parametrize(
    ("content", "said"), [("", "empty"), ("- 1\n", "a list"), ("words\n", "a text"), ("3\n", "a number")]
)
def test_a_file_without_keys_is_refused(tmp_path, content, said):
    (tmp_path / "meta.yaml").write_text(content)
    with pytest.raises(Refused, match=said) as caught:
        read_yaml(tmp_path / "meta.yaml")
    assert caught.value.findings[0].id == "yaml-not-a-mapping"


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path):
    (tmp_path / "meta.yaml").write_bytes(b"\xef\xbb\xbftitle: x\n")
    document = read_yaml(tmp_path / "meta.yaml")
    assert document.data == {"title": "x"}
    assert document.place(("title",), key=True).column == 1


def test_bytes_that_are_not_utf_8_are_refused_at_the_first_of_them(tmp_path):
    (tmp_path / "meta.yaml").write_bytes("title: é\nname: é ".encode() + b"\xe9\n")
    with pytest.raises(Refused) as caught:
        read_text(tmp_path / "meta.yaml")
    place = caught.value.findings[0].place
    assert (place.line, place.column) == (2, 9)


def test_a_link_may_point_inside_its_folder_and_not_out_of_it(tmp_path):
    inside = tmp_path / "feedstock"
    inside.mkdir()
    (inside / "a.yaml").write_text("a: 1\n")
    (tmp_path / "b.yaml").write_text("b: 1\n")
    (inside / "in.yaml").symlink_to("a.yaml")
    (inside / "out.yaml").symlink_to("../b.yaml")
    assert read_yaml(inside / "in.yaml", within=inside).data == {"a": 1}
    with pytest.raises(Refused) as caught:
        read_yaml(inside / "out.yaml", within=inside)
    assert caught.value.findings[0].id == "file-outside"


def test_a_folder_of_a_similar_name_is_not_inside(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "ab").mkdir()
    assert not is_inside(tmp_path / "ab", tmp_path / "a")
    assert is_inside(tmp_path / "a", Path("/"))
