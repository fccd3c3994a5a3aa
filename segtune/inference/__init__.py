"""Inference with a trained model: predictor, test-time augmentation, sliding window, video, export."""
