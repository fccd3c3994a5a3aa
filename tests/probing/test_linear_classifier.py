"""Moments against NumPy, the discriminant against least squares."""

import numpy as np
import pytest
import torch
from torch import Tensor

from segtune.probing.linear_classifier import Moments, discriminant


def moments_of(parts: list[dict[str, Tensor]]) -> Moments:
    moments, names = Moments(), sorted(parts[0])
    for part in parts:
        moments.count += len(part[names[0]])
        moments.add(part, names, [(a, b) for a in names for b in names if a <= b])
    return moments


def test_moments_over_parts_are_those_of_the_whole() -> None:
    whole = {"a": torch.randn(60, 3), "b": torch.randn(60, 2) + 5}
    parts = [{name: values[n : n + 20] for name, values in whole.items()} for n in (0, 20, 40)]
    together = np.concatenate([whole["b"].numpy(), whole["a"].numpy()], axis=1)
    moments = moments_of(parts)
    np.testing.assert_allclose(moments.mean(("b", "a")), together.mean(0), atol=1e-5)
    np.testing.assert_allclose(moments.covariance(("b", "a")), np.cov(together.T, bias=True), atol=1e-4)


def test_the_discriminant_is_the_direction_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(4, 4))
    classes = [rng.normal(size=(500, 4)) @ mixing + shift for shift in (0, [1, 0, -2, 3])]
    parts = [{"a": torch.tensor(values[:, :2]).float(), "b": torch.tensor(values[:, 2:]).float()} for values in classes]
    found = discriminant(*(moments_of([part]) for part in parts), ("a", "b"), ridge=1e-9)
    x = np.concatenate(classes)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    expected = np.linalg.lstsq(x, np.repeat([-1.0, 1.0], 500), rcond=None)[0][:4]
    direction = torch.cat([found.weights["a"], found.weights["b"]]).numpy()
    assert direction @ expected / np.linalg.norm(direction) / np.linalg.norm(expected) == pytest.approx(1, abs=1e-6)
    scores = [values @ direction + found.offset for values in classes]
    assert scores[0].mean() == pytest.approx(-scores[1].mean())
    assert scores[1].mean() > 0
    assert found.spread == pytest.approx(np.sqrt((scores[0].var() + scores[1].var()) / 2), rel=1e-4)


def test_the_discriminant_does_not_depend_on_the_scale_of_a_channel() -> None:
    torch.manual_seed(0)
    classes = [torch.randn(200, 3), torch.randn(200, 3) + torch.tensor([1.0, 2, 0])]
    scale = torch.tensor([1e3, 1e-3, 1.0])
    plain, scaled = (
        discriminant(*(moments_of([{"a": values * factor}]) for values in classes), ("a",), ridge=0.5)
        for factor in (1.0, scale)
    )
    torch.testing.assert_close(scaled.weights["a"] * scale, plain.weights["a"], rtol=1e-3, atol=1e-4)


def test_a_channel_that_never_varies_is_left_alone() -> None:
    classes = [torch.cat([torch.randn(50, 1) + shift, torch.full((50, 1), 7.0)], dim=1) for shift in (0, 3)]
    found = discriminant(*(moments_of([{"a": values}]) for values in classes), ("a",), ridge=0.01)
    assert torch.isfinite(found.weights["a"]).all()
    assert found.weights["a"][1] == 0
