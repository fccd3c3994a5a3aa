"""Images and masks: sources, splits, checks, data set, loader."""
