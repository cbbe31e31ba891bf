"""Arguments of the commands of ``sct_deepspine_masks``."""

from __future__ import annotations

from sct_deepspine.cli._common import Arguments
from sct_deepspine.cli._runs import add_run

__all__ = ["DESCRIPTION", "PROGRAM", "evaluate_parser", "predict_parser", "prepare_parser", "train_parser"]

PROGRAM = "sct_deepspine_masks"

DESCRIPTION = """\
Segment images by U-Net, BCDU-Net or MCGU-Net. Each command prints its own help with -h:

  prepare   Convert a public dataset, as downloaded, to a folder of images and masks
  train     Train a network on a folder of images and masks
  evaluate  Score a network on the subjects of the folder that it was not trained on
  predict   Predict the masks of images

Such a folder holds images/ and masks/ with files of the same names: PNG, TIFF, JPEG, BMP, GIF, NPY or
NIfTI. The values of the masks are the classes; the smallest one is the background. It may hold fov/, masks
of the field of view outside which nothing counts, and subjects.csv with the columns name and subject.
"""

TRAIN = """\
Train a network on a folder of images and masks. The subjects are split: by -split, by the folder's own
split.json, or else at random, 70 % training, 10 % validation and 20 % test.

Writes to the folder given by -ofolder: config.json, split.json, log.csv, last.safetensors (to resume from),
best.safetensors (the lowest validation loss), validation_STEP.png, convergence.gif, convergence.png, and
weights.safetensors with its card.
"""

EVALUATE = """\
Score a network on the test subjects of its run: F1, sensitivity, specificity, accuracy, precision, Jaccard
index (intersection over union) and the area under the curve, over all pixels and averaged over images, with
95 % bootstrap intervals over subjects. Pixels outside the field of view don't count.
"""

PREDICT = """\
Predict the mask of an image, or of every image of a folder. A mask has the name of its image and the values
of the training masks: a PNG file for a picture, NIfTI in the same grid for NIfTI, NPY for NPY.
"""

PREPARE = """\
Convert a public dataset, as unpacked, to a folder of images and masks:

  skin    ISIC 2018, task 1: ISIC2018_Task1-2_Training_Input and ISIC2018_Task1_Training_GroundTruth;
          resized to 256 x 256 pixels
  retina  DRIVE: training and test, each with images, 1st_manual and mask; grey, full range, CLAHE, gamma,
          with the fields of view and the official split
  lung    "Finding lungs in CT data" of Kaggle: 2d_images and 2d_masks; clipped to -512 to 512 HU, slices
          without lung left out, with the subjects
"""

PARTS = "train", "val", "test", "all"


def train_parser() -> Arguments:
    """Return the arguments to train a network."""
    parser = Arguments(f"{PROGRAM} train", TRAIN, f"{PROGRAM} train -i folder -ofolder run")
    parser.mandatory.add_argument("-i", metavar="FOLDER", required=True, help="Folder of images and masks")
    parser.mandatory.add_argument("-ofolder", metavar="DIR", required=True, help="Folder to write to")
    add = parser.optional.add_argument
    add("-split", metavar="JSON", help='Subjects: {"train": […], "val": […], "test": […]}')
    _add_subject(parser)
    add("-patch", type=int, metavar="N", help="Train on patches of N x N pixels. Default: whole images")
    add(
        "-standardise",
        choices=("training", "image"),
        default="training",
        help="Mean 0 and deviation 1 over all training images, or over each image. Default: training",
    )
    add(
        "-augment",
        type=int,
        choices=(0, 1),
        default=0,
        help="Flip images, and turn square ones by quarters. Default: 0",
    )
    add("-network", choices=("unet", "bcdunet", "mcgunet"), default="bcdunet", help="Default: bcdunet")
    add("-width", type=int, default=16, metavar="N", help="Features at full resolution. Default: 16")
    add("-dense", type=int, metavar="N", help="Densely connected blocks; not of a U-Net. Default: 3")
    add(
        "-directions",
        type=int,
        choices=(1, 2),
        help="Directions of the convolutional LSTMs; not of a U-Net. Default: 2",
    )
    add(
        "-encoder",
        metavar="FILE",
        help="Start the encoder of an MCGU-Net of width 64 from VGG-16, as torchvision names its weights",
    )
    add_run(parser, batch=8, steps=2000, evaluate_every=200, workers=0)
    add("-resume", type=int, choices=(0, 1), default=0, help="Resume from last.safetensors. Default: 0")
    return parser


def evaluate_parser() -> Arguments:
    """Return the arguments to score a network."""
    parser = Arguments(
        f"{PROGRAM} evaluate", EVALUATE, f"{PROGRAM} evaluate -i folder -weights run/weights.safetensors"
    )
    parser.mandatory.add_argument("-i", metavar="FOLDER", required=True, help="Folder of images and masks")
    _add_weights(parser)
    add = parser.optional.add_argument
    add(
        "-part",
        choices=PARTS,
        default="test",
        help="Part of the split.json beside the weights; all: every image of the folder, whatever the split. "
        "Default: test",
    )
    _add_subject(parser)
    _add_stride(parser)
    add("-ofolder", metavar="DIR", help="Write scores.csv, and a picture of the best and the worst images")
    add("-seed", type=int, default=0, metavar="N", help="Seed of the bootstrap. Default: 0")
    return parser


def predict_parser() -> Arguments:
    """Return the arguments to predict masks."""
    parser = Arguments(
        f"{PROGRAM} predict",
        PREDICT,
        f"{PROGRAM} predict -i image.png -weights run/weights.safetensors -ofolder out",
    )
    parser.mandatory.add_argument(
        "-i", metavar="PATH", required=True, help="An image, a folder of images, or one that holds images/"
    )
    _add_weights(parser)
    parser.mandatory.add_argument("-ofolder", metavar="DIR", required=True, help="Folder to write to")
    _add_stride(parser)
    return parser


def prepare_parser() -> Arguments:
    """Return the arguments to prepare a public dataset."""
    parser = Arguments(f"{PROGRAM} prepare", PREPARE, f"{PROGRAM} prepare retina -i DRIVE -ofolder folder")
    add = parser.mandatory.add_argument
    add("task", choices=("skin", "retina", "lung"), help="Which dataset")
    add("folder", help="Where it is unpacked")
    add("-ofolder", metavar="DIR", required=True, help="Folder to write to; it must be new or empty")
    parser.optional.add_argument(
        "-size", type=int, metavar="N", help="Side in pixels. Default: 256 for skin, as they are for lung"
    )
    return parser


def _add_weights(parser: Arguments) -> None:
    parser.mandatory.add_argument("-weights", metavar="FILE", required=True, help="Weights (.safetensors)")
    parser.optional.add_argument(
        "-device",
        metavar="D",
        help="Run the network with torch on this device. Default: onnxruntime if it can, on the CPU",
    )


def _add_stride(parser: Arguments) -> None:
    parser.optional.add_argument(
        "-stride", type=int, metavar="N", help="Pixels from patch to patch. Default: half a patch"
    )


def _add_subject(parser: Arguments) -> None:
    parser.optional.add_argument(
        "-subject",
        metavar="REGEX",
        help="Regular expression whose group is the subject, looked for in names: '(ID_[0-9]+)'. "
        "Default: subjects.csv, sub-… at the start of a name, or else each image is a subject",
    )
