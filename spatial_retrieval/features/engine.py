"""What computes a model's feature maps: torch, or ONNX Runtime on processors.

ONNX Runtime (https://onnxruntime.ai) takes the backbone alone, which is where the time goes; what
follows stays in torch. The model that comes out is used like any other and has the same
fingerprint, as its descriptors are the same (cosine ≥ 0.99999, checked).
"""

import copy
import io
import logging
import warnings
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from spatial_retrieval.models import RetrievalModel
from spatial_retrieval.models.backbone import Backbone

__all__ = ["ENGINES", "with_engine"]

ENGINES = ("auto", "torch", "onnx")
_LOG = logging.getLogger(__name__)
_SHAPES = ((1, 3, 192, 256), (2, 3, 224, 160), (1, 3, 97, 131))  # compared with torch
_AGREES = 0.99999  # cosine of descriptors
_TIMED = (1, 3, 320, 480)


def with_engine(model: RetrievalModel, engine: str = "auto") -> RetrievalModel:
    """The same model with its backbone computed by an engine; weights are shared.

    Args:
        model: on a processor, for ONNX.
        engine: "torch"; "onnx"; or "auto": ONNX where it is installed, can take the model,
            agrees and is faster, which takes a second or two to find out.

    Raises:
        ValueError: if ``engine`` is none of these, or is "onnx" and the model can't run on it.
        ImportError: if it is "onnx" and that isn't installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"expected an engine among {', '.join(ENGINES)}, got {engine!r}")
    if engine == "torch" or (engine == "auto" and not _fits(model)):
        return model
    try:
        fast = _on_onnx(model)
        _check_agreement(model, fast)
    except Exception as error:  # exporters fail in ways of their own
        if engine == "onnx":
            if isinstance(error, ImportError):
                raise ImportError(f"ONNX: {error}; pip install spatial-retrieval[onnx]") from error
            raise ValueError(f"this model can't run on ONNX Runtime ({error})") from error
        _LOG.info("torch computes this model (%s)", error)
        return model
    return fast if engine == "onnx" or _seconds(fast) < _seconds(model) else model


class OnnxBackbone(Backbone):
    """A backbone whose network runs on ONNX Runtime, one core a call.

    Args:
        backbone: whose network it is; its weights stay the torch ones as well.
    """

    def __init__(self, backbone: Backbone) -> None:
        nn.Module.__init__(self)
        self.__dict__.update({k: v for k, v in backbone.__dict__.items() if k != "training"})
        self._modules, self._buffers = dict(backbone._modules), dict(backbone._buffers)
        self._plain = [backbone]  # in a list: not a second copy in the state
        self._sessions: dict[tuple[str, ...], Any] = {}

    def _single_maps(self, images: Tensor, layers: set[str]) -> dict[str, Tensor]:
        names = tuple(sorted(layers))
        if names not in self._sessions:
            self._sessions[names] = _session(_Maps(self._plain[0], names))
        maps = self._sessions[names].run(None, {"images": images.contiguous().numpy()})
        return {name: torch.from_numpy(x) for name, x in zip(names, maps, strict=True)}


class _Maps(nn.Module):
    """(B, 3, h, w) → the maps of some layers."""

    def __init__(self, backbone: Backbone, names: tuple[str, ...]) -> None:
        super().__init__()
        self.backbone, self.names = backbone, names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone._single_maps(images, set(self.names))
        return tuple(maps[name] for name in self.names)


def _session(module: nn.Module) -> Any:
    """Export a module and open it in ONNX Runtime."""
    import onnxruntime

    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # sizes become constants, says the tracer: it is checked
        torch.onnx.export(
            module.eval(),
            (torch.rand(1, 3, 224, 160),),
            file,
            input_names=["images"],
            dynamic_axes={"images": {0: "b", 2: "h", 3: "w"}},
            dynamo=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )


def _fits(model: RetrievalModel) -> bool:
    return model.device.type == "cpu" and model.dtype == torch.float32


def _on_onnx(model: RetrievalModel) -> RetrievalModel:
    import onnxruntime  # noqa: F401 (so that its lack is told at once)

    if not _fits(model):
        raise ValueError(f"expected float32 on a processor, got {model.dtype} on {model.device}")
    fast = copy.copy(model)
    fast._modules = dict(model._modules)
    fast.backbone = OnnxBackbone(model.backbone)
    return fast.eval()


@torch.inference_mode()
def _check_agreement(model: RetrievalModel, fast: RetrievalModel) -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in _SHAPES:
        images = torch.rand(shape, generator=generator)
        lowest = float((model(images) * fast(images)).sum(dim=1).min())
        if not lowest >= _AGREES:
            raise ValueError(f"its descriptors differ: cosine {lowest:.6f} at {shape}")


@torch.inference_mode()
def _seconds(model: RetrievalModel) -> float:
    """The shorter of two runs on one core."""
    threads, images, times = torch.get_num_threads(), torch.rand(_TIMED), []
    torch.set_num_threads(1)
    try:
        for _ in range(3):
            start = perf_counter()
            model(images)
            times.append(perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return min(times[1:])
