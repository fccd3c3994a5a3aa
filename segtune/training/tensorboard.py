"""The TensorBoard files of a run."""

from collections.abc import Mapping
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from segtune.data.overlays import RGBImage, jpeg
from segtune.training.run_folder import as_yaml
from segtune.training.tracker import Start, Status


class TensorBoard:
    """What a run shows in TensorBoard: by epoch in `tensorboard/`, by optimizer step in `tensorboard/steps/`.

    Two folders, because what a resume takes back counts for all of a folder. What it is told is in the files when a
    method returns, whatever comes then. Settings and layers stand there once, however often the run resumes.
    """

    takes_back = True

    def __init__(self, start: Start) -> None:
        """Begin new files in a run's folder, which take back what earlier ones hold beyond its epochs and steps."""
        self.kept: Mapping[str, str] = {}
        place = start.folder / "tensorboard"
        is_new = not any(place.glob("*tfevents*"))
        self.by_epoch = SummaryWriter(str(place), purge_step=start.epochs + 1)
        self.by_step = SummaryWriter(str(place / "steps"), purge_step=start.steps + 1)
        if is_new:
            self.by_epoch.add_text("model", start.layers(), 0)
            self.by_epoch.add_text("settings", f"```yaml\n{as_yaml(start.settings)}```", 0)
            self.by_epoch.flush()

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of an optimizer step."""
        for tag, value in values.items():
            self.by_step.add_scalar(tag, value, step)
        self.by_step.flush()

    def epoch(self, epoch: int, step: int, values: Mapping[str, float], images: Mapping[str, RGBImage]) -> None:
        """Write the values and the sample images of an epoch."""
        for tag, value in values.items():
            self.by_epoch.add_scalar(tag, value, epoch)
        for name, image in images.items():
            summary = _image(f"samples/{name}", image)
            self.by_epoch._get_file_writer().add_summary(summary, epoch)  # type: ignore[no-untyped-call]
        self.by_epoch.flush()

    def end(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Close the files."""
        self.by_epoch.close()
        self.by_step.close()


def _image(tag: str, image: RGBImage) -> Summary:
    """Return an image as JPEG, which takes a fraction of the PNG that SummaryWriter would write."""
    height, width, _ = image.shape
    encoded = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=jpeg(image, quality=90))
    return Summary(value=[Summary.Value(tag=tag, image=encoded)])
