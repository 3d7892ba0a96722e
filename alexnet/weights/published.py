"""Weights that others have published: where they are, what their checksums are, and what they were reported to reach.

They are kept where torch.hub keeps its own (TORCH_HOME, or XDG_CACHE_HOME/torch, then hub/checkpoints), so that a file
that torchvision fetched is not fetched again.
"""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path

import torch

from alexnet.data.downloads import Download, fetch
from alexnet.data.preparation import Reporter
from alexnet.errors import UserError
from alexnet.runtime.files import write_atomically

_CAFFE = "http://dl.caffe.berkeleyvision.org"
_FOLDER = "set TORCH_HOME to a folder with more"
_LARGEST_MEAN = 10_000_000
_CAFFES_PROTOCOL = "ILSVRC-2012 validation, squashed to 256 x 256, centre crop 227"


@dataclass(frozen=True)
class Published:
    """One set of published weights."""

    name: str
    variant: str
    download: Download
    reported: str
    """The result as its authors give it, with its protocol; not measured here."""
    terms: str
    needs_caffes_mean: bool = False

    def describe(self) -> dict[str, str]:
        """What a checkpoint of these weights says about them."""
        return {"name": self.name, "url": self.download.url, "reported": self.reported, "terms": self.terms}


PUBLISHED = {
    weights.name: weights
    for weights in (
        Published(
            name="IMAGENET1K_V1",
            variant="torchvision",
            # The address and the first digits of the sum are torchvision's; length and sum are of that file.
            download=Download(
                "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
                244_408_911,
                sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            ),
            reported="ILSVRC-2012 validation, resize 256, centre crop 224: accuracy 56.522 % top-1, 79.066 % top-5",
            terms="torchvision's BSD licence; trained on ImageNet",
        ),
        Published(
            name="bvlc_alexnet",
            variant="caffe",
            # Sums of both files as in their readme.md.
            download=Download(f"{_CAFFE}/bvlc_alexnet.caffemodel", sha1="9116a64c0fbe4459d18f4bb6b56d647b63920377"),
            reported=f"{_CAFFES_PROTOCOL}: accuracy 57.1 % top-1, 80.2 % top-5",
            terms="released by its authors for unrestricted use",
            needs_caffes_mean=True,
        ),
        Published(
            name="bvlc_reference_caffenet",
            variant="caffenet",
            download=Download(
                f"{_CAFFE}/bvlc_reference_caffenet.caffemodel", sha1="4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46"
            ),
            reported=f"{_CAFFES_PROTOCOL}: accuracy 57.4 % top-1, 80.4 % top-5",
            terms="released by its authors for unrestricted use",
            needs_caffes_mean=True,
        ),
    )
}
# Caffe's mean image is in an archive with its lists. The sum of the image is that of MXNet's table of Caffe's models.
_MEAN_ARCHIVE = Download(f"{_CAFFE}/caffe_ilsvrc12.tar.gz")
_MEAN_NAME, _MEAN_SHA1 = "imagenet_mean.binaryproto", "63e4652e656abc1e87b7a8339a7e02fca63a2c0c"


def find_published(name: str, variant: str | None = None) -> Published | None:
    """The published weights of that name, as torchvision and Caffe call them; None without.

    "AlexNet_Weights.IMAGENET1K_V1" and "torchvision" are IMAGENET1K_V1; "DEFAULT" is the best of the variant.
    """
    name = name.removeprefix("AlexNet_Weights.")
    if name in ("DEFAULT", "torchvision"):
        wanted = variant or "torchvision"
        return next((weights for weights in PUBLISHED.values() if weights.variant == wanted), None)
    return PUBLISHED.get(name)


def cache_folder() -> Path:
    """Where fetched weights are kept."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def fetch_weights(published: Published, reporter: Reporter) -> Path:
    """The file with the weights: from the cache, or else from its address. Raises UserError where neither can be."""
    return fetch(published.download, cache_folder(), reporter, elsewhere=_FOLDER)


def fetch_caffes_mean(reporter: Reporter) -> Path:
    """Caffe's mean image of ILSVRC-2012: from the cache, or else out of the archive at its address.

    Raises UserError where neither can be, and for another image.
    """
    path = cache_folder() / _MEAN_NAME
    if path.is_file():
        _check_mean(path.read_bytes() if path.stat().st_size < _LARGEST_MEAN else b"", path)
        return path
    try:
        archive = fetch(_MEAN_ARCHIVE, cache_folder(), reporter, elsewhere=_FOLDER)
    except UserError as error:
        raise UserError(
            f"{error} Its {_MEAN_NAME} alone, in the same folder, does as well; or give a mean by --mean, such as "
            "--mean 104,117,123."
        ) from None
    contents = _member(archive)
    _check_mean(contents, archive)
    write_atomically(path, lambda file: file.write(contents))
    return path


def _member(archive: Path) -> bytes:
    """The mean image in Caffe's archive."""
    try:
        with tarfile.open(archive, "r|gz") as members:
            for member in members:
                if member.name.removeprefix("./") == _MEAN_NAME and member.size < _LARGEST_MEAN:
                    file = members.extractfile(member)
                    return b"" if file is None else file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{archive} is damaged ({error}): delete it, and give the same command again.") from None
    raise UserError(f"{archive} has no {_MEAN_NAME}: delete it, and give the same command again.")


def _check_mean(contents: bytes, path: Path) -> None:
    found = hashlib.sha1(contents, usedforsecurity=False).hexdigest()
    if found != _MEAN_SHA1:
        raise UserError(
            f"{path} does not hold Caffe's mean image of ILSVRC-2012 (sha1 {found}, official {_MEAN_SHA1}): delete it, "
            "and give the same command again."
        )
