"""How much memory there is: of the machine, of control groups, of the process's own limit."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from evoae import resources
from evoae.messages import Refused


def test_no_more_than_the_machine_has() -> None:
    assert 0 < resources.available_memory() <= psutil.virtual_memory().total


@pytest.mark.parametrize("membership", ["0::/job/step\n", "7:blkio:/\n4:memory:/job/step\n"])
def test_the_tightest_group_above_the_process_counts(
    membership: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UNIFIED", "LEGACY"):
        monkeypatch.setattr(resources, name, (str(tmp_path), "limit", "used"))
    for folder, limit, used, cached in (("job", "5000", "3000", 500), ("job/step", "max", "10", 0)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "limit").write_text(f"{limit}\n")
        (tmp_path / folder / "used").write_text(f"{used}\n")
        (tmp_path / folder / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\n")
    (tmp_path / "cgroup").write_text(membership)
    assert list(resources.granted_by_groups(tmp_path / "cgroup")) == [2500]
    assert list(resources.granted_by_groups(tmp_path / "none")) == []


def test_the_process_s_own_limit_counts() -> None:
    code = "from evoae.resources import available_memory; print(available_memory())"
    limit = 3 << 30
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert 0 < int(found.stdout) < limit


def test_the_refusal_names_what_is_needed_and_what_is_available(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 3 << 30)
    resources.require(3 << 30, "its values")
    with pytest.raises(Refused) as caught:
        resources.require(5 << 40, "its values")
    assert str(caught.value) == "its values take 5,120.0 GiB of memory, and 3.0 GiB are available"
    with pytest.raises(Refused, match="GiB"):
        resources.require(10**5000, "its values")
