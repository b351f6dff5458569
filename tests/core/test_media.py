"""Logged images, figures and tables: what the files contain, what is left out, and how they are listed."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.media.encoders import MediaCopy, MediaSource, image_source, table_source
from deriva_ml_core.media.logger import LoggedMedia
from deriva_ml_core.media.manifest import parse_manifest
from deriva_ml_core.models import MediaFile
from deriva_ml_core.training import TrainingReporter
from remote_server import RemoteServer

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")


def pixels(image: object) -> Any:
    """Return what Pillow reads from the PNG file of an image, as nested lists, and its mode."""
    opened = Image.open(io.BytesIO(image_source(image).copy().encode()))
    opened.load()  # verifies the checksums
    return opened.mode, np.asarray(opened).tolist()


def test_bytes_are_kept() -> None:
    """Bytes of one to four channels have the same values in the PNG file, whatever its size."""
    random = np.random.default_rng(0)
    for mode, channels in (("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)):
        for height, width in ((1, 1), (5, 1), (7, 300), (300, 7)):
            array = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
            expected = array[:, :, 0] if channels == 1 else array
            if channels <= 4 and not (height <= 4 and width > 4):
                assert pixels(array) == (mode, expected.tolist())


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([[0.0, 0.5], [1.0, np.nan]]), [[0, 128], [255, 0]]),
        (np.array([[-1.0, 0.0], [1.0, np.inf]]), [[0, 128], [255, 255]]),
        (np.array([[7.0, 7.0]]), [[0, 0]]),
        (np.array([[-1.7e308, 1.7e308]]), [[0, 255]]),
        (np.array([[np.nan, np.nan]]), [[0, 0]]),
        (np.array([[True, False]]), [[255, 0]]),
        (np.array([[0, 200]]), [[0, 200]]),
        (np.array([[0, 65535]], dtype=np.uint16), [[0, 255]]),
        (np.array([[-5, 5]], dtype=np.int8), [[0, 255]]),
        ([[0.0, 1.0]], [[0, 255]]),
        (torch.tensor([[0.0, 1.0]], dtype=torch.bfloat16, requires_grad=True), [[0, 255]]),
        (Image.new("L", (2, 1), 9), [[9, 9]]),
    ],
    ids=lambda value: "" if isinstance(value, list) else type(value).__name__,
)
def test_values_become_grey(image: object, expected: list[list[int]]) -> None:
    """Floats from 0 to 1 and integers from 0 to 255 are shades; other ranges are scaled, NaN is black."""
    assert pixels(image) == ("L", expected)


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (np.zeros((3, 20, 10)), (10, 20)),
        (np.zeros((20, 10, 3)), (10, 20)),
        (np.zeros((3, 10, 3)), (10, 3)),
        (torch.zeros(3, 10, 3), (3, 10)),
        (torch.zeros(20, 10, 3), (10, 20)),
        (Image.new("CMYK", (10, 20)), (10, 20)),
    ],
)
def test_axes_of_an_image(image: object, size: tuple[int, int]) -> None:
    """The channels are the first or the last axis; if both can be, numpy has them last and torch first."""
    assert Image.open(io.BytesIO(image_source(image).copy().encode())).size == size


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((2, 3, 4, 5)), r"shape \(2, 3, 4, 5\)"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.zeros((20, 30, 40)), "the first or the last axis has 1 to 4 channels"),
        (np.zeros((2, 2), dtype=complex), "complex128 values"),
        (np.array([["a"]]), "<U1 values"),
        ("cat.png", "a value of the type str"),
        (None, "a value of the type NoneType"),
    ],
)
def test_unsuitable_images(image: object, message: str) -> None:
    """The message says what the value is, and what an image can be."""
    with pytest.raises(ValueError, match=message):
        image_source(image)


def csv(table: object) -> str:
    source = table_source(table)
    assert source.suffix == ".csv"
    return source.copy().encode().decode()


def test_tables_become_csv() -> None:
    """DataFrames, lists of dicts, dicts of columns and arrays become CSV with a header, where they have names."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    assert csv(pandas.DataFrame({"a": [1, 2], "b": ["x", 'y,"']})) == 'a,b\n1,x\n2,"y,"""\n'
    assert csv(pandas.Series([0.5], index=["loss"], name="v")) == ",v\nloss,0.5\n"
    assert csv([{"a": 1}, {"a": 2, "b": "\n"}]) == 'a,b\n1,\n2,"\n"\n'
    assert csv({"a": [1, 2, 3], "b": np.array([0.5])}) == "a,b\n1,0.5\n2,\n3,\n"
    assert csv(np.array([[1, 2], [3, 4]])) == "1,2\n3,4\n"
    assert csv(torch.tensor([[1.5]], requires_grad=True)) == "1.5\n"
    for value, message in ((3, "type int"), ([1, 2], "type list"), ({"a": 1}, "no columns"), (np.zeros(3), "shape")):
        with pytest.raises(ValueError, match=message):
            table_source(value)


HOSTILE_NAMES = (
    "../../../etc/passwd",
    "/absolute",
    "<script>alert(1)</script>",
    "line\nbreak\x1b[31m",
    "\udcff",
    "n" * 5000,
    "",
    "....",
    "é漢字",
)


def test_names_are_hostile(ml: DerivaML, exe: Execution) -> None:
    """Each name is listed as it is, up to 500 characters, and no file leaves its folder."""
    with exe:
        for step, name in enumerate(HOSTILE_NAMES):
            exe.log_image(name, np.zeros((2, 2)), step)
    folder = exe.working_dir / "outputs" / "Execution_Asset" / "media"
    media = exe.list_media()
    assert [each.name for each in media] == [
        *HOSTILE_NAMES[:4],
        "\\udcff",
        "n" * 500,
        *HOSTILE_NAMES[6:],
    ]
    assert [each.path for each in media] == [folder / Path(each.filename).name for each in media]
    assert [each.filename for each in media] == [
        "media/00001-etc-passwd.png",
        "media/00002-absolute.png",
        "media/00003-script-alert-1-script.png",
        "media/00004-line-break-31m.png",
        "media/00005-udcff.png",
        f"media/00006-{'n' * 60}.png",
        "media/00007-unnamed.png",
        "media/00008-unnamed.png",
        "media/00009-unnamed.png",
    ]
    exe.upload_execution_outputs()
    for each in ml.lookup_execution(exe.execution_rid).list_media():
        assert each.path is None
        assert each.asset is not None
        assert (each.asset.filename, each.asset.md5) == (each.filename, each.md5)


def test_a_secret_in_a_name_is_redacted(exe: Execution) -> None:
    """Neither the list nor the file's name has it."""
    with exe:
        exe.log_image("password=hunter2-correct-horse", np.zeros((2, 2)))
    (media,) = exe.list_media()
    assert "hunter2" not in media.name + media.filename


def test_the_value_is_copied_at_the_call(exe: Execution) -> None:
    """The training may change the value right after the call."""
    array, tensor, image = np.zeros((8, 8), np.uint8), torch.zeros(8, 8), Image.new("L", (8, 8))
    rows: list[dict[str, int]] = [{"a": 1}]
    with exe:
        for value in (array, tensor, image):
            exe.log_image("i", value)
        exe.log_table("t", rows)
        array[:] = 255
        tensor.fill_(1.0)
        image.paste(255, (0, 0, 8, 8))
        rows[0]["a"] = 2
    *images, table = exe.list_media()
    assert [np.asarray(Image.open(each.path)).max() for each in images if each.path] == [0, 0, 0]
    assert table.path is not None
    assert table.path.read_text() == "a\n1\n"


class Gate:
    """A value that is encoded when a test says so."""

    def __init__(self, nbytes: int = 1) -> None:
        self.nbytes = nbytes
        self.is_open = Event()

    def media(self) -> LoggedMedia:
        def encode() -> bytes:
            self.is_open.wait()
            return b"x"

        return LoggedMedia(
            "table", "slow", lambda: MediaSource(".csv", self.nbytes, lambda: MediaCopy(self.nbytes, encode))
        )


def test_a_full_queue_drops_and_counts(exe: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """The call never waits for the background; the run says at its end how many values are missing, once."""
    gate = Gate()
    with exe:
        for _ in range(100):  # at most 64 wait
            exe._log_media(gate.media())
        gate.is_open.set()
    assert len(exe.list_media()) == 64
    exe.upload_execution_outputs()
    counted = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert counted == [
        f"Execution {exe.execution_rid} keeps 64 images, figures and tables, and left out 36 while the queue was full."
    ]
    assert parse_manifest((exe.working_dir / "media.jsonl").read_bytes()).omitted == {"queue": 36}


def test_the_queue_is_bounded_in_bytes(exe: Execution) -> None:
    """A value of 200 MiB waits, so another one has no place; later there is place again."""
    gate = Gate(200 * 2**20)
    with exe:
        exe._log_media(gate.media())
        exe._log_media(gate.media())
        gate.is_open.set()
        exe._drain_media()
        exe._log_media(gate.media())
    assert len(exe.list_media()) == 2


def test_a_run_keeps_so_many(exe: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """The option max_media limits a run, also across fits; the rest is counted and said once."""
    with exe:
        reporter = TrainingReporter(exe, max_media=3)
        for _ in range(2):
            reporter.begin_fit(epochs=1)
            for step in (1, 2, 3):
                reporter.log_image("i", np.zeros((2, 2)), step)
                exe._drain_media()
            reporter.end_fit()
    assert [(each.fit, each.step) for each in exe.list_media()] == [(1, 1), (1, 2), (1, 3)]
    assert [record.getMessage() for record in caplog.records if "left out" in record.getMessage()] == [
        f"Execution {exe.execution_rid} keeps 3 images, figures and tables, and left out 3 over the limit of 3 "
        "(max_media)."
    ]
    assert exe.staged_assets() == []


class Explosive:
    """A value of a class of the user whose methods raise."""

    def __array__(self, *_: object, **__: object) -> None:
        raise RuntimeError("boom")

    def __str__(self) -> str:
        raise RuntimeError("boom")


def test_a_failure_never_ends_the_run(exe: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """Unsuitable values, names and steps, and a disk that refuses, cause one warning and are counted."""
    calls: tuple[Callable[[], None], ...] = (
        lambda: exe.log_image("i", "no image"),
        lambda: exe.log_image("i", Explosive()),
        lambda: exe.log_figure("f", 3),
        lambda: exe.log_figure("f", 3, format="gif"),  # type: ignore[arg-type]
        lambda: exe.log_table("t", object()),
        lambda: exe.log_image("i", np.zeros((2, 2)), Explosive()),  # type: ignore[arg-type]
        lambda: exe.log_image("i", np.zeros((2, 2)), float("inf")),  # type: ignore[arg-type]
    )
    with exe:
        for call in calls:
            call()
        folder = exe.working_dir / "outputs" / "Execution_Asset"
        folder.mkdir(parents=True)
        (folder / "media").write_text("a file where the folder should be")
        exe.log_image("i", np.zeros((2, 2)))
        exe._drain_media()
        (folder / "media").unlink()
        exe.log_image(Explosive(), np.zeros((2, 2)))  # type: ignore[arg-type]
    assert [each.name for each in exe.list_media()] == ["<Explosive>"]
    messages = [record.getMessage() for record in caplog.records]
    assert len([message for message in messages if message.startswith("Failed to log the image 'i'")]) == 1
    assert any("left out 8 that could not be recorded" in message for message in messages)
    exe.upload_execution_outputs()
    assert exe.status == "Completed"


def test_figures_may_be_closed_after_the_call(exe: Execution, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is drawn in the background without a window of its own, also if the figure cannot be pickled."""
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    with exe:
        figure, axes = pyplot.subplots(figsize=(2, 1), dpi=50)
        axes.plot([1, 2], [3, 4])
        exe.log_figure("png", figure, 1)
        exe.log_figure("svg", axes, 2, format="svg")
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: "tick"))  # cannot be pickled
        exe.log_figure("lambda", figure, 3)
        exe.log_image("image", figure, 4)
        figure.clear()
        pyplot.close(figure)
        exe._drain_media()
        assert pyplot.get_fignums() == []
    media = exe.list_media()
    assert [(each.kind, each.name, each.step, Path(each.filename).suffix) for each in media] == [
        ("figure", "png", 1, ".png"),
        ("figure", "svg", 2, ".svg"),
        ("figure", "lambda", 3, ".png"),
        ("image", "image", 4, ".png"),
    ]
    for each in (media[0], media[2], media[3]):
        assert each.path is not None
        image = Image.open(each.path).convert("L")
        assert image.size == (100, 50)
        assert np.asarray(image).min() < 255  # something was drawn before the figure was cleared
    assert media[1].path is not None
    assert media[1].path.read_text().count("<svg ") == 1


def test_a_list_is_data() -> None:
    """Lines of another form, and names of files that we do not write, are ignored."""
    line = {
        "kind": "image",
        "name": "i",
        "fit": 1,
        "epoch": None,
        "step": 2**60,
        "time": "2026-01-02T03:04:05+00:00",
        "filename": "media/00001-i.png",
        "length": 9,
        "md5": "0" * 32,
    }
    wrong: list[dict[str, object]] = [
        {"filename": "../../../etc/passwd"},
        {"filename": "media/../../x.png"},
        {"filename": "/etc/passwd.png"},
        {"filename": "media/00001-i.html"},
        {"filename": 3},
        {"kind": "page"},
        {"md5": "x"},
        {"length": "9"},
        {"time": "yesterday"},
        {"name": ["i"]},
    ]
    lines = [json.dumps(line | {"more": "of a newer version"}), *(json.dumps(line | each) for each in wrong), "[]", "{"]
    lines += [json.dumps({"omitted": {"queue": 2, "limit": "3"}}), json.dumps({"omitted": {"queue": 1}})]
    manifest = parse_manifest("\n".join(lines).encode() + b"\n")
    assert [(file.name, file.step, file.fit) for file in manifest.files] == [("i", None, 1)]
    assert manifest.omitted == {"queue": 3, "limit": 0}


def test_a_forked_child_logs_too(exe: Execution) -> None:
    """Two processes write different files, and both are listed."""
    with exe:
        exe.log_image("i", np.zeros((2, 2)), 1)
        exe._drain_media()
        if (pid := os.fork()) == 0:
            exe.log_image("i", np.zeros((2, 2)), 2)
            exe._drain_media()
            os._exit(0)
        os.waitpid(pid, 0)
        exe.log_image("i", np.zeros((2, 2)), 3)
    assert [(each.step, each.filename) for each in exe.list_media()] == [
        (1, "media/00001-i.png"),
        (2, "media/00002-i.png"),
        (3, "media/00003-i.png"),
    ]
    exe.upload_execution_outputs()
    assert all(each.asset for each in exe.list_media())


KILLED_PROGRAM = """\
    import os, signal, sys, time
    import numpy as np
    from deriva_ml import DerivaML, ExecutionConfiguration, Workflow

    workflow = Workflow(name="Killed", workflow_type="Training", url="https://example.org/k.py", checksum="k")
    with DerivaML().create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
        print(exe.execution_rid, flush=True)
        for step in range(1000):
            exe.log_image("i", np.zeros((64, 64)), step)
            time.sleep(0.001)
    """


def test_a_killed_run_loses_only_what_waits(ml: DerivaML, home: Path) -> None:
    """What a killed run wrote is listed, and the restored run continues the numbers and uploads all of it."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED_PROGRAM)], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        rid = program.stdout.readline().strip()
        media = ml.lookup_execution(rid).working_dir / "media.jsonl"
        while not (media.exists() and media.read_bytes().count(b"\n") >= 5):
            assert program.poll() is None
            time.sleep(0.01)
        program.send_signal(signal.SIGKILL)
    killed = ml.lookup_execution(rid).list_media()
    assert [each.step for each in killed] == list(range(len(killed)))
    assert all(each.path is not None and Image.open(each.path).size == (64, 64) for each in killed)
    restored = ml.restore_execution(rid)
    restored.log_image("more", np.zeros((2, 2)))
    restored.upload_execution_outputs()
    listed = ml.lookup_execution(rid).list_media()
    assert [each.name for each in listed] == ["i"] * len(killed) + ["more"]
    assert all(each.asset for each in listed)
    numbers = [int(re.findall(r"\d+", each.filename)[0]) for each in listed]
    assert len(set(numbers)) == len(numbers)


def test_media_of_another_machine(
    remote_server: RemoteServer, config: ExecutionConfiguration, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The list is read from the catalog, and each file has an asset but no path."""
    number = remote_server.catalog()
    ml = remote_server.open(number)
    with ml.create_execution(config) as exe:
        exe.log_image("i", np.zeros((2, 2)), 7, epoch=2)
    exe.upload_execution_outputs()
    monkeypatch.setenv("DERIVA_ML_HOME", str(tmp_path / "another"))
    (media,) = remote_server.open(number).lookup_execution(exe.execution_rid).list_media()
    assert (media.name, media.step, media.epoch, media.path) == ("i", 7, 2, None)
    assert media.asset is not None
    assert media.asset.asset_types == ("Execution_Asset",)


def test_media_of_a_pushed_run(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """The copy in another catalog lists the same files, with the assets of that catalog."""
    with exe:
        exe.log_table("t", [{"a": 1}], 3)
    exe.upload_execution_outputs()
    other = DerivaML(f"file:{tmp_path / 'other'}")
    rid = ml.push(exe.execution_rid, other).execution
    (media,) = other.lookup_execution(rid).list_media()
    assert (media.name, media.step, media.path) == ("t", 3, None)
    assert media.asset is not None
    assert other.lookup_asset(media.asset.rid).filename == "media/00001-t.csv"


def test_dry_runs_and_higher_ranks(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A dry run uploads nothing, and a process of a higher rank does not even copy the value."""
    with ml.create_execution(config, dry_run=True) as dry:
        dry.log_image("i", np.zeros((2, 2)))
    assert dry.upload_execution_outputs() == {}
    with ml.create_execution(config) as exe:
        exe._rank = 1
        exe.log_image("i", Explosive())
        exe._rank = 0
    assert exe.list_media() == []


def test_a_run_without_media(exe: Execution) -> None:
    """It lists none and has no file for them."""
    with exe:
        pass
    assert exe.list_media() == []
    assert not (exe.working_dir / "media.jsonl").exists()


def test_a_media_file_converts_to_json(exe: Execution) -> None:
    """A file of the list can be dumped and read again."""
    with exe:
        exe.log_image("i", np.zeros((2, 2)))
    (media,) = exe.list_media()
    assert MediaFile.model_validate_json(media.model_dump_json()) == media


def test_the_default_limit(exe: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """A run keeps 1,000 values."""
    caplog.set_level(logging.WARNING)
    with exe:
        for step in range(1010):
            exe.log_table("t", [{"a": step}])
            if step % 50 == 0:
                exe._drain_media()
    assert len(exe.list_media()) == 1000
    assert any("left out 10 over the limit of 1,000 (max_media)" in each.getMessage() for each in caplog.records)
