"""The address that `tinyllm lab` prints serves the course's notebooks."""

from __future__ import annotations

import json
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from tinyllm.workspace import releases

pytestmark = pytest.mark.needs("notebooks")


def test_every_release_notebook_is_served(lab: str) -> None:
    address = urlsplit(lab)
    assert address.path == "/lab/tree/day1_paged_kv_cache.ipynb"
    names = [path.name for path in releases()]
    assert names[:2] == ["day0_warm_up.ipynb", "day1_paged_kv_cache.ipynb"]
    token = address.query.removeprefix("token=")
    for path in releases():
        url = f"http://{address.netloc}/api/contents/{path.name}?content=1"
        with urlopen(Request(url, headers={"Authorization": f"token {token}"}), timeout=60) as reply:
            served = json.load(reply)["content"]
        assert len(served["cells"]) == len(json.loads(path.read_text())["cells"]) > 0
