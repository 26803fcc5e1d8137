"""A recipe that writes its dataset by itself publishes it whole, or leaves what was published as it was."""

from __future__ import annotations

import errno
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import dask.array
import icechunk
import pytest
import xarray as xr
from distributed import Client

from demo import provider
from feedstock_forge.bake import Provenance, coming_from, publishing
from feedstock_forge.findings import Refused
from support.templates import tree

STORES = ["icechunk", "zarr"]


def run_of(version: str, commit: str, mode: str = "complete") -> AbstractContextManager[None]:
    return coming_from(Provenance("own", "own", "forge/own-feedstock", commit, version, mode))


def put(target: str, first: int, *, keep: bool = False, prune: bool = False) -> None:
    """Publish three numbers, from ``first``."""
    values = dask.array.arange(first, first + 3, chunks=3)
    with publishing(target, keep=keep, prune=prune) as store:
        how = {"append_dim": "x"} if keep else {"mode": "w", "zarr_format": 3}
        xr.Dataset({"value": ("x", values)}).to_zarr(store, consolidated=False, **how)  # type: ignore[call-overload]


def published(target: str) -> list[int]:
    with provider.open_dataset(target) as ds:
        return [int(value) for value in ds["value"].values]


def refusal(target: str, first: int = 0) -> set[str]:
    with pytest.raises(Refused) as caught:
        put(target, first)
    return {finding.id for finding in caught.value.findings}


@pytest.mark.parametrize("store", STORES)
def test_a_block_that_fails_leaves_the_published_dataset_byte_for_byte(tmp_path: Path, store: str) -> None:
    target = str(tmp_path / f"own.{store}")
    put(target, 0)
    before = tree(tmp_path)

    def fails(index: int) -> None:
        raise ValueError(f"no source {index}")

    values = dask.array.from_delayed(dask.delayed(fails)(1), (3,), dtype=int)
    with pytest.raises(ValueError, match="no source 1"), publishing(target) as state:
        xr.Dataset({"value": ("x", values)}).to_zarr(state, mode="w", zarr_format=3, consolidated=False)
    assert tree(tmp_path) == before
    with pytest.raises(Refused) as caught, publishing(target):
        pass
    assert [finding.id for finding in caught.value.findings] == ["dataset-not-written"]
    assert tree(tmp_path) == before
    assert published(target) == [0, 1, 2]


@pytest.mark.parametrize("store", STORES)
def test_readers_see_the_old_dataset_until_the_block_ends(tmp_path: Path, store: str) -> None:
    target = f"file://{tmp_path}/own.{store}"
    put(target, 0)
    with publishing(tmp_path / f"own.{store}") as state:
        ds = xr.Dataset({"value": ("x", [7, 8])})
        ds.to_zarr(state, mode="w", zarr_format=3, consolidated=False)
        assert published(target) == [0, 1, 2]
        assert refusal(target) == {"target-busy"}
    assert published(target) == [7, 8]
    assert [path.name for path in tmp_path.iterdir()] == [f"own.{store}"]


@pytest.mark.parametrize("times", [1, 2], ids=["once", "while it is put back"])
@pytest.mark.parametrize("end", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")], ids=["Ctrl-C", "EIO"])
def test_a_move_that_breaks_off_loses_nothing_where_no_folders_can_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException, times: int
) -> None:
    """As on macOS, NFS or FUSE: between two renames nothing is in the dataset's place."""
    target = tmp_path / "own.zarr"
    put(str(target), 0)
    rename, left = Path.rename, times

    def breaks_off(self: Path, to: Path) -> Path:
        nonlocal left
        if to == target and left:
            left -= 1
            raise end
        return rename(self, to)

    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        patch.setattr(Path, "rename", breaks_off)
        with pytest.raises(Refused if isinstance(end, OSError) else type(end)):
            put(str(target), 10)
        assert not left
    assert published(str(target)) == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    put(str(target), 20)
    assert published(str(target)) == [20, 21, 22]


@pytest.mark.parametrize("store", STORES)
def test_what_is_kept_can_be_appended_to(tmp_path: Path, store: str) -> None:
    target = str(tmp_path / f"own.{store}")
    with publishing(target, keep=True) as state:
        xr.Dataset({"value": ("x", [0, 1, 2])}).to_zarr(state, mode="a", zarr_format=3, consolidated=False)
    put(target, 3, keep=True)
    assert published(target) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("store", STORES)
def test_what_is_kept_is_changed_for_readers_at_the_end_only(tmp_path: Path, store: str) -> None:
    """A store that wrote into the published files would show it: plain Zarr's next state begins with links to them."""
    target = str(tmp_path / f"own.{store}")
    put(target, 0)
    with publishing(target, keep=True) as state:
        ds = xr.Dataset({"value": ("x", [7, 8, 9])}, attrs={"title": "changed"})
        ds.to_zarr(state, mode="r+", consolidated=False)
        assert published(target) == [0, 1, 2]
        with provider.open_dataset(target) as before:
            assert "title" not in before.attrs
    assert published(target) == [7, 8, 9]


@pytest.mark.parametrize("store", STORES)
def test_a_block_that_adds_nothing_to_what_is_kept_leaves_it(tmp_path: Path, store: str) -> None:
    target = str(tmp_path / f"own.{store}")
    put(target, 0)
    with publishing(target, keep=True):
        pass
    assert published(target) == [0, 1, 2]
    with run_of("v1", "aaa"), publishing(target, keep=True):
        pass
    with provider.open_dataset(target) as ds:
        assert ds.attrs["feedstock_provenance"]["version"] == "v1", "a release says so whatever it adds"
    if store == "icechunk":
        repository = icechunk.Repository.open(icechunk.local_filesystem_storage(target))
        assert [info.message for info in repository.ancestry(tag="v1")][:2] == [
            "complete: write the dataset (v1 aaa)",
            "complete: write the dataset",
        ]
        assert len(list(repository.ancestry(tag="v1"))) == 3, "nothing was committed for nothing"


@pytest.mark.parametrize("store", STORES)
def test_a_link_is_followed_and_stays_a_link(tmp_path: Path, store: str) -> None:
    name, disk = f"own.{store}", tmp_path / "disk"
    link, other = tmp_path / "links" / f"current.{store}", tmp_path / "links" / f"other.{store}"
    link.parent.mkdir()
    link.symlink_to(f"../disk/{name}")
    other.symlink_to(link)
    put(str(link), 0)  # it leads nowhere yet
    put(str(other), 10)
    assert published(str(disk / name)) == published(str(link)) == [10, 11, 12]
    assert link.is_symlink()
    with publishing(link, keep=True):
        assert refusal(str(disk / name)) == refusal(str(other)) == {"target-busy"}, "it is one dataset"
    assert [path.name for path in disk.iterdir()] == [name]
    assert {path.name for path in link.parent.iterdir()} == {link.name, other.name}


@pytest.mark.parametrize("store", STORES)
def test_a_link_to_itself_is_refused_before_anything_is_written(tmp_path: Path, store: str) -> None:
    link = tmp_path / f"own.{store}"
    link.symlink_to(link.name)
    with pytest.raises(Refused, match="Too many levels of symbolic links") as caught, publishing(link):
        pytest.fail("nothing can be published there")
    assert [finding.id for finding in caught.value.findings] == ["target-unwritable"]
    assert [path.name for path in tmp_path.iterdir()] == [link.name]


def test_a_dask_cluster_loses_nothing(tmp_path: Path) -> None:
    target = str(tmp_path / "own.icechunk")
    with Client(processes=False, n_workers=1, dashboard_address=None):
        put(target, 0)
    assert published(target) == [0, 1, 2]


def test_a_release_is_tagged_once_and_says_where_it_comes_from(tmp_path: Path) -> None:
    target = str(tmp_path / "own.icechunk")
    with run_of("v1/0", "aaa"):
        put(target, 0, prune=True)
        put(target, 10)
        put(target, 20)
    assert published(target) == [10, 11, 12], "a release is one state for ever"
    with run_of("v1/0", "bbb"):
        assert refusal(target) == {"release-tag-taken"}
    with run_of("bbb", "bbb", "update"):
        put(target, 30)
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(target))
    assert repository.list_tags() == {"v1-0"}
    messages = [info.message for info in repository.ancestry(branch="main")]
    assert messages[:2] == ["update: write the dataset (bbb bbb)", "complete: write the dataset (v1/0 aaa)"]
    head = next(iter(repository.ancestry(tag="v1-0")))
    assert (head.metadata["commit"], head.metadata["pruned"]) == ("aaa", False)
    with provider.open_dataset(target) as ds:
        assert ds.attrs["feedstock_provenance"]["commit"] == "bbb"


def test_plain_zarr_on_object_storage_is_refused_before_anything_is_written() -> None:
    assert refusal("s3://bucket/own.zarr") == {"target-not-atomic"}
