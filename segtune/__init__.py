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
    overlap: float | None = None,
    flips: bool = False,
    scales: tuple[float, ...] | list[float] = (1.0,),
    clean: dict[str, float | bool] | None = None,
    device: str = "auto",
    precision: "Precision" = "auto",
) -> "Predictor":
    """Load a trained model to predict with.

    Example:
        >>> import numpy as np, segtune
        >>> from PIL import Image
        >>> model = segtune.load("runs/NAME/checkpoints/best.pt")
        >>> image = np.array(Image.open("photo.jpg").convert("RGB"))
        >>> mask, probability = model.predict(image)  # bool and float32, as large as the image

    Args:
        path: A checkpoint, or an ONNX file that `python -m segtune export` made of it.
        size: Height and width to which a whole image is resized for the network, or the side of a square.
        threshold: Probability above which a pixel is foreground; None: as in training.
        tile: Side in pixels of the window for sliding-window inference at the image's own size. With neither `size`
            nor `tile` images are predicted as in the validation of the training run.
        overlap: Fraction of a window that its neighbour covers too, 0 to 0.5; None: as in validation.
        flips: Test-time augmentation: average over the image and its mirror image.
        scales: Test-time augmentation: average over these multiples of the input size.
        clean: What is corrected in masks, such as {"min_area": 400, "fill_holes": True, "largest": True}; see
            docs/predict.md.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`; `auto` is the fastest on the device.

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
        clean=clean,
        device=device,
        precision=precision,
    )
