"""Everything that touches the Spinal Cord Toolbox, run with it.

The registrations need its programs (ANTs) and a small template, found through SCT_DEEPSPINE_TEMPLATE.
"""

import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fakes import PaintReader, fake_mask_model, fake_model
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from sct_deepspine import label_discs
from sct_deepspine.cli.batch import main as batch_main
from sct_deepspine.cli.label import main
from sct_deepspine.errors import SctError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.straightening import StraightSpace
from sct_deepspine.io.warps import read_displacement_field
from sct_deepspine.sct.registration import register_to_template, straighten
from sct_deepspine.sct.toolbox import centerline_from_sct, read_sct_image, require_sct

pytestmark = [pytest.mark.sct, pytest.mark.filterwarnings("default")]

pytest.importorskip("spinalcordtoolbox")
from spinalcordtoolbox.image import Image  # noqa: E402

FAST = (
    "step=1,type=seg,algo=centermassrot,metric=MeanSquares:"
    "step=2,type=seg,algo=bsplinesyn,iter=0,metric=MeanSquares"
)
ORIENTATIONS = ["RPI", "LPI", "AIL", "PSR", "SRA", "IAR", "LAS", "RSP"]
"""SCT's letters; each is the opposite of nibabel's."""


def cord_mask(scan):
    """Return a tube along the scan's cord, as an image."""
    grid, line = scan.volume.grid, scan.centerline_world
    world = grid.world_from_voxel(np.indices(grid.shape).reshape(3, -1).T)
    beside = [world[:, axis] - np.interp(world[:, 2], line[:, 2], line[:, axis]) for axis in (0, 1)]
    inside = (np.hypot(*beside) < 5).reshape(grid.shape)
    return nib.Nifti1Image(inside.astype(np.uint8), grid.affine)


@pytest.fixture(scope="module")
def folder(phantom, painted, tmp_path_factory):
    """A folder with a painted phantom, ``t2.nii.gz``, and its cord mask, ``t2_seg.nii.gz``."""
    folder = tmp_path_factory.mktemp("sct")
    image = nib.Nifti1Image(painted.data, painted.grid.affine)
    for name, each in (("t2", image), ("t2_seg", cord_mask(phantom))):
        each.set_sform(each.affine, 1)
        each.set_qform(each.affine, 1)
        nib.save(each, folder / f"{name}.nii.gz")
    return folder


def reoriented(folder, orientation, tmp_path):
    """Return the painted phantom stored in an orientation given by SCT's letters."""
    opposite = str.maketrans("RLAPIS", "LRPASI")
    image = nib.load(folder / "t2.nii.gz")
    target = axcodes2ornt(tuple(orientation.translate(opposite)))
    turned = image.as_reoriented(ornt_transform(io_orientation(image.affine), target))
    path = tmp_path / f"{orientation}.nii.gz"
    nib.save(turned, path)
    return path


def test_the_version_is_told():
    assert require_sct()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_sct_image_comes_back_labelled_in_its_own_grid(orientation, folder, phantom, tmp_path):
    model = fake_model()
    image = Image(str(reoriented(folder, orientation, tmp_path)))
    data, path = image.data.copy(), image.absolutepath
    labels = label_discs(image, weights=model)
    out = labels.to_image()
    assert isinstance(out, Image)
    assert image.orientation == out.orientation == orientation
    np.testing.assert_array_equal(image.data, data)
    assert (image.absolutepath, out.absolutepath != path) == (path, True)
    coordinates = out.getNonZeroCoordinates(sorting="value")
    assert [int(c.value) for c in coordinates] == labels.values.tolist() == sorted(phantom.discs)
    world = out.transfo_pix2phys(np.array([[c.x, c.y, c.z] for c in coordinates]))
    voxel = np.linalg.norm(labels.grid.spacing_mm)
    assert np.linalg.norm(world - labels.points_world, axis=1).max() <= voxel / 2 + 1e-3


def test_a_file_that_is_written_is_read_by_sct_as_it_was_meant(folder, phantom, tmp_path):
    model = fake_model()
    label_discs(str(folder / "t2.nii.gz"), weights=model).save(tmp_path / "discs.nii.gz")
    image = read_sct_image(tmp_path / "discs.nii.gz")
    assert image.data.dtype == np.uint8
    coordinates = image.getNonZeroCoordinates(sorting="value")
    assert [c.value for c in coordinates] == sorted(phantom.discs)


def test_scts_centreline_is_ours(folder):
    ours = Centerline.from_mask(*mask_and_grid(folder))
    theirs = centerline_from_sct(folder / "t2_seg.nii.gz")
    points = theirs.samples_world[5:-5]
    distance = np.linalg.norm(points[:, None] - ours.samples_world, axis=2).min(axis=1)
    assert distance.max() < 1.5


def mask_and_grid(folder):
    image = nib.load(folder / "t2_seg.nii.gz")
    return np.asarray(image.dataobj), Grid(image.shape, image.affine)


@pytest.fixture(scope="module")
def straightened(folder, tmp_path_factory):
    return straighten(folder / "t2.nii.gz", folder / "t2_seg.nii.gz", tmp_path_factory.mktemp("warps"))


def test_scts_straight_space_agrees_with_the_analytic_one(folder, phantom, straightened):
    tips = np.array([phantom.discs[value] for value in sorted(phantom.discs)])[1:-1]
    analytic = StraightSpace(centerline_from_sct(folder / "t2_seg.nii.gz"))
    ours, theirs = analytic.straight_from_native(tips), straightened.straight_from_native(tips)
    # Where along the cord z begins is each space's own.
    difference = theirs - ours - [0, 0, np.median(theirs[:, 2] - ours[:, 2])]
    assert np.abs(difference).max() < 1.0
    np.testing.assert_allclose(straightened.native_from_straight(theirs), tips, atol=1.0)


def test_discs_labelled_through_either_space_agree(folder, straightened):
    model = fake_model(refine=PaintReader(pixel_mm=1.0))
    seg = str(folder / "t2_seg.nii.gz")
    ours = label_discs(str(folder / "t2.nii.gz"), seg=seg, weights=model)
    theirs = label_discs(
        str(folder / "t2.nii.gz"), seg=seg, straight=straightened.axis_centerline(), weights=model
    )
    assert ours.values.tolist() == theirs.values.tolist()
    assert np.linalg.norm(ours.points_world - theirs.points_world, axis=1).max() < 1.0


# The registration


@pytest.fixture(scope="module")
def template():
    place = os.environ.get("SCT_DEEPSPINE_TEMPLATE")
    if not place:
        pytest.skip("SCT_DEEPSPINE_TEMPLATE is not set")
    return Path(place)


@pytest.fixture
def labels(folder):
    model = fake_model()
    return label_discs(str(folder / "t2.nii.gz"), weights=model)


def test_a_missing_template_is_told_before_anything_is_written(folder, labels, tmp_path):
    with pytest.raises(SctError, match="sct_download_data -d PAM50"):
        register_to_template(
            folder / "t2.nii.gz",
            folder / "t2_seg.nii.gz",
            labels,
            contrast="t2",
            folder=tmp_path / "reg",
            template=tmp_path,
        )
    assert not (tmp_path / "reg").exists()


def template_discs(template):
    image = nib.load(template / "template" / "PAM50_small_label_disc.nii.gz")
    data = np.asarray(image.dataobj)
    return {
        int(v): nib.affines.apply_affine(image.affine, np.argwhere(data == v)[0])
        for v in np.unique(data)
        if v
    }


@pytest.mark.parametrize("count", [1, 2, None])
def test_discs_land_on_the_templates(count, folder, labels, template, tmp_path):
    done = register_to_template(
        folder / "t2.nii.gz",
        folder / "t2_seg.nii.gz",
        labels,
        contrast="t2",
        folder=tmp_path / "reg",
        template=template,
        param=FAST,
        count=count,
    )
    assert len(done.labels.discs) + len(done.left_out) == len(labels.discs)
    assert len(done.labels.discs) == (count or len(labels.discs))
    field = read_displacement_field(done.warp_template2anat)
    there = template_discs(template)
    cord = Centerline.from_mask(*mask_and_grid(folder)).samples_world
    # The warp of all discs ends with the cord mask: at its ends it has no mapping.
    for disc in done.labels.discs if count else done.labels.discs[1:-1]:
        beside = cord[np.linalg.norm(cord - disc.point_world, axis=1).argmin()]
        landed = field.source_from_destination(beside)[0]
        assert abs(landed[2] - there[disc.value][2]) < 2.5  # the small template's voxels are 2 mm high


def test_the_command_registers_and_reports(folder, template, tmp_path, monkeypatch, capsys):
    model = fake_model()
    monkeypatch.chdir(tmp_path)
    words = ["-i", folder / "t2.nii.gz", "-s", folder / "t2_seg.nii.gz", "-register", 1, "-t", template]
    assert (
        main(
            [str(word) for word in [*words, "-param", FAST, "-qc", "qc", "-qc-subject", "phantom"]],
            model=model,
        )
        == 0
    )
    assert (tmp_path / "t2_reg" / "warp_template2anat.nii.gz").is_file()
    assert "Registered to the template with 3 C2/C3" in capsys.readouterr().out
    assert (tmp_path / "qc" / "index.html").is_file()
    assert list((tmp_path / "qc" / "_json").glob("qc_*.json"))


def test_the_parser_is_scts_own():
    from spinalcordtoolbox.utils.shell import SCTArgumentParser

    from sct_deepspine.cli import batch, evaluate, label, train

    for command in (label, batch, train, evaluate):
        assert isinstance(command.get_parser().parser, SCTArgumentParser)


def test_the_whole_edit_round_trip(folder, phantom, tmp_path, monkeypatch):
    """Write, rename one disc with SCT's own class, pass it back: all others follow."""
    model = fake_model()
    monkeypatch.chdir(tmp_path)
    assert main(["-i", str(folder / "t2.nii.gz")], model=model) == 0
    image = Image("t2_discs.nii.gz")
    image.data[image.data == 6] = 7
    first = np.argwhere(Image("t2_discs.nii.gz").data == 7)[0]
    image.data[tuple(first)] = 7
    image.save("edited.nii.gz")
    assert (
        main(
            ["-i", str(folder / "t2.nii.gz"), "-initlabel", "edited.nii.gz", "-o", "again.nii.gz"],
            model=model,
        )
        == 0
    )
    before, after = (np.asarray(nib.load(name).dataobj) for name in ("t2_discs.nii.gz", "again.nii.gz"))
    moved = {int(v): int(after[tuple(np.argwhere(before == v)[0])]) for v in np.unique(before) if v}
    assert moved == {value: value + 1 for value in phantom.discs}


def test_a_cohort_is_registered_and_again_only_where_the_warps_are_gone(folder, template, tmp_path):
    phantom_model, masks = fake_model(), fake_mask_model()
    (tmp_path / "data").mkdir()
    shutil.copy(folder / "t2.nii.gz", tmp_path / "data" / "t2.nii.gz")
    words = ["-i", str(tmp_path / "data"), "-o", str(tmp_path / "out"), "-masks", "1", "-v", "0"]
    words += ["-register", "1", "-t", str(template)]
    assert batch_main(words, model=phantom_model, mask_model=masks) == 0
    (warp,) = (tmp_path / "out").rglob("t2_reg/warp_template2anat.nii.gz")
    before = warp.stat().st_mtime_ns
    assert batch_main(words, model=phantom_model, mask_model=masks) == 0
    assert warp.stat().st_mtime_ns == before
