"""segtune: fine-tune a pretrained backbone for binary segmentation."""

__version__ = "0.1.0"
