"""The words that STAC has for what a meta.yaml says."""

from __future__ import annotations

ROLES = ("licensor", "producer", "processor", "host")
"""The roles of a STAC provider: https://github.com/radiantearth/stac-spec/blob/master/commons/common-metadata.md"""

OTHER_ROLES = {
    "author": "`producer`",
    "creator": "`producer`",
    "curator": "`host` if it serves the data, `processor` if it changed them",
    "distributor": "`host`",
    "licenser": "`licensor`",
    "licencor": "`licensor`",
    "owner": "`licensor`",
    "provider": "`host` if it serves the data, `producer` if it made them",
    "publisher": "`host`",
}
"""What people call them instead, and what to write."""
