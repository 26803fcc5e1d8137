"""Whose word the clients of GitHub and of Prefect take for who a server is."""

from __future__ import annotations

import ssl
from functools import cache

import httpx


@cache
def authorities() -> ssl.SSLContext:
    """The certificate authorities that httpx trusts, read once for all clients: that takes longer than a request."""
    return httpx.create_ssl_context()


def for_url(url: str) -> ssl.SSLContext:
    """The :func:`authorities` for an ``https`` URL. Any other server shows no certificate, and nobody is trusted."""
    return authorities() if url.lower().startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
