"""The decoders: from tapped features to a mask. Each sees features with their channels and strides, nothing else."""
