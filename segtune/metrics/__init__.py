"""Metrics, pure."""
