"""Make the references that ship, src/fewstep/assets/*-reference.safetensors: ship_references.py FOLDER.

The folder holds mnist-test.parquet and cifar10-test.parquet, the test pictures of the data sets.
"""

import sys
from pathlib import Path

from fewstep.networks.features import load_features
from fewstep.networks.reference import ASSETS, SUFFIX, write_reference
from fewstep.training.data import read_images


def main(folder: str) -> None:
    for name in ("mnist", "cifar10"):
        images, labels = read_images(Path(folder) / f"{name}-test.parquet")
        features = load_features(name)(images.float() / 127.5 - 1)
        write_reference(ASSETS / f"{name}{SUFFIX}.safetensors", features, labels)


if __name__ == "__main__":
    main(*sys.argv[1:])
