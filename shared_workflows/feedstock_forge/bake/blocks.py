"""The stored values of an HDF5 variable, read without HDF5's library.

The library serves one thread at a time, and most of its time goes into decompressing. Where it puts a variable's blocks
(chunks, in its own words) can be asked once; they are then read and decompressed here, on as many threads as there are.
Only what the library would give back bit for bit is read so: plain numbers, as they are or deflated. The rest is left
to it. https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numcodecs import Shuffle
from zlib_ng import zlib_ng

_DEFLATE, _SHUFFLE = 1, 2
# What is read here, as HDF5 names filters and in the order in which they are applied when writing.
_FILTERS = ((), (_DEFLATE,), (_SHUFFLE,), (_SHUFFLE, _DEFLATE))
# netCDF-4's name in HDF5 for a variable that is called like a dimension and is not its coordinate.
_NOT_COORDINATE = "_nc4_non_coord_"
# Of the values that are decompressed at least this part must be wanted, or the library's cache serves better.
_WANTED = 0.5


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block lies in its file: its first byte, its length as stored, and a bit for each filter left out."""

    offset: int
    size: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of one variable, by the index of their first element."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    lengths: tuple[int, ...]
    """Of a whole block."""
    filters: tuple[int, ...]
    """One of :data:`_FILTERS`."""
    fill: Any
    """The value where no block was ever written."""
    known: dict[tuple[int, ...], Block]

    def covers(self, index: tuple[slice, ...]) -> bool:
        """Whether reading these elements decompresses little more than them."""
        wanted = math.prod(cut.stop - cut.start for cut in index)
        read = math.prod(
            (-(-cut.stop // length) - cut.start // length) * length
            for cut, length in zip(index, self.lengths, strict=True)
        )
        return wanted >= _WANTED * read or not self.filters

    def read(self, index: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        """The elements of ``index``, whose slices have a start and a stop. Raises ``OSError`` for damaged blocks."""
        values = np.empty([cut.stop - cut.start for cut in index], self.dtype)
        file = os.open(self.path, os.O_RDONLY)
        try:
            for first in self._firsts(index):
                cuts = [
                    slice(max(start, cut.start), min(start + length, cut.stop))
                    for start, length, cut in zip(first, self.lengths, index, strict=True)
                ]
                there = values[
                    tuple(
                        slice(cut.start - wanted.start, cut.stop - wanted.start)
                        for cut, wanted in zip(cuts, index, strict=True)
                    )
                ]
                block = self.known.get(first)
                if block is None:
                    there[...] = self.fill
                elif there.shape == self.lengths and there.flags.c_contiguous:
                    self._put(file, block, there)
                else:
                    here = (slice(cut.start - start, cut.stop - start) for cut, start in zip(cuts, first, strict=True))
                    whole = np.empty(self.lengths, self.dtype)
                    self._put(file, block, whole)
                    there[...] = whole[tuple(here)]
        finally:
            os.close(file)
        return values

    def _firsts(self, index: tuple[slice, ...]) -> Iterator[tuple[int, ...]]:
        return product(
            *(
                range(cut.start // length * length, cut.stop, length)
                for cut, length in zip(index, self.lengths, strict=True)
            )
        )

    def _put(self, file: int, block: Block, values: np.ndarray[Any, Any]) -> None:
        """Read a block and undo its filters, into an array of its shape."""
        filters = [kind for number, kind in enumerate(self.filters) if not block.skipped >> number & 1]
        into = values.reshape(-1).view(np.uint8)
        if not filters:
            _check_size(block, block.size, into)
            _fill_from(file, block.offset, into)
            return
        data: Any = np.empty(block.size, np.uint8)
        _fill_from(file, block.offset, data)
        if _DEFLATE in filters:
            try:
                data = zlib_ng.decompress(data, bufsize=into.nbytes)
            except zlib_ng.error as error:  # type: ignore[misc] # its stub says that it is a value
                raise OSError(f"the block at byte {block.offset:,} cannot be decompressed: {error}") from None
        _check_size(block, len(data), into)
        if _SHUFFLE in filters:
            Shuffle(self.dtype.itemsize).decode(data, into)
        else:
            into[...] = np.frombuffer(data, np.uint8)


def blocks(path: Path, name: str) -> Blocks | None:
    """The blocks of a variable of the root group, or ``None`` if only HDF5's library can read it."""
    with h5py.File(path) as file:
        found = file.get(_NOT_COORDINATE + name, file.get(name))
        if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "iuf" or not found.dtype.isnative:
            return None
        if not found.shape or h5py.check_enum_dtype(found.dtype) or found.external or found.is_virtual:
            return None
        layout = found.id.get_create_plist()
        filters = tuple(layout.get_filter(number)[0] for number in range(layout.get_nfilters()))
        if filters not in _FILTERS:
            return None
        known: dict[tuple[int, ...], Block] = {}
        if found.chunks:

            def add(one: Any) -> None:
                known[tuple(one.chunk_offset)] = Block(one.byte_offset, one.size, one.filter_mask)

            found.id.chunk_iter(add)
        elif (offset := found.id.get_offset()) is not None:
            known[(0,) * found.ndim] = Block(offset, found.nbytes, 0)
        elif found.id.get_storage_size():  # within the header
            return None
        lengths = tuple(found.chunks or (max(size, 1) for size in found.shape))
        return Blocks(path, found.shape, found.dtype, lengths, filters, found.fillvalue, known)


def _check_size(block: Block, size: int, into: np.ndarray[Any, Any]) -> None:
    """Raise ``OSError`` unless a block holds so many bytes as the values take."""
    if size != into.nbytes:
        raise OSError(f"the block at byte {block.offset:,} holds {size:,} bytes and not {into.nbytes:,}")


def _fill_from(file: int, offset: int, values: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    """Fill an array of bytes from a file. Raises ``OSError`` if the file ends before."""
    left = memoryview(values.data)
    while left:
        count = os.preadv(file, [left], offset)
        if not count:
            raise OSError(f"the file ends before byte {offset + len(left):,}")
        left, offset = left[count:], offset + count
