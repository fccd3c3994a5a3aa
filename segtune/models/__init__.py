"""Models: backbones, decoders, taps, checkpoints."""
