"""Series are found by what the headers say, wherever they lie and whatever they are called."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from synth_ct.kit.quarantine import Refused
from synth_ct.sources.dicom import read_series, series_in

MakeSeries = Callable[..., list[Dataset]]
WriteSeries = Callable[..., list[Path]]
Change = Callable[[list[Dataset]], None]


def set_on(*ks: int, **values: object) -> Change:
    def change(slices: list[Dataset]) -> None:
        for k in ks or range(len(slices)):
            for tag, value in values.items():
                setattr(slices[k], tag, value)

    return change


def test_two_series_in_one_folder_are_two_candidates(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    write_series(make_series("1.2.3"), tmp_path, "a")
    write_series(make_series("1.2.4", spacing=1.25), tmp_path, "b")
    found = series_in(tmp_path)
    assert [(s.uid, len(s.files)) for s in found.series] == [("1.2.3", 12), ("1.2.4", 12)]
    assert found.set_aside == ()


def test_a_series_spread_over_folders_is_one_and_its_copy_another(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    slices = make_series()
    write_series(slices[:7], tmp_path / "disk" / "a")
    write_series(slices[7:], tmp_path / "disk" / "b")
    assert [len(s.files) for s in series_in(tmp_path).series] == [12]
    write_series(slices, tmp_path / "copy")
    parts = [len(s.files) for s in series_in(tmp_path).series]
    assert parts[0] == 12
    assert sum(parts) == 24


def test_what_is_no_slice_is_set_aside_and_what_is_no_ct_is_counted(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    write_series(make_series(), tmp_path, "ct")
    scout = make_series("1.2.5")[:2]
    set_on(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])(scout)
    write_series(scout, tmp_path, "scout")
    screen = make_series("1.2.6")[:1]
    set_on(SOPClassUID=SecondaryCaptureImageStorage)(screen)
    write_series(screen, tmp_path, "screen")
    mip = make_series("1.2.7")[:1]
    set_on(ImageType=["DERIVED", "SECONDARY", "MIP"])(mip)
    write_series(mip, tmp_path, "mip")
    film = make_series("1.2.8")[:1]
    set_on(Modality="DX")(film)
    write_series(film, tmp_path, "film")
    (tmp_path / "notes.xml").write_text("<xml/>")
    (tmp_path / "html.dcm").write_text("<html>404</html>")
    (tmp_path / "empty.dcm").touch()
    found = series_in(tmp_path)
    assert [s.uid for s in found.series] == ["1.2.3"]
    assert {row.code: row.file for row in found.set_aside if row.code != "E_DCM_NOTDICOM"} == {
        "E_DCM_LOCALIZER": "scout000.dcm",
        "E_DCM_SECONDARY": "screen000.dcm",
        "E_DCM_PROJECTION": "mip000.dcm",
    }
    unread = [row.file for row in found.set_aside if row.code == "E_DCM_NOTDICOM"]
    assert unread == ["empty.dcm", "html.dcm"]
    assert found.ignored == {"DX": 1}


def test_localisers_inside_a_series_do_not_spoil_it(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    slices = make_series()
    set_on(0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])(slices)
    write_series(slices, tmp_path)
    found = series_in(tmp_path)
    assert [len(s.files) for s in found.series] == [11]
    assert [row.code for row in found.set_aside] == ["E_DCM_LOCALIZER"]


def test_dicom_is_known_by_content_and_a_directory_record_is_no_image(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    for path in write_series(make_series(), tmp_path):
        path.rename(path.with_suffix(".png" if path.stem < "006" else ""))
    record = make_series("1.2.9")[0]
    record.file_meta.MediaStorageSOPClassUID = record.SOPClassUID = "1.2.840.10008.1.3.10"
    record.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    found = series_in(tmp_path)
    assert [len(s.files) for s in found.series] == [12]
    assert found.set_aside == ()


def test_links_that_leave_the_folder_are_not_followed(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    files = write_series(make_series(), inside / "a")
    secret = write_series(make_series("9.9.9"), outside)
    (inside / "folder").symlink_to(outside)
    (inside / "file.dcm").symlink_to(secret[0])
    (inside / "loop").symlink_to(inside)
    (inside / "twin.dcm").symlink_to(files[0])
    found = series_in(inside)
    assert [s.uid for s in found.series] == ["1.2.3"]
    assert [len(s.files) for s in found.series] == [12]
    assert [(r.code, r.file) for r in found.set_aside] == [
        ("E_PATH_ESCAPE", "file.dcm"),
        ("E_PATH_ESCAPE", "folder"),
    ]


def test_a_header_that_cannot_be_parsed_is_one_row_and_the_rest_goes_on(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries, rng: np.random.Generator
) -> None:
    write_series(make_series(), tmp_path / "good")
    (whole_file, *_) = write_series(make_series("7.7.7"), tmp_path / "other")
    whole = whole_file.read_bytes()
    shutil.rmtree(tmp_path / "other")
    (tmp_path / "bad").mkdir()
    for k in range(60):
        data = bytearray(whole[: int(rng.integers(133, 700))] if k % 2 else whole)
        for at in rng.integers(132, min(len(data), 900), 8):
            data[at] = int(rng.integers(256))
        (tmp_path / "bad" / f"{k}.dcm").write_bytes(bytes(data))
    with socket.socket(socket.AF_UNIX) as pipe:
        pipe.bind(str(tmp_path / "bad" / "s.sock"))
        found = series_in(tmp_path)
    assert [len(s.files) for s in found.series if s.uid == "1.2.3"] == [12]
    assert {row.code for row in found.set_aside} >= {"E_DCM_HEADER"}
    assert not any(row.file.endswith(".sock") for row in found.set_aside)
    for series in found.series:
        if series.uid != "1.2.3":
            with pytest.raises(Refused):
                read_series(series.files)


def test_names_that_cannot_be_printed_are_escaped(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    strange = tmp_path / b"a\xff\n=cmd()".decode("utf-8", "surrogateescape")
    write_series(make_series(), strange)
    (series,) = series_in(tmp_path).series
    assert series.name == "a\\udcff\\n=cmd()/000.dcm"
    assert read_series(series.files)[0].array_XYZ.shape == (32, 32, 12)
