"""How long a NetCDF 3 file has to be, by its header.

netCDF's own library reads zeros beyond the end of such a file and says nothing. The format, in its three versions
(CDF-1, CDF-2 and CDF-5): https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

MAGIC = (b"CDF\x01", b"CDF\x02", b"CDF\x05")

_DIMENSIONS, _VARIABLES, _ATTRIBUTES = 10, 11, 12
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
"""Of one value, by the number of its type."""


class CutOff(Exception):  # noqa: N818 - a state of the file
    """The file ends within its header."""


class Strange(Exception):  # noqa: N818 - a state of the file
    """The header does not follow the format, or leaves open how long the file is; the message says how."""


def length(path: Path) -> int:
    """The bytes that the header of a file promises, without the padding after its last value.

    Writers may leave that padding out. Raises :class:`CutOff` or :class:`Strange`.
    """
    with path.open("rb") as file:
        return _Header(file, path.stat().st_size).length()


class _Header:
    """Reads the header of one file, value after value."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        version = self._take(4)[3]
        self.count_bytes = 8 if version == 5 else 4
        self.offset_bytes = 4 if version == 1 else 8

    def length(self) -> int:
        records = self._count()
        dimensions = [self._dimension() for _ in range(self._list(_DIMENSIONS))]
        self._skip_attributes()
        end, fixed_end = self.file.tell(), 0
        recorded: list[tuple[int, int]] = []
        for _ in range(self._list(_VARIABLES)):
            shape, begin, item = self._variable(dimensions)
            if shape[:1] == [0]:
                recorded.append((begin, math.prod(shape[1:]) * item))
            else:
                fixed_end = max(fixed_end, begin + math.prod(shape) * item)
        end = max(end, self.file.tell(), fixed_end)
        if not recorded:
            return end
        if records == (1 << 8 * self.count_bytes) - 1:
            raise Strange("its header leaves open how many records it holds, as that of a stream")
        # One record variable alone is not padded: "Note on padding" in the specification.
        step = recorded[0][1] if len(recorded) == 1 else sum(size + -size % 4 for _, size in recorded)
        return max(end, *(begin + (records - 1) * step + size for begin, size in recorded)) if records else end

    def _dimension(self) -> int:
        self._skip_padded(self._count())
        return self._count()

    def _variable(self, dimensions: list[int]) -> tuple[list[int], int, int]:
        """Its shape (0 stands for the records), where it begins, and the bytes of one value."""
        self._skip_padded(self._count())
        numbers = [self._count() for _ in range(self._count())]
        if any(number >= len(dimensions) for number in numbers):
            raise Strange("a variable in its header has a dimension that is not there")
        self._skip_attributes()
        item = self._item()
        self._count()  # its size, which is too small a number for large variables
        return [dimensions[number] for number in numbers], self._number(self.offset_bytes), item

    def _skip_attributes(self) -> None:
        for _ in range(self._list(_ATTRIBUTES)):
            self._skip_padded(self._count())
            item = self._item()
            self._skip_padded(self._count() * item)

    def _list(self, tag: int) -> int:
        """How many elements follow. An absent list has no tag, and none."""
        found, count = self._number(4), self._count()
        if found != tag and (found or count):
            raise Strange("its header is not one of NetCDF")
        return count

    def _item(self) -> int:
        kind = self._number(4)
        if kind not in _BYTES:
            raise Strange(f"its header names a type {kind}, which NetCDF does not have")
        return _BYTES[kind]

    def _count(self) -> int:
        return self._number(self.count_bytes)

    def _number(self, width: int) -> int:
        return int.from_bytes(self._take(width))

    def _take(self, width: int) -> bytes:
        taken = self.file.read(width)
        if len(taken) < width:
            raise CutOff
        return taken

    def _skip_padded(self, width: int) -> None:
        if self.file.tell() + width > self.size:
            raise CutOff
        self.file.seek(width + -width % 4, 1)
