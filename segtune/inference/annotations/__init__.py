"""Predictions as the annotations of other tools, one file per format."""
