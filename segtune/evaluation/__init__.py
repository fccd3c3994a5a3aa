"""Evaluation: computes, writes no file."""
