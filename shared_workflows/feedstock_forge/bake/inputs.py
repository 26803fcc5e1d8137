"""An input as a dataset: opened, described, and held against the others before anything is written."""

from __future__ import annotations

import hashlib
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import xarray as xr
from xarray.conventions import cf_encoder, encode_cf_variable, encode_dataset_coordinates

from ..findings import Finding, Refused, refuse_errors, rule
from . import classic
from .blocks import Blocks, blocks
from .fetch import TRUNCATED, shown

NOT_NETCDF = rule("input-not-netcdf", "Providers answer a wrong URL or a missing login with a page instead of a file.")
DAMAGED = rule("input-damaged", "A file that opens may still hold blocks that cannot be read.")
NO_DIMENSION = rule("input-dimension-missing", "Inputs are joined along one dimension, which each must have.")
VARIABLES = rule("input-variables-differ", "A variable that only some inputs hold would have holes in the dataset.")
GRID = rule("input-grid-differs", "Values on different grids cannot stand in one array.")
ENCODING = rule("input-encoding-differs", "One array has one type, packing, unit and calendar.")
UNSORTED = rule("input-time-unsorted", "Readers select spans of time, which only works where it increases.")
OVERLAPS = rule("input-time-overlaps", "A time that comes twice makes every selection and mean wrong.")
PREPROCESS = rule("preprocess-fails", "What `preprocess` returns is what is written.")

Preprocess = Callable[[xr.Dataset], xr.Dataset]
Index = Mapping[str, slice]

_PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "units", "calendar")
_TIME = ("units", "calendar")
_TEXTS = "OSTU"
_NOT_DECODED = (ValueError, TypeError, KeyError, OverflowError)
"""What xarray raises at times that it cannot read."""
_SPAN = "timedelta64"
_ABBREVIATED = {
    **dict.fromkeys(("d",), "days"),
    **dict.fromkeys(("h", "hr", "hrs"), "hours"),
    **dict.fromkeys(("min", "mins"), "minutes"),
    **dict.fromkeys(("s", "sec", "secs"), "seconds"),
}
_NAMED = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
# The one kind of text that Zarr v3 specifies has any length; so marked, xarray does not look for another.
_TEXT = np.dtype("O", metadata={"element_type": str})
HDF5 = b"\x89HDF\r\n\x1a\n"

# Times in floating point are read in nanoseconds then, which is as well.
warnings.filterwarnings("ignore", "Can't decode floating point datetimes to 'us' without precision loss")

# So many bytes are worth to ask where they lie.
_BY_BLOCKS = 1 << 20

# Neither user code nor netCDF's own library is safe in threads; h5py is.
_preprocessing = threading.Lock()
_netcdf_library = threading.RLock()


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable as it is stored: packed, with the attributes that say how to unpack it."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attrs: dict[str, Any]
    encoding: dict[str, Any]
    """What xarray needs to pack decoded values in the same way."""
    digest: str | None
    """Of the stored values, if the inputs are not joined along any of its dimensions: then they must all agree."""

    @property
    def is_time(self) -> bool:
        """Whether the values count from a reference time."""
        return _count_since(self.encoding)

    @property
    def counts(self) -> dict[str, Any]:
        """What the values count, if they are times, or spans of time that ``preprocess`` has computed: the attributes
        by which they are decoded."""
        if self.is_time:
            return {key: self.encoding[key] for key in _TIME if key in self.encoding}
        return {key: self.attrs[key] for key in ("units", "dtype") if _SPAN in str(self.attrs.get("dtype", ""))}


@dataclass(frozen=True, slots=True)
class Description:
    """An input, or a dataset, without its data."""

    name: str
    length: int
    variables: dict[str, Variable]
    attrs: dict[str, Any]
    coordinate: np.ndarray[Any, Any] | None
    """The decoded coordinate of the dimension along which inputs are joined, if it has one."""
    stored: np.ndarray[Any, Any] | None
    """The same as it is stored."""
    is_plain: bool
    """Whether ``preprocess`` left each variable as it is in the file, but for its attributes."""


class Opened:
    """An input, or a published dataset: its stored values, and what they decode to after ``preprocess``."""

    def __init__(
        self,
        name: str,
        raw: xr.Dataset,
        preprocess: Preprocess | None = None,
        lazy: xr.Dataset | None = None,
        alone: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.name = name
        self.raw = raw
        self.alone = nullcontext() if alone is None else alone
        """Held while the file is used."""
        self.hdf5: Path | None = None
        """The file, if it is HDF5."""
        self._blocks: dict[str, Blocks | None] = {}
        self._files = [raw] if lazy is None else [raw, lazy]
        self.decoded = _decode(raw if lazy is None else lazy)
        self.untouched = {str(key): str(key) for key in raw.variables}
        """Variables whose values ``preprocess`` left alone, and what they are called in the file."""
        if preprocess is not None:
            before = {_identity(variable): str(key) for key, variable in self.decoded.variables.items()}
            self.decoded = _preprocessed(name, self.decoded, preprocess)
            after = {str(key): _identity(variable) for key, variable in self.decoded.variables.items()}
            self.untouched = {key: before[identity] for key, identity in after.items() if identity in before}
        refuse_errors(_strange_times(name, self.decoded))

    @classmethod
    def file(cls, name: str, path: Path, preprocess: Preprocess | None) -> Opened:
        """Open a NetCDF file. Raises :class:`Refused` if it is none, or if ``preprocess`` fails."""
        with path.open("rb") as file:
            head = file.read(512)
        if head.startswith(classic.MAGIC):
            _refuse_cut_off(name, path)
        # netCDF's own library opens a file in a quarter of the time, but serves one thread at a time. A copy needs no
        # more, since HDF5 reads one block at a time anyway; what `preprocess` computes does.
        engine = "h5netcdf" if preprocess is not None and head.startswith(HDF5) else "netcdf4"
        alone = _netcdf_library if engine == "netcdf4" else nullcontext()
        with alone:
            try:
                raw = xr.open_dataset(path, engine=engine, decode_cf=False, cache=False)
            except Exception as error:  # each engine has its own ways to fail at a strange file
                raise Refused(not_netcdf(name, path.stat().st_size, head, _reason(path, error))) from error
            lazy = None
            if preprocess is not None:
                # What a thread holds at once of an input that goes through `preprocess`. Settings are the process's.
                with _preprocessing, dask.config.set({"array.chunk-size": "4MiB"}):
                    lazy = xr.open_dataset(path, engine=engine, decode_cf=False, cache=False, chunks="auto")
            with reading(name):
                opened = cls(name, raw, preprocess, lazy, alone)
            opened.hdf5 = path if head.startswith(HDF5) else None
            return opened

    def describe(self, concat_dim: str) -> Description:
        """Describe it; reads the coordinates and whatever else has no ``concat_dim``.

        Raises :class:`Refused` if it cannot be read or has no ``concat_dim``.
        """
        if concat_dim not in self.decoded.sizes:
            has = ", ".join(map(str, self.decoded.sizes)) or f"none{_groups_of(self.hdf5)}"
            message = f"{shown(self.name)} has no dimension `{concat_dim}`; it has {has}"
            fix = f'let `preprocess` return ds.expand_dims("{concat_dim}"), or correct concat_dim'
            raise Refused(NO_DIMENSION.at(None, message, fix))
        with self.alone, reading(self.name):
            stored, attrs = self._stored()
            variables = {}
            for name, variable in stored.items():
                dims = tuple(str(dim) for dim in self.decoded[name].dims)
                shape, encoding = self.decoded[name].shape, self._encoding(name, variable)
                kept = _kept(variable.attrs, variable.dtype)
                described = Variable(dims, shape, _dtype(variable.dtype), kept, encoding, None)
                if concat_dim not in dims:
                    described = replace(described, digest=_digest(self.values(name, {}, described)))
                variables[name] = described
            coordinate = stored_coordinate = None
            if concat_dim in self.decoded.variables:
                coordinate = self.decoded.variables[concat_dim].values
                stored_coordinate = self._values(concat_dim, {}, variables[concat_dim])
        length = self.decoded.sizes[concat_dim]
        is_plain = all(
            self.untouched.get(name) == name and self.raw.variables[name].dims == variable.dims
            for name, variable in variables.items()
        )
        attrs = {key: _as_json(value) for key, value in attrs.items()}
        return Description(self.name, length, variables, attrs, coordinate, stored_coordinate, is_plain)

    def values(self, name: str, index: Index, like: Variable | None = None) -> np.ndarray[Any, Any]:
        """The stored values of one variable; ``like`` says how they are to be stored, if not as they are.

        Raises :class:`Refused` if they cannot be read, or not be stored so.
        """
        source = self._as_stored(name, like)
        if source is not None and (values := self._in_blocks(source, self._cuts(name, index))) is not None:
            return values
        with self.alone, reading(self.name):
            return self._values(name, index, like)

    def close(self) -> None:
        """Close the file."""
        with self.alone:
            for file in self._files:
                file.close()

    def __del__(self) -> None:
        self.close()  # here, or xarray would without asking for the lock

    def _as_stored(self, name: str, like: Variable | None) -> str | None:
        """What a variable is called in the file, if its values are to be stored as they are there."""
        source = self.untouched.get(name)
        return source if like is None or not like.is_time or self._same_units(name, like) else None

    def _cuts(self, name: str, index: Index) -> tuple[slice, ...]:
        variable = self.decoded.variables[name]
        return tuple(
            slice(*index.get(str(dim), slice(None)).indices(size)[:2])
            for dim, size in zip(variable.dims, variable.shape, strict=True)
        )

    def _values(self, name: str, index: Index, like: Variable | None) -> np.ndarray[Any, Any]:
        source = self._as_stored(name, like)
        if source is not None:
            return np.asarray(self.raw.variables[source][self._cuts(name, index)].values)
        with _computing(self.name):
            variable = _loaded(self.decoded.variables[name].isel(index, missing_dims="ignore"))
        if like is None:
            return _encode(variable, self._encoding(name, None))
        return encode_like(variable.data, like, name, self.name) if like.counts else _encode(variable, like.encoding)

    def _in_blocks(self, source: str, cuts: tuple[slice, ...]) -> np.ndarray[Any, Any] | None:
        """Values of the file read block by block, for which no thread waits; ``None`` if that is not to be had."""
        raw = self.raw.variables[source]
        if self.hdf5 is None or math.prod(cut.stop - cut.start for cut in cuts) * raw.dtype.itemsize < _BY_BLOCKS:
            return None
        with reading(self.name):
            if source not in self._blocks:
                with self.alone:
                    found = blocks(self.hdf5, source)
                same = found is not None and (found.shape, found.dtype) == (raw.shape, raw.dtype)
                self._blocks[source] = found if same else None
            known = self._blocks[source]
            return known.read(cuts) if known is not None and known.covers(cuts) else None

    def _same_units(self, name: str, like: Variable) -> bool:
        encoding = self.decoded.variables[name].encoding
        return all(encoding.get(key) == like.encoding.get(key) for key in _TIME)

    def _stored(self) -> tuple[dict[str, xr.Variable], dict[str, Any]]:
        """Every variable as it would be stored, of no more than one element where it would have to be computed."""
        if len(self.untouched) == len(self.decoded.variables) and self.raw.variables.keys() == self.untouched.keys():
            return {str(name): variable for name, variable in self.raw.variables.items()}, dict(self.raw.attrs)
        probe = self.decoded.isel({dim: slice(1) for dim in self.decoded.sizes})
        for name in self.untouched:
            variable = probe.variables[name]
            if variable.chunks is not None and variable.dtype.kind in "fiu":
                # What the file says is known already; a value read here would take its whole block.
                probe[name] = variable.copy(data=np.zeros(variable.shape, variable.dtype))
        # One at a time: a single element may take the whole input to compute.
        with _preprocessing, _computing(self.name):
            copies, attrs = encode_dataset_coordinates(probe.compute(scheduler="synchronous"))
            for name, variable in copies.items():
                known, ours = _spelled_out(variable.encoding), name not in self.untouched
                # How the file packs its values, xarray might refuse to do.
                variable.encoding = {key: value for key, value in known.items() if ours or key in _TIME}
            variables, attrs = cf_encoder(copies, attrs)
            for name in variables.keys() - self.untouched.keys():
                one, whole = variables[name], self.decoded.variables[name]
                if whole.ndim == 1 and (whole.dtype.kind in "mM" or _count_since(one.attrs)):
                    # The first alone may be a whole number of larger units than all of them are.
                    every = _encoded(_loaded(whole), whole.encoding)
                    kept = {**one.attrs, **every.attrs}
                    variables[name] = xr.Variable(one.dims, np.empty(one.shape, every.dtype), kept)
        for name, source in self.untouched.items():
            raw, variable = self.raw.variables[source], variables[name]
            packing = [key for key in _PACKING if key != "units" or _count_since(raw.attrs)]
            kept = {key: value for key, value in variable.attrs.items() if key not in packing}
            kept |= {key: raw.attrs[key] for key in packing if key in raw.attrs}
            variables[name] = xr.Variable(variable.dims, np.empty(variable.shape, raw.dtype), kept)
        return {str(name): variable for name, variable in variables.items()}, dict(attrs)

    def _encoding(self, name: str, stored: xr.Variable | None) -> dict[str, Any]:
        decoded = self.decoded.variables[name].encoding
        known = {**decoded, **({} if stored is None else {**stored.attrs, "dtype": stored.dtype})}
        encoding = {key: known[key] for key in _PACKING if known.get(key) is not None}
        if stored is not None and stored.dtype.kind in _TEXTS:
            encoding.pop("_FillValue", None)
        # `units` of a quantity is an attribute like any other; only that of a time says how it is stored.
        if not _count_since(encoding):
            encoding.pop("units", None)
            encoding.pop("calendar", None)
        return {**encoding, "dtype": known.get("dtype", self.decoded.variables[name].dtype)}


def compare(reference: Description, other: Description, concat_dim: str) -> Iterator[Finding]:
    """Yield what keeps ``other`` from being joined to ``reference`` along ``concat_dim``."""
    who, whom = shown(other.name), shown(reference.name)
    missing = reference.variables.keys() - other.variables.keys()
    added = other.variables.keys() - reference.variables.keys()
    for names, how in ((missing, "lacks"), (added, "adds")):
        if names:
            listed = ", ".join(f"`{name}`" for name in sorted(names))
            message = f"{who} {how} {listed}, compared with {whom}"
            yield VARIABLES.at(None, message, "let `preprocess` drop or add it, or leave the input out")
    for name in sorted(reference.variables.keys() & other.variables.keys()):
        yield from _compare_variable(name, reference, other, concat_dim)


def _compare_variable(name: str, reference: Description, other: Description, concat_dim: str) -> Iterator[Finding]:
    ours, theirs = reference.variables[name], other.variables[name]
    who, whom = shown(other.name), shown(reference.name)

    def grid(variable: Variable) -> dict[str, int]:
        return {dim: size for dim, size in zip(variable.dims, variable.shape, strict=True) if dim != concat_dim}

    if ours.dims != theirs.dims or grid(ours) != grid(theirs):
        message = f"`{name}` of {who} has {_shape(theirs)}, but {_shape(ours)} in {whom}"
        yield GRID.at(None, message, "let `preprocess` bring it to one grid, or leave the input out")
        return
    differing = [
        f"{key} {theirs.encoding.get(key)} instead of {ours.encoding.get(key)}"
        for key in _PACKING
        if not (key == "units" and ours.is_time and theirs.is_time)  # another reference time is converted exactly
        and not (key in ("_FillValue", "missing_value") and ours.digest is not None)  # the values tell
        and not _same(_said(ours, key), _said(theirs, key))
    ]
    if not ours.is_time and ours.attrs.get("units") != theirs.attrs.get("units"):
        differing.append(f"units {theirs.attrs.get('units')} instead of {ours.attrs.get('units')}")
    if ours.dtype != theirs.dtype:
        differing.append(f"dtype {theirs.dtype} instead of {ours.dtype}")
    if differing:
        message = f"`{name}` of {who} has {', '.join(differing)} as in {whom}"
        fix = f"let `preprocess` convert it: ds[{name!r}].encoding.clear() gives up the packing, astype() sets the type"
        yield ENCODING.at(None, message, fix)
    elif ours.digest != theirs.digest:
        message = f"`{name}` of {who} holds other values than in {whom}"
        yield GRID.at(None, message, f"let `preprocess` assign or drop `{name}`, or leave the input out")


def in_order(descriptions: Sequence[Description], concat_dim: str) -> Iterator[Finding]:
    """Yield where the coordinate of ``concat_dim`` does not increase, within an input or from one to the next."""
    before: Description | None = None
    for description in descriptions:
        values = description.coordinate
        if values is None or not len(values) or values.dtype.kind in "bSTU" or isinstance(values[0], str):
            continue  # names have no order, and are looked up one by one
        steps = np.asarray(values[1:] > values[:-1], dtype=bool)
        if not steps.all() or values[0] != values[0]:  # not equal to itself: missing
            at = int(np.argmin(steps)) if len(steps) else 0
            message = f"`{concat_dim}` of {shown(description.name)} does not increase after {_moment(values[at])}"
            fix = f'let `preprocess` return ds.sortby("{concat_dim}") or drop repeats'
            if xr.Variable(concat_dim, values).isnull().any():
                message = f"`{concat_dim}` of {shown(description.name)} has missing values"
                fix = f'let `preprocess` return ds.dropna("{concat_dim}", subset=["{concat_dim}"]), or fill them in'
            yield UNSORTED.at(None, message, fix)
            continue
        if before is not None and before.coordinate is not None and not values[0] > before.coordinate[-1]:
            message = (
                f"{shown(description.name)} begins at {_moment(values[0])}, "
                f"but {shown(before.name)} ends at {_moment(before.coordinate[-1])}"
            )
            yield OVERLAPS.at(None, message, "put INPUTS in order, or let `preprocess` cut off what comes twice")
        before = description


def encode_like(values: np.ndarray[Any, Any], like: Variable, name: str, source: str) -> np.ndarray[Any, Any]:
    """Times, or spans of time, stored as ``like`` is.

    Raises :class:`Refused` if they would not be the same when they are read.
    """
    try:
        stored = _encode(xr.Variable(like.dims, values), {**like.counts, **like.encoding})
        exact = stored.dtype == like.dtype and _decodes_to(values, stored, like)
    except (ValueError, OverflowError):
        exact = False
    if not exact:
        message = f"`{name}` of {shown(source)} cannot be written exactly as {like.dtype} {like.counts['units']}"
        fix = f"let `preprocess` set ds[{name!r}].encoding: the same units for all inputs, fine enough for each"
        raise Refused(ENCODING.at(None, message, fix))
    return stored


def common_attrs(descriptions: Sequence[Description]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The attributes on which all agree: of the dataset, and of each variable. The packing always stays."""
    first = descriptions[0]
    variables = {
        name: {
            key: value
            for key, value in variable.attrs.items()
            if key in _PACKING or all(_same(value, other.variables[name].attrs.get(key)) for other in descriptions)
        }
        for name, variable in first.variables.items()
    }
    attrs = {
        key: value
        for key, value in first.attrs.items()
        if all(_same(value, other.attrs.get(key)) for other in descriptions)
    }
    return attrs, variables


class reading:  # noqa: N801 - reads as what happens in the block
    """Turn a failure to read the named input into a refusal."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # h5py and netCDF4 raise OSError and RuntimeError for blocks they cannot read or decompress.
        if isinstance(error, OSError | RuntimeError | KeyError) and not isinstance(error, NotImplementedError):
            message = f"{shown(self.name)} cannot be read: {first_line(error)}"
            raise Refused(DAMAGED.at(None, message, _RESTORE)) from error


def _preprocessed(name: str, plain: xr.Dataset, preprocess: Preprocess) -> xr.Dataset:
    with _preprocessing:
        try:
            dataset: Any = preprocess(plain)
        except Refused:
            raise
        except Exception as error:
            raise _failed(name, error) from error
    if isinstance(dataset, xr.Dataset):
        refuse_errors(_unwritable(name, dataset))
        return dataset
    message = f"`preprocess` returns {type(dataset).__name__} for {shown(name)}"
    raise Refused(PREPROCESS.at(None, message, "let it return the xarray.Dataset to write"))


def _unwritable(name: str, dataset: xr.Dataset) -> Iterator[Finding]:
    """What ``preprocess`` returns that no array of Zarr's is."""
    for key, variable in dataset.variables.items():
        what, kind = "", getattr(variable.dtype, "kind", "")
        if "/" in str(key):
            what, fix = "a name with a slash, which makes it a group", "let `preprocess` rename it"
        elif key in dataset.dims and getattr(dataset.indexes.get(key), "nlevels", 1) > 1:
            what, fix = "an index of several levels", f"let `preprocess` return ds.reset_index({key!r})"
        elif kind not in "biufcmMOSTU" or variable.dtype.itemsize > {"f": 8, "c": 16}.get(kind, math.inf):
            what, fix = f"the type {variable.dtype}", f"let `preprocess` return it with ds[{key!r}].astype(…)"
        if what:
            yield PREPROCESS.at(None, f"`{key}`, as `preprocess` returns it for {shown(name)}, has {what}", fix)


@contextmanager
def _computing(name: str) -> Iterator[None]:
    """Tell what ``preprocess`` put off and what fails now from a file that cannot be read."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError, Refused):
        raise
    except Exception as error:
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> Refused:
    message = f"`preprocess` raises {type(error).__name__} on {shown(name)}: {error}"
    return Refused(PREPROCESS.at(None, message, "correct it in feedstock/recipe.py"))


_RESTORE = "ask the provider to restore the file, or leave it out"


def _refuse_cut_off(name: str, path: Path) -> None:
    """Raise :class:`Refused` for a NetCDF 3 file that is shorter than its header says: its library reads on."""
    size, who = path.stat().st_size, shown(name)
    try:
        promised = classic.length(path)
    except classic.CutOff:
        raise Refused(TRUNCATED.at(None, f"{who} is cut off in its header, after {size:,} bytes", _RESTORE)) from None
    except classic.Strange as strange:
        raise Refused(DAMAGED.at(None, f"{who} cannot be opened: {strange}", _RESTORE)) from None
    if size < promised:
        what = f"{who} is cut off after {size:,} of the {promised:,} bytes that its header promises"
        raise Refused(TRUNCATED.at(None, what, _RESTORE))


def not_netcdf(name: str, size: int, head: bytes, reason: str) -> Finding:
    """The finding for an input of ``size`` bytes that begins with ``head`` and cannot be opened for this reason."""
    if not size:
        return TRUNCATED.at(None, f"{shown(name)} is empty", _RESTORE)
    if head.startswith((HDF5, *classic.MAGIC)):
        if "truncated" in reason:
            return TRUNCATED.at(None, f"{shown(name)} is cut off after {size:,} bytes", _RESTORE)
        return DAMAGED.at(None, f"{shown(name)} cannot be opened: {reason}", _RESTORE)
    begins = head.decode(errors="replace").lstrip().split("\n")[0].strip()[:60]
    page = begins.startswith("<")
    message = f"{shown(name)} is {'a page' if page else 'a file'} that begins with {begins!r}, not NetCDF"
    fix = "open the URL in a browser: it may ask for a login or have moved" if page else "correct its URL in INPUTS"
    return NOT_NETCDF.at(None, message, fix)


def _reason(path: Path, error: Exception) -> str:
    """Why a file will not open. netCDF's library keeps to itself that it is cut off; HDF5's says so."""
    try:
        h5py.File(path).close()
    except OSError as hdf5:
        if "truncated" in str(hdf5):
            return str(hdf5)
    return first_line(error)


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _decode(raw: xr.Dataset) -> xr.Dataset:
    """What the stored values mean. Times that cannot be read are left as they are: see :func:`_strange_times`."""
    raw = raw.copy()
    for variable in raw.variables.values():
        # As xarray does for `bounds`: https://cfconventions.org/cf-conventions/cf-conventions.html#climatological-statistics
        bounds = raw.variables.get(variable.attrs.get("climatology"))
        if bounds is not None:
            bounds.attrs = {key: variable.attrs[key] for key in _TIME if key in variable.attrs} | bounds.attrs
    try:
        return _decode_all(raw)
    except _NOT_DECODED:
        strange = [name for name, variable in raw.variables.items() if not _is_readable(variable)]
        units = {name: raw.variables[name].attrs.pop("units") for name in strange}
        decoded = _decode_all(raw)
        for name in strange:
            decoded.variables[name].attrs["units"] = units[name]
        return decoded


def _decode_all(raw: xr.Dataset) -> xr.Dataset:
    # A span of time ("days") stays a number and text stays characters: the arrays of the file, one to one. In
    # nanoseconds, times of one input might end in 2262 and be of another type than those of the next.
    times = xr.coders.CFDatetimeCoder(time_unit="us")
    return xr.decode_cf(raw, decode_times=times, decode_timedelta=False, concat_characters=False)


def _is_readable(variable: xr.Variable) -> bool:
    """Whether its values are no times, or can be read as times."""
    if not _count_since(variable.attrs):
        return True
    try:
        _decode_all(xr.Dataset({"times": variable}))
    except _NOT_DECODED:
        return False
    return True


def _count_since(said: Mapping[Any, Any]) -> bool:
    """Whether values that are said to be so count from a reference time: attributes, or what xarray took from them."""
    return " since " in str(said.get("units", ""))


def _strange_times(name: str, decoded: xr.Dataset) -> Iterator[Finding]:
    """Times that were not read, and that ``preprocess`` has not put right."""
    for key, variable in decoded.variables.items():
        if _count_since(variable.attrs):
            said = ", ".join(f"{what} {variable.attrs[what]!r}" for what in _TIME if what in variable.attrs)
            fix = f"let `preprocess` put ds[{key!r}] right and return xr.decode_cf(ds), or leave the input out"
            yield ENCODING.at(None, f"`{key}` of {shown(name)} cannot be read as times: {said}", fix)


def _groups_of(hdf5: Path | None) -> str:
    """Where a file without dimensions may keep what somebody looks for in it."""
    if hdf5 is None:
        return ""
    with h5py.File(hdf5) as file:
        groups = [name for name, item in file.items() if isinstance(item, h5py.Group)]
    return f" outside its groups ({', '.join(groups)}), which are not read" if groups else ""


def _loaded(variable: xr.Variable) -> xr.Variable:
    # In this thread: the threads of a bake are parallel enough.
    return variable.compute(scheduler="synchronous") if variable.chunks is not None else variable


def _encode(variable: xr.Variable, encoding: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    stored = np.asarray(_encoded(variable, encoding).data)
    return stored.astype(_dtype(stored.dtype), copy=False)


def _encoded(variable: xr.Variable, encoding: Mapping[str, Any]) -> xr.Variable:
    return encode_cf_variable(xr.Variable(variable.dims, variable.data, {}, _spelled_out(encoding)))


def _spelled_out(encoding: Mapping[str, Any]) -> dict[str, Any]:
    """An encoding with the units of time that xarray writes; it reads their abbreviations too."""
    unit, since, moment = str(encoding.get("units", "")).partition(" since ")
    known = {"units": f"{_ABBREVIATED[unit.lower()]}{since}{moment}"} if unit.lower() in _ABBREVIATED else {}
    return {**encoding, **known}


def _decodes_to(values: np.ndarray[Any, Any], stored: np.ndarray[Any, Any], like: Variable) -> bool:
    """Whether values that were stored as ``like`` is are the same when they are read."""
    times = xr.coders.CFDatetimeCoder(use_cftime=True if values.dtype.kind == "O" else None, time_unit="us")
    read = xr.Dataset({"again": (like.dims, stored, {**like.attrs, **like.counts})})
    again = xr.decode_cf(read, decode_times=times, decode_timedelta=True)["again"].values
    if values.dtype.kind == "O":
        return bool(np.all(again == values))
    there = ~np.isnat(values)
    # Whole numbers are exact; others are as near as double precision comes in some hundred years.
    near = np.timedelta64(1 if stored.dtype.kind == "f" else 0, "us")
    return np.array_equal(there, ~np.isnat(again)) and bool(np.all(abs(again[there] - values[there]) <= near))


def _dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return _TEXT if dtype.kind in "OTU" else dtype


def _identity(variable: xr.Variable) -> tuple[str, str]:
    """Equal for two variables only if they hold the same values and are to be packed in the same way."""
    packing = repr([(key, variable.encoding.get(key)) for key in ("dtype", *_PACKING)])
    # The name of a lazy array stands for the file and the computation. Coordinates with an index are not lazy.
    return (str(variable.data.name) if variable.chunks is not None else _digest(np.asarray(variable.values))), packing


def _digest(values: np.ndarray[Any, Any]) -> str:
    array = values.astype(object).astype(str) if values.dtype.kind in _TEXTS else values
    return hashlib.sha256(f"{array.dtype.kind}{array.shape}".encode() + array.tobytes()).hexdigest()


def _kept(attrs: Mapping[Any, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
    """The attributes of a variable that the dataset can keep."""
    kept = {str(key): value if key == "_FillValue" else _as_json(value) for key, value in attrs.items()}
    if dtype.kind in _TEXTS:
        # Text that stands for none is only text: xarray writes what it can then not read, or nothing.
        kept.pop("_FillValue", None)
    if _is_nan(attrs.get("missing_value")):
        del kept["missing_value"]  # it says what a value that is not a number says itself
    return kept


def _as_json(value: Any) -> Any:
    """A value as Zarr's metadata can hold it, which is JSON: numbers that are not finite are named there as fill values
    are, https://zarr-specs.readthedocs.io/en/latest/v3/data-types/index.html#permitted-fill-values"""
    values = np.asarray(value)
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return value
    named = [number if math.isfinite(number) else _NAMED[str(number)] for number in values.ravel().tolist()]
    return named if values.ndim else named[0]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _said(variable: Variable, key: str) -> Any:
    """What a variable says of its packing, unless that is nothing: a value that is not a number marks no more than
    itself, and both names of the calendar that is meant where none is named mean the same."""
    value = variable.encoding.get(key)
    if key == "calendar":
        return "standard" if value in ("gregorian", None) else value
    return None if _is_nan(value) else value


def _same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    ours, theirs = np.asarray(one), np.asarray(other)
    numbers = ours.dtype.kind == theirs.dtype.kind == "f"
    return bool(np.array_equal(np.atleast_1d(ours), np.atleast_1d(theirs), equal_nan=numbers))


def _shape(variable: Variable) -> str:
    return f"({', '.join(f'{dim}: {size}' for dim, size in zip(variable.dims, variable.shape, strict=True))})"


def _moment(value: Any) -> str:
    return np.datetime_as_string(value, unit="s") if isinstance(value, np.datetime64) else str(value)
