"""The code that opens a dataset, as an entry and a page of the website show it."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from ..bake.places import path_of


def code(
    url: str,
    *,
    tag: str | None = None,
    consolidated: bool = False,
    public_url: str | None = None,
    region: str | None = None,
    refers_to: Sequence[str] = (),
) -> str:
    """Python that opens the dataset at ``url`` as ``ds``; ``tag`` is the Icechunk tag of the release to open.

    ``refers_to`` are the prefixes of the files that a virtual dataset refers to, which the reader then allows.

    With ``public_url`` everybody may read the dataset: plain Zarr there, Icechunk without credentials.
    """
    if url.rstrip("/").endswith(".icechunk"):
        where = f"tag={_text(tag)}" if tag else '"main"'
        return (
            "import icechunk\nimport xarray as xr\n\n"
            f"storage = {_storage(url, public_url, region)}\n"
            f"{_repository(refers_to)}"
            f"session = repository.readonly_session({where})\n"
            "ds = xr.open_zarr(session.store, consolidated=False)\n"
        )
    location = public_url or str(path_of(url) or url)
    return f"import xarray as xr\n\nds = xr.open_zarr({_text(location)}, consolidated={consolidated})\n"


def _repository(refers_to: Sequence[str]) -> str:
    if not refers_to:
        return "repository = icechunk.Repository.open(storage)\n"
    anybody = "icechunk.s3_anonymous_credentials()"
    leave = "".join(f"    {_text(one)}: {anybody if one.startswith('s3:') else None},\n" for one in refers_to)
    return (
        "# The values are in the provider's own files: reading the dataset reads there.\n"
        f"allowed = icechunk.containers_credentials({{\n{leave}}})\n"
        "repository = icechunk.Repository.open(storage, authorize_virtual_chunk_access=allowed)\n"
    )


def _storage(url: str, public_url: str | None, region: str | None) -> str:
    if path := path_of(url):
        return f"icechunk.local_filesystem_storage({_text(str(path))})"
    parts = urlsplit(url.rstrip("/"))
    bucket, prefix = _text(parts.netloc), _text(parts.path.lstrip("/"))
    who = "anonymous=True" if public_url else "from_env=True"
    match parts.scheme:
        case "s3":
            place = f", region={_text(region)}" if region else ""
            return f"icechunk.s3_storage(\n    bucket={bucket},\n    prefix={prefix}{place},\n    {who},\n)"
        case "gs" | "gcs":
            return f"icechunk.gcs_storage(\n    bucket={bucket},\n    prefix={prefix},\n    {who},\n)"
    account = '    account="…",  # the storage account\n'
    return f"icechunk.azure_storage(\n{account}    container={bucket},\n    prefix={prefix},\n    from_env=True,\n)"


def _text(value: str) -> str:
    """A Python string; what a stranger named stays inside its quotes."""
    # Python prefers double quotes where the text has a single one; where it has both, its own choice is good.
    return ascii(value) if '"' in value else '"' + ascii("'" + value)[2:]
