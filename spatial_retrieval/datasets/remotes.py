"""Where the data sets are: the addresses of the official code, with mirrors that were found."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["DATASETS", "Remote"]

Unpacking = Literal["none", "tree", "flat images"]


@dataclass(frozen=True, slots=True)
class Remote:
    """One file of a data set.

    Attributes:
        file: its name here.
        urls: where it is, best first.
        sha256: of its bytes; None where no one publishes it.
        unpack: "tree" keeps the archive's folders, "flat images" puts every .jpg into one folder.
        into: sub-folder for what it unpacks.
    """

    file: str
    urls: tuple[str, ...]
    sha256: str | None = None
    unpack: Unpacking = "none"
    into: str = "."


_VGG = ("https://www.robots.ox.ac.uk/~vgg/data", "https://thor.robots.ox.ac.uk")
_CMP = ("http://ptak.felk.cvut.cz", "http://cmp.felk.cvut.cz")


def _vgg(folder: str, file: str) -> Remote:
    urls = tuple(f"{host}/{folder}/{file}" for host in _VGG)
    return Remote(file, urls, unpack="flat images", into="jpg")


def _cmp(path: str, sha256: str | None = None, **unpacking: str) -> Remote:
    urls = tuple(f"{host}/{path}" for host in _CMP)
    return Remote(path.rsplit("/", 1)[1], urls, sha256, **unpacking)  # type: ignore[arg-type]


def _gldv2(path: str, **unpacking: str) -> Remote:
    url = f"https://s3.amazonaws.com/google-landmark/{path}"
    return Remote(path.rsplit("/", 1)[1], (url,), **unpacking)  # type: ignore[arg-type]


# the two known sums are those of the ground truth files that the tests read
DATASETS: dict[str, tuple[Remote, ...]] = {
    "roxford5k": (
        _cmp(
            "revisitop/data/datasets/roxford5k/gnd_roxford5k.pkl",
            "ba7967754bd2d7d2210a5799f9c45ad5835e269a80ef9d3eba44caa35816c471",
        ),
        _vgg("oxbuildings", "oxbuild_images-v1.tgz"),
    ),
    "rparis6k": (
        _cmp(
            "revisitop/data/datasets/rparis6k/gnd_rparis6k.pkl",
            "d2e729a5293dda7dda8a15c8383424a42e4964a2c4cfea2f32fa85d11d2df499",
        ),
        _vgg("parisbuildings", "paris_1-v1.tgz"),
        _vgg("parisbuildings", "paris_2-v1.tgz"),
    ),
    "revisitop1m": (
        _cmp("revisitop/revisitop1m/revisitop1m.txt"),
        *(
            _cmp(f"revisitop/revisitop1m/jpg/revisitop1m.{i}.tar.gz", unpack="tree", into="jpg")
            for i in range(1, 101)
        ),
    ),
    "sfm120k": (
        _cmp("cnnimageretrieval/data/train/dbs/retrieval-SfM-120k.pkl"),
        _cmp("cnnimageretrieval/data/train/dbs/retrieval-SfM-120k-whiten.pkl"),
        _cmp("cnnimageretrieval/data/train/ims/ims.tar.gz", unpack="tree", into="ims"),
    ),
    "gldv2-clean": (
        _gldv2("metadata/train_clean.csv"),
        *(_gldv2(f"train/images_{i:03d}.tar", unpack="tree", into="train") for i in range(500)),
    ),
    # a .rar, which Python cannot unpack
    "pixel-retrieval": (
        Remote(
            "pixel_retrieval_benchmarks.rar",
            ("https://sgvr.kaist.ac.kr/~guoyuan/Segment_retrieval/pixel_retrieval_benchmarks.rar",),
        ),
    ),
}
