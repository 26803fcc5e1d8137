"""Datasets in object storage: written through its own protocol, by keys that may do what a run needs and no more."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import icechunk
import pytest
import xarray as xr

from demo import provider
from feedstock_forge import catalog, meta
from feedstock_forge.bake import Provenance, bake, bake_virtual, coming_from, publishing
from feedstock_forge.bake.stores import object_storage as icechunk_storage
from feedstock_forge.catalog import sources
from feedstock_forge.findings import Finding, Refused, Who
from support import feedstocks, object_storage
from support.object_storage import READ, WRITE, ObjectStorage

TARGET = f"s3://{object_storage.BUCKET}"
DATASET = f"{TARGET}/ocean/v1/sst.icechunk"


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStorage]:
    with object_storage.serve() as running:
        yield running


@pytest.fixture
def bucket(server: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> ObjectStorage:
    """An empty bucket; this process has the keys of a user who may write to it, and not delete."""
    server.empty()
    become(server, monkeypatch, *WRITE)
    return server


@pytest.fixture(scope="module")
def ocean(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return provider.write_inputs(tmp_path_factory.mktemp("ocean"), 3, "%Y-%m.nc", encoding=provider.in_chunks(1))


def become(server: ObjectStorage, monkeypatch: pytest.MonkeyPatch, *actions: str) -> None:
    for name, value in server.environment(*actions).items():
        monkeypatch.setenv(name, value)


def run(inputs: list[Path], mode: str = "complete", version: str = "v1.0.0", commit: str = "c" * 40) -> Provenance:
    """Bake as a worker does; returns what the run was."""
    made = Provenance("ocean", "sst", "pangeo-forge/ocean-feedstock", commit, version, mode, f"run-of-{version}")
    with coming_from(made):
        bake([str(path) for path in inputs], DATASET, concat_dim="time", mode=mode)
    return made


def refusal(call: Callable[[], object]) -> Finding:
    with pytest.raises(Refused) as caught:
        call()
    (finding,) = caught.value.findings
    return finding


def reader(**where: str) -> xr.Dataset:
    """The dataset as it is at a branch or a tag, opened now and read when the test asks for values."""
    session = icechunk.Repository.open(icechunk_storage(DATASET)).readonly_session(**where)
    return xr.open_zarr(session.store, consolidated=False)


def test_a_release_then_a_merge_then_a_release_hold_what_their_inputs_hold(
    bucket: ObjectStorage, ocean: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(ocean[:2])
    assert provider.check(DATASET, ocean[:2]) == []
    run(ocean, "update", version="d" * 40, commit="d" * 40)
    assert provider.check(DATASET, ocean) == []
    run(ocean, version="v2.0.0", commit="e" * 40)
    assert provider.check(DATASET, ocean) == []
    before = bucket.objects()
    run(ocean, version="v2.0.0", commit="e" * 40)
    assert bucket.objects() == before, "that release is baked"
    assert refusal(lambda: run(ocean[:1], version="v1.0.0", commit="f" * 40)).id == "release-tag-taken"
    become(bucket, monkeypatch, *READ)
    assert reader(tag="v1.0.0").sizes["time"] == 31 + 28
    assert reader(tag="v2.0.0").sizes["time"] == reader(branch="main").sizes["time"] == 31 + 28 + 31


def test_what_a_recipe_writes_by_itself_is_published_whole_or_not_at_all(
    bucket: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def write(value: float, *, source_fails: bool = False) -> None:
        with publishing(DATASET) as store:
            ds = xr.Dataset({"sst": ("time", [value])})
            ds.to_zarr(store, mode="w", zarr_format=3, consolidated=False)
            if source_fails:
                raise ValueError("the archive is closed")

    write(1.0)
    before = bucket.objects()
    with pytest.raises(ValueError, match="the archive is closed"):
        write(2.0, source_fails=True)
    assert {key: bucket.objects()[key] for key in before} == before
    assert reader(branch="main")["sst"].values.tolist() == [1.0]
    write(3.0)
    assert reader(branch="main")["sst"].values.tolist() == [3.0]
    assert list(tmp_path.iterdir()) == [], "nothing is written beside the recipe"


def test_a_reader_stays_with_what_it_opened(bucket: ObjectStorage, ocean: list[Path]) -> None:
    run(ocean[:2])
    opened = reader(branch="main")
    run(ocean[2:], version="v2.0.0")
    with xr.open_mfdataset(ocean[:2], data_vars="all") as read:
        xr.testing.assert_equal(opened.load(), read.load())
    assert provider.check(DATASET, ocean[2:]) == []


def test_its_entry_stands_beside_it_and_in_the_catalog(
    bucket: ObjectStorage, ocean: list[Path], tmp_path: Path
) -> None:
    declared = meta.read(feedstocks.make(tmp_path / "server", "ocean").folder).meta
    for version, inputs in (("v1.0.0", ocean[:2]), ("v2.0.0", ocean)):
        assert catalog.record(declared, run(inputs, version=version), DATASET) is None
    read = sources.read([sources.Source(TARGET)])
    assert read.findings == []
    (entry,) = read.entries
    assert [done["version"] for done in entry.collection["feedstock:runs"]] == ["v1.0.0", "v2.0.0"]
    copies = {key.removeprefix("catalog/"): tag for key, tag in bucket.objects().items() if key.startswith("catalog/")}
    assert {Path(name).name for name in copies} == {"collection.json", "v1.0.0.json", "v2.0.0.json"}
    beside = {key.replace(".stac/", "/"): tag for key, tag in bucket.objects().items() if ".stac/" in key}
    assert beside == copies


@pytest.mark.parametrize(("published", "mode"), [(0, "complete"), (1, "update")], ids=["new", "published"])
def test_of_two_writers_at_once_the_slower_is_refused_and_loses_the_other_nothing(
    bucket: ObjectStorage, ocean: list[Path], published: int, mode: str
) -> None:
    if published:
        run(ocean[:1])
    turns = itertools.count()

    def be_overtaken(ds: xr.Dataset) -> xr.Dataset:
        if next(turns) == 0:
            run(ocean, version="v2.0.0")
        return ds

    inputs = [str(path) for path in ocean[:2]]
    finding = refusal(lambda: bake(inputs, DATASET, concat_dim="time", mode=mode, preprocess=be_overtaken))
    assert finding.id == "target-busy"
    assert "run it again" in finding.fix
    assert provider.check(DATASET, ocean) == []


def test_what_another_hand_has_put_there_stays(bucket: ObjectStorage) -> None:
    bucket.put("ocean/v1/sst.icechunk/thesis.txt", b"years of work")
    before = bucket.objects()
    assert refusal(lambda: bake(["none.nc"], DATASET, concat_dim="time")).id == "target-not-a-dataset"
    assert bucket.objects() == before


def test_references_lead_its_readers_to_the_files(bucket: ObjectStorage, ocean: list[Path]) -> None:
    for inputs, mode in ((ocean[:2], "complete"), (ocean, "update")):
        bake_virtual([str(path) for path in inputs], DATASET, concat_dim="time", mode=mode)
        allowed = icechunk.containers_credentials({f"file://{ocean[0].parent}/": None})
        repository = icechunk.Repository.open(icechunk_storage(DATASET), authorize_virtual_chunk_access=allowed)
        with (
            xr.open_mfdataset(inputs, data_vars="all") as read,
            xr.open_zarr(repository.readonly_session("main").store, consolidated=False) as found,
        ):
            xr.testing.assert_equal(found.load(), read.load())


class TestATargetThatMayNotBeWritten:
    """It is named before an input is asked for: here no input is there, which would be the next thing to be said."""

    @pytest.mark.parametrize("published", [0, 1], ids=["new", "published"])
    def test_is_named_and_stays_as_it_was(
        self, bucket: ObjectStorage, ocean: list[Path], monkeypatch: pytest.MonkeyPatch, published: int
    ) -> None:
        if published:
            run(ocean[:1])
        before = bucket.objects()
        become(bucket, monkeypatch, *READ)
        finding = refusal(lambda: bake(["none.nc"], DATASET, concat_dim="time"))
        assert finding.id == "target-unwritable"
        assert finding.who is Who.OPERATOR
        assert "Access Denied (AccessDenied)" in finding.message
        assert bucket.objects() == before
        become(bucket, monkeypatch, *WRITE)
        assert refusal(lambda: bake(["none.nc"], DATASET, concat_dim="time")).id == "input-missing"
        assert {key: bucket.objects()[key] for key in before} == before
        run(ocean, version="v2.0.0")
        assert provider.check(DATASET, ocean) == []

    def test_is_named_before_a_recipe_writes_by_itself(
        self, bucket: ObjectStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        become(bucket, monkeypatch, *READ)
        worked = []

        def write() -> None:
            with publishing(DATASET) as store:
                worked.append(store)

        assert refusal(write).id == "target-unwritable"
        assert not worked

    @pytest.mark.parametrize(
        ("variable", "value", "answer"),
        [
            ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE", "InvalidAccessKeyId"),
            ("AWS_SECRET_ACCESS_KEY", "not-the-secret", "SignatureDoesNotMatch"),
        ],
    )
    def test_is_named_with_what_the_storage_answers_to_wrong_keys(
        self, bucket: ObjectStorage, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, answer: str
    ) -> None:
        monkeypatch.setenv(variable, value)
        finding = refusal(lambda: bake(["none.nc"], DATASET, concat_dim="time"))
        assert finding.id == "target-unwritable"
        assert answer in finding.message
        assert value not in finding.message

    def test_is_named_where_there_is_no_such_bucket(self, bucket: ObjectStorage) -> None:
        finding = refusal(lambda: bake(["none.nc"], "s3://none/x.icechunk", concat_dim="time"))
        assert finding.id == "target-unwritable"
        assert "NoSuchBucket" in finding.message

    def test_does_not_keep_a_run_from_saying_that_nothing_is_new(
        self, bucket: ObjectStorage, ocean: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(ocean[:1])
        become(bucket, monkeypatch, *READ)
        run(ocean[:1], "update", version="d" * 40)
