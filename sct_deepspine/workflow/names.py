"""Names of the files of one scan: beside the image as SCT has them, or as BIDS derivatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sct_deepspine.io.bids import DERIVATIVE, image_stem

__all__ = ["ResultNames", "bids_names", "mask_names", "sct_names"]

BIDS_MASKS = {
    "spine": "seg-spine_dseg",
    "seg": "label-cord_mask",
    "canal": "label-canal_mask",
    "seg_labeled": "seg-cordlevels_dseg",
}
"""Ending of a mask file (:attr:`sct_deepspine.segmentation.masks.SpineMasks.parts`) → how BIDS calls it."""


@dataclass(frozen=True)
class ResultNames:
    """Where each file of a scan goes.

    Parameters
    ----------
    labels
        The label image.
    sidecar
        The JSON file that records the others.
    template
        The labels that the template has.
    csv, markups
        The discs as a table, and as a point list of 3D Slicer.
    heatmaps, heatmap_volumes, attention
        What the network predicted; which volume of the heat maps is which value.
    preview
        The picture.
    masks
        Ending of a mask file → its path.
    registration
        Folder of the warps to the template.
    other_records
        JSON files of other commands that record files of the same scan beside these.
    """

    labels: Path
    sidecar: Path
    template: Path
    csv: Path
    markups: Path
    heatmaps: Path
    heatmap_volumes: Path
    attention: Path
    preview: Path
    masks: Mapping[str, Path]
    registration: Path
    other_records: tuple[Path, ...] = ()

    @property
    def records(self) -> tuple[Path, ...]:
        """The JSON files that may record files of the scan, the own one first."""
        return self.sidecar, *self.other_records


def sct_names(labels: Path) -> ResultNames:
    """Name the files after a label image, such as ``t2_discs.nii.gz``.

    Examples
    --------
    >>> names = sct_names(Path("t2_discs.nii.gz"))
    >>> names.sidecar.name, names.masks["seg"].name
    ('t2_discs.json', 't2_seg.nii.gz')
    """
    base = image_stem(labels)
    stem = base.removesuffix("_discs")
    return ResultNames(
        labels=labels,
        sidecar=labels.with_name(f"{base}.json"),
        template=labels.with_name(f"{base}_template.nii.gz"),
        csv=labels.with_name(f"{base}.csv"),
        markups=labels.with_name(f"{base}.mrk.json"),
        heatmaps=labels.with_name(f"{stem}_heatmaps.nii.gz"),
        heatmap_volumes=labels.with_name(f"{stem}_heatmaps.json"),
        attention=labels.with_name(f"{stem}_attention.nii.gz"),
        preview=labels.with_name(f"{base}.png"),
        masks=_masks(labels.parent, stem),
        registration=labels.with_name(f"{stem}_reg"),
        other_records=(_mask_record(labels.parent, stem),),
    )


def _mask_record(folder: Path, stem: str) -> Path:
    return folder / f"{stem}_spine.json"


def mask_names(folder: Path, stem: str) -> ResultNames:
    """Name the files of a scan of which masks are wanted, not labels: their record is ``STEM_spine.json``."""
    names = sct_names(folder / f"{stem}_discs.nii.gz")
    record = _mask_record(folder, stem)
    preview = record.with_suffix(".png")
    return replace(names, sidecar=record, preview=preview, other_records=(names.sidecar,))


def bids_names(folder: Path, stem: str) -> ResultNames:
    """Name the files as derivatives, in BIDS's order of entities: ``label`` before ``desc``.

    Labels are named as SCT's datasets have them, with the whole name of the image. Masks of a BIDS image are
    named as BIDS has them: ``space`` says on which image's grid they lie.

    Examples
    --------
    >>> names = bids_names(Path("anat"), "sub-01_T2w")
    >>> names.labels.name, names.template.name
    ('sub-01_T2w_label-discs_dlabel.nii.gz', 'sub-01_T2w_label-discs_desc-template_dlabel.nii.gz')
    >>> names.masks["seg"].name, bids_names(Path("x"), "t2").masks["seg"].name
    ('sub-01_space-T2w_label-cord_mask.nii.gz', 't2_seg.nii.gz')
    """
    entity, suffix = DERIVATIVE.rsplit("_", 1)
    base = folder / f"{stem}_{DERIVATIVE}"
    return ResultNames(
        labels=base.with_name(f"{base.name}.nii.gz"),
        sidecar=base.with_name(f"{base.name}.json"),
        template=folder / f"{stem}_{entity}_desc-template_{suffix}.nii.gz",
        csv=base.with_name(f"{base.name}.csv"),
        markups=base.with_name(f"{base.name}.mrk.json"),
        heatmaps=folder / f"{stem}_heatmaps.nii.gz",
        heatmap_volumes=folder / f"{stem}_heatmaps.json",
        attention=folder / f"{stem}_attention.nii.gz",
        preview=base.with_name(f"{base.name}.png"),
        masks=_bids_masks(folder, stem),
        registration=folder / f"{stem}_reg",
    )


def _masks(folder: Path, stem: str) -> dict[str, Path]:
    return {name: folder / f"{stem}_{name}.nii.gz" for name in BIDS_MASKS}


def _bids_masks(folder: Path, stem: str) -> dict[str, Path]:
    base, _, contrast = stem.rpartition("_")
    if not base.startswith("sub-") or not contrast.isalnum():
        return _masks(folder, stem)
    return {name: folder / f"{base}_space-{contrast}_{end}.nii.gz" for name, end in BIDS_MASKS.items()}
