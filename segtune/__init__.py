"""segtune: fine-tune a pretrained backbone for binary segmentation."""

from segtune.version import __version__ as __version__

TYPE_CHECKING = False  # as in typing, which `import segtune` does not need
if TYPE_CHECKING:
    from segtune.inference.predictor import File, Precision, Predictor

__all__ = ["__version__", "load"]


def load(
    path: "File",
    *,
    size: int | tuple[int, int] | list[int] | None = None,
    threshold: float | None = None,
    tile: int | None = None,
    overlap: float = 0.25,
    flips: bool = False,
    scales: tuple[float, ...] | list[float] = (1.0,),
    device: str = "auto",
    precision: "Precision" = "auto",
) -> "Predictor":
    """Load a trained model to predict with.

    Example:
        >>> import numpy as np, segtune
        >>> from PIL import Image
        >>> model = segtune.load("runs/NAME/checkpoints/best.pt")
        >>> photo = np.array(Image.open("photo.jpg").convert("RGB"))
        >>> mask, probability = model.predict(photo)  # bool and float32, as large as the photo

    Args:
        path: A checkpoint, or what `python -m segtune export` made of it as ONNX.
        size: What the network sees, a side or (height, width); as in the evaluation of its training if None.
        threshold: Probability above which a pixel is object; as in training if None.
        tile: Predict at the photo's own size, in tiles of this side in pixels; whole photos at `size` if None.
        overlap: Share of a tile that its neighbour covers too, 0 to 0.5.
        flips: Average over the mirror image too.
        scales: Average over these multiples of the size.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`; `auto` is what is fastest on the device.

    Raises:
        segtune.errors.UserError: The file or an argument cannot be used.
    """
    from segtune.inference.predictor import load  # PyTorch takes seconds to import

    return load(
        path,
        size=size,
        threshold=threshold,
        tile=tile,
        overlap=overlap,
        flips=flips,
        scales=scales,
        device=device,
        precision=precision,
    )
