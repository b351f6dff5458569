"""A push to a full disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from system_faults import fill_disk, mount_small_disk

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import CatalogUnavailable, DiskFull
from deriva_ml_core.execution import ExecutionConfiguration
from sample_run import describe_run


def test_push_to_a_full_disk(ml: DerivaML, config: ExecutionConfiguration, tmp_path: Path) -> None:
    """Without space the error names the bytes needed or the full disk; with space the push continues."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "big.pt").write_bytes(b"x" * 2_000_000)
    exe.upload_execution_outputs()
    with mount_small_disk(tmp_path / "disk", 6_000_000) as disk:
        there = DerivaML(f"file:{disk / 'there'}")
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 3_500_000)
        with pytest.raises(DiskFull, match=r"2\.0 MB.* free"):
            ml.push(exe.execution_rid, there)
        with fill_disk(disk), pytest.raises((DiskFull, CatalogUnavailable), match=r"full|free"):
            ml.push(exe.execution_rid, there)
        ballast.unlink()
        report = ml.push(exe.execution_rid, there)
        assert describe_run(there, report.execution) == describe_run(ml, exe.execution_rid)
        assert len(there.find_executions()) == 1
        there.close()
