"""Whatever a file holds, lint answers with findings: within a second, within 200 MiB, and never with a traceback."""

import json
import os
import shutil
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedstock_forge import bakery, lint
from feedstock_forge.lint import formats
from feedstock_forge.lint.rewrite import rewrite

FORGE = Path(__file__).parent / "data" / "forge"
META = (FORGE / "noaa-oisst-feedstock" / "feedstock" / "meta.yaml").read_text()
OLD = (Path(__file__).parent / "data" / "meta" / "aws-resources.yaml").read_text()
MIB = 1 << 20
MODULE = (128 << 10) - 1  # just below the limit of a module


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """With compiled modules kept, as where the program is installed."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("bytecode"))}


@pytest.fixture
def feedstock(tmp_path):
    shutil.copytree(FORGE, tmp_path / "forge")
    return tmp_path / "forge" / "noaa-oisst-feedstock"


def run(feedstock, environment):
    """`feedstock lint` in a process of its own; returns its findings' ids. Fails if it takes too long or too much."""
    program = (
        "import pathlib, re, sys, time\n"
        "from feedstock_forge.cli import main\n"
        "start = time.process_time()\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n"
        "    # Not ru_maxrss, which a child takes over from the process that forked it.\n"
        "    peak = re.search(r'VmHWM:\\s+(\\d+) kB', pathlib.Path('/proc/self/status').read_text())[1]\n"
        "    print(time.process_time() - start, peak, file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", program, "lint", str(feedstock), "--format", "json"]
    done = subprocess.run(
        [*command, "--bakeries", str(feedstock.parent / "bakeries")],
        capture_output=True, text=True, timeout=30, check=False, env=environment,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "internal-error" not in done.stderr
    seconds, kibibytes = done.stderr.split()[-2:]
    assert float(seconds) < 1.5, "the processor's time, imports included, on a slow day"
    assert int(kibibytes) < 200 * 1024
    return {finding["id"] for finding in json.loads(done.stdout)["findings"]}


HARD_META = {
    "50 MB": (b"a: " + b"x" * 50_000_000, "file-too-large"),
    "a megabyte of list": (b"a:\n" + b"- a\n" * (MIB // 4 - 10), "yaml-too-big"),
    "a megabyte of keys": (b"".join(b"k%d: 1\n" % i for i in range(90_000)), "yaml-too-big"),
    "brackets": (b"[" * (MIB - 1), "yaml-broken"),
    "dashes": (b"- " * (MIB // 2 - 1), "yaml-too-deep"),
    "an indented staircase": (b"".join(b" " * i + b"a:\n" for i in range(1400)), "yaml-too-deep"),
    "a billion laughs": (
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(9)),
        "yaml-too-big",
    ),
    "an alias to itself": (b"a: &a [*a]\n", "yaml-broken"),
    "sixty thousand tag directives": (b"".join(b"%%TAG !a%d! t:x\n" % i for i in range(55_000)), "yaml-broken"),
    "an unclosed quote": (b'a: "' + b"x\n" * (MIB // 2 - 10), "yaml-broken"),
    "thousands of wrong recipes": (
        META.replace("recipes:", "recipes:\n" + "  - 1\n" * 9000).encode(),
        "value-wrong-type",
    ),
    "thousands of unknown keys": (META.encode() + b"".join(b"k%d: 1\n" % i for i in range(9000)), "key-unknown"),
    "a megabyte of licence": (META.replace("CC0-1.0", '"' + "( " * 400_000 + 'OR"').encode(), "licence-unknown"),
    "a megabyte of address": (META.replace("//www.ncei", "//" + "x" * 900_000 + " ").encode(), "url-invalid"),
    "a megabyte of id": (META.replace("id: noaa-oisst", "id: " + "a-" * 400_000).encode(), "feedstock-id-invalid"),
    "a tab": (b"title:\n\tOISST\n", "yaml-broken"),
    "Latin-1": (b"title: caf\xe9\n", "file-encoding"),
    "UTF-16": ("title: OISST\n".encode("utf-16"), "file-encoding"),
    "a byte order mark": (b"\xef\xbb\xbf" + META.encode(), "text-byte-order-mark"),
    "a null": (b"title: \0", "yaml-broken"),
    "a surrogate": (b"title: \xed\xa0\x80", "file-encoding"),
    "infinite cores": (META.replace("label: dev", "label: dev\n    resources: {cpu: .inf}").encode(), "value-invalid"),
    "a tag of Python": (b"title: !!python/object/apply:os.getcwd []\n", "yaml-broken"),
    "a merge key": (META.encode() + b"<<: {title: x}\n", "key-unknown"),
    "nothing": (b"", "yaml-not-a-mapping"),
    "a list": (b"- title: OISST\n", "yaml-not-a-mapping"),
    "two documents": (META.encode() + b"---\ntitle: x\n", "yaml-broken"),
}


@pytest.mark.parametrize("name", HARD_META)
def test_a_hard_meta_yaml_gets_its_finding(name, feedstock, environment):
    content, expected = HARD_META[name]
    (feedstock / "feedstock" / "meta.yaml").write_bytes(content)
    assert expected in run(feedstock, environment)


HARD_CODE = {
    "statements": b"x=1\n" * (MODULE // 4),
    "a dictionary": b"x={" + b"1:1," * (MODULE // 4 - 3) + b"}",
    "brackets": b"(" * MODULE,
    "attributes": b"a" + b".a" * (MODULE // 2),
    "a chain of comparisons": b"1" + b"<1" * (MODULE // 2 - 1),
    "decorators": b"@a\n" * (MODULE // 3),
    "nested blocks": b"".join(b" " * i + b"if 1:\n" for i in range(500)),
    "a null": b"x = 1\0",
    "a number": b"9" * MODULE,
}


@pytest.mark.parametrize("name", HARD_CODE)
def test_hard_code_gets_a_finding(name, feedstock, environment):
    (feedstock / "feedstock" / "recipe.py").write_bytes(HARD_CODE[name])
    assert {"recipe-syntax", "recipe-object-missing"} & run(feedstock, environment)


def test_a_module_beyond_the_limit_is_not_read(feedstock, environment):
    (feedstock / "feedstock" / "recipe.py").write_bytes(b"#" * (MODULE + 2))
    assert "file-too-large" in run(feedstock, environment)


HARD_REQUIREMENTS = [
    b"a" * MIB,
    b"a>=1," * (MIB // 5),
    b"((" * (MIB // 2),
    b"a; " + b"(" * (MIB - 3),
    b"xarray\n" * (MIB // 8),
]


@pytest.mark.parametrize("content", HARD_REQUIREMENTS, ids=lambda content: content[:5].decode())
def test_hard_requirements_get_a_finding(content, feedstock, environment):
    (feedstock / "feedstock" / "requirements.txt").write_bytes(content)
    assert {"requirement-invalid", "requirement-unbounded", "file-too-large"} & run(feedstock, environment)


def folder_instead(path):
    path.unlink()
    path.mkdir()


def pipe_instead(path):
    path.unlink()
    os.mkfifo(path)


def device_instead(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def link_out(path):
    path.unlink()
    path.symlink_to("/etc/hostname")


def link_to_nowhere(path):
    path.unlink()
    path.symlink_to("nowhere")


def link_to_itself(path):
    path.unlink()
    path.symlink_to(path.name)


INSTEAD = [folder_instead, pipe_instead, device_instead, link_out, link_to_nowhere, link_to_itself]
SAYS_SO = {
    *["file-not-regular", "file-outside", "file-missing", "file-unreadable"],
    *["recipe-module-missing", "recipe-outside", "workflow-missing"],
}


@pytest.mark.parametrize("change", INSTEAD)
@pytest.mark.parametrize(
    "name",
    [
        "feedstock/meta.yaml",
        "feedstock/recipe.py",
        "feedstock/requirements.txt",
        "README.md",
        ".github/workflows/check.yml",
    ],
)
def test_what_is_no_file_is_neither_read_nor_waited_for(name, change, feedstock):
    change(feedstock / name)
    found = findings(feedstock)
    # A folder called README.md is odd, and no file that anybody reads.
    assert SAYS_SO & found or (name == "README.md" and change is folder_instead)


def test_a_folder_that_leads_out_of_the_repository_is_not_entered(feedstock):
    shutil.rmtree(feedstock / "feedstock")
    (feedstock / "feedstock").symlink_to("/etc")
    assert findings(feedstock) >= {"file-outside"}


def test_a_bakery_and_a_grant_are_read_as_carefully(feedstock):
    folder = feedstock.parent / "bakeries" / "ldeo.aws.us-west-2"
    (folder / "bakery.yaml").write_bytes(HARD_META["a billion laughs"][0])
    (folder / "grants" / "noaa-oisst.yaml").write_bytes(b"\xff\xfe")
    assert findings(feedstock.parent) >= {"yaml-too-big", "file-encoding"}


def findings(folder):
    return {finding.id for finding in report_of(folder).findings}


def report_of(folder):
    database = folder.parent / "bakeries"
    return lint.lint([folder], lint.Options(bakeries=bakery.Bakeries(database) if database.is_dir() else None))


# What files are made of, in pieces that fit together often enough to get far into the checks.
KEYS = [
    "id",
    "version",
    "title",
    "description",
    "recipes",
    "object",
    "dict_object",
    "store",
    "provenance",
    "providers",
    "name",
    "roles",
    "url",
    "license",
    "license_link",
    "maintainers",
    "github",
    "orcid",
    "bakeries",
    "bakery",
    "label",
    "on",
    "target",
    "resources",
    "memory",
    "cpu",
    "pangeo_forge_version",
    "licence",
    "<<",
]
WORDS = [
    *[
        "noaa-oisst",
        "1.0",
        "1.10",
        "recipe:avhrr_only",
        "recipe:nothing",
        "nowhere:x",
        "CC-BY-4.0",
        "CC0",
        "proprietary",
        "dev",
        "prod",
        "release",
        "merge",
        "4096",
        "https://example.org",
        "0000-0001-5999-4917",
        "rabernat",
        "producer",
        "host",
        "ldeo.aws.us-west-2",
        "null",
        "true",
        "~",
        "1e999",
        "-0",
        "0x1F",
        "2027-11-01",
        "\u202e",
        "é",
        "`",
        "@all",
        "::error::x",
        "😀",
    ],
    "Open Data",
    "8 GiB",
    "",
]
scalars = st.sampled_from(WORDS) | st.text(max_size=20) | st.integers() | st.floats() | st.booleans() | st.none()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
PIECES = [
    *["\n", " ", "  ", "\t", ":", ": ", "- ", "? ", "#", "|", ">", "'", '"', "[", "]", "{", "}", ",", "&a ", "*a"],
    *["!!str ", "%TAG ", "---\n", "...\n", "\r\n", "\ufeff", "\0", "\x85", "\u2028", "\\", "`"],
    *KEYS,
    *WORDS,
]
structured = st.dictionaries(st.sampled_from(KEYS), values, max_size=9).map(
    lambda data: yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
)
changed = st.builds(
    lambda text, edits: "".join(_edited(text, edits)),
    st.sampled_from([META, OLD]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), st.sampled_from(PIECES)), min_size=1, max_size=6),
)
pieces = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
documents = (structured | changed | pieces).map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(
    max_size=60
)


BIDIRECTIONAL_CONTROLS = ("RLO", "LRO", "RLE", "LRE", "PDF", "LRI", "RLI", "FSI", "PDI")


def _edited(text, edits):
    for where, removed, added in edits:
        start = int(where * len(text))
        text = text[:start] + added + text[start + removed :]
    return text


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scratch") / "forge"
    shutil.copytree(FORGE, folder, ignore=shutil.ignore_patterns(".github", "README.md", "requirements.txt"))
    return folder / "noaa-oisst-feedstock"


THOROUGHLY = settings(
    max_examples=10_000, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@given(documents)
@settings(THOROUGHLY, max_examples=1500)
def test_documents_get_findings_and_nothing_else(scratch, document):
    gets_findings_and_nothing_else(scratch, document)


@pytest.mark.slow
@pytest.mark.timeout(900)
@given(documents)
@THOROUGHLY
def test_ten_thousand_documents_get_findings_and_nothing_else(scratch, document):
    gets_findings_and_nothing_else(scratch, document)


def gets_findings_and_nothing_else(scratch, document):
    path = scratch / "feedstock" / "meta.yaml"
    path.write_bytes(document)
    start = time.process_time()
    report = report_of(scratch)
    assert time.process_time() - start < 1
    for said in (finding.message + finding.fix for finding in report.findings):
        assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in said)
        assert not any(unicodedata.bidirectional(character) in BIDIRECTIONAL_CONTROLS for character in said)
    # Whatever a file may hold, no line of the output is a command to GitHub's runner, except the annotations.
    for line in formats.text(report).splitlines():
        assert not line.lstrip().startswith("::")
    annotations = formats.github(report).splitlines()
    assert sum(line.startswith("::") for line in annotations) == len(report.findings)


@given(documents)
@settings(THOROUGHLY, max_examples=1000)
def test_fixing_any_document_twice_is_fixing_it_once(document):
    text = document.decode("utf-8", "replace")
    once = rewrite(text, Path("meta.yaml"), "pangeo-forge/noaa-oisst-feedstock")
    assert rewrite(once, Path("meta.yaml"), "pangeo-forge/noaa-oisst-feedstock") == once
