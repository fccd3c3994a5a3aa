"""Images and masks: sources, splits, checks, data set, loader."""

import os

# Otherwise albumentations looks for a newer version online, whenever a module of this package imports it first.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
