"""The places of a model's boxes: orders drawn by hand, and what must hold for every graph."""

from itertools import combinations

import numpy as np
import pytest

from segtune.models.model_graph import Node
from segtune.reporting.model_layout import Box, decoder_rows, lanes, lay_out, skips, spread, text_lines

COUNTS = {"weight": 1200, "bias": 34}


def node(kind: str, name: str, side: int, *inputs: int) -> Node:
    return Node(kind, name, "Conv2d" if kind == "module" else "", (3, side, side), (), list(inputs))  # type: ignore[arg-type]


FCN = [
    node("image", "image", 64),
    node("block", "one", 16, 0),
    node("block", "two", 8, 1),
    node("tap", "low", 16, 1),
    node("tap", "high", 8, 2),
    node("module", "score_low", 16, 3),
    node("module", "score_high", 8, 4),
    node("module", "upsample", 16, 6),
    node("operation", "add", 16, 5, 7),
    node("logits", "logits", 64, 8),
]


def random_graph(seed: int) -> list[Node]:
    """Return a graph with some blocks and taps, and a decoder whose nodes read any earlier ones."""
    generator = np.random.default_rng(seed)
    nodes = [node("image", "image", 64)]
    blocks = [1 + n for n in range(generator.integers(1, 6))]
    nodes += [node("block", f"b{n}", 64 // n, *{n - 1, generator.integers(n)}) for n in blocks]
    taps = [len(nodes) + n for n in range(generator.integers(1, 5))]
    nodes += [node("tap", f"t{n}", 8, int(generator.choice(blocks))) for n in taps]
    unread = list(taps)
    for _ in range(generator.integers(1, 12)):
        known = range(taps[0], len(nodes))
        inputs = {unread[0], *map(int, generator.choice(known, 2))} if unread else {known[-1], int(known[0])}
        unread = [n for n in unread if n not in inputs] + [len(nodes)]
        kind = generator.choice(["module", "operation"])
        inputs = set() if generator.random() < 0.1 and len(unread) > 1 else inputs  # learned values
        nodes.append(node(kind, "part" * generator.integers(1, 9), int(2 ** generator.integers(2, 6)), *inputs))
    return [*nodes, node("logits", "logits", 64, *unread)]


def test_the_coarse_stands_below_the_fine_and_a_chain_together() -> None:
    rows = decoder_rows(FCN)
    assert [FCN[n].name for n in rows] == ["score_high", "upsample", "score_low", "add", "logits"]
    assert [lanes(FCN, rows)[n] for n in rows] == [0, 0, 1, 0, 0]
    same = [
        *FCN[:5],
        node("module", "project", 16, 3),
        node("module", "aspp", 16, 4),
        node("logits", "logits", 64, 5, 6),
    ]
    assert [same[n].name for n in decoder_rows(same)] == ["aspp", "project", "logits"]


@pytest.mark.parametrize("seed", range(20))
def test_lines_pass_no_box(seed: int) -> None:
    nodes = random_graph(seed)
    rows = decoder_rows(nodes)
    lane = lanes(nodes, rows)
    assert sorted(rows) == [n for n, each in enumerate(nodes) if each.kind in ("module", "operation", "logits")]
    for place, n in enumerate(rows):
        for m in set(nodes[n].inputs) & set(rows):
            assert rows.index(m) < place
            assert lane[m] not in [lane[between] for between in rows[rows.index(m) + 1 : place]]


def apart(one: Box, other: Box) -> bool:
    beside = one.right <= other.left or other.right <= one.left
    return beside or abs(one.y - other.y) >= (one.height + other.height) / 2


@pytest.mark.parametrize("seed", range(20))
def test_boxes_are_apart_and_inside(seed: int) -> None:
    nodes = random_graph(seed)
    layout = lay_out(nodes, COUNTS, phases=3, top=1)
    assert sorted(layout.boxes) == list(range(len(nodes)))
    assert all(apart(one, other) for one, other in combinations(layout.boxes.values(), 2))
    for box in layout.boxes.values():
        assert 0 < box.left < box.right < layout.width
        assert 1 <= box.top <= box.y - box.height / 2 < box.y + box.height / 2 <= box.bottom <= layout.height + 1e-9
    decoder = [layout.boxes[n] for n in decoder_rows(nodes)]
    for box in decoder:  # a line up from it passes beside the boxes of the other lanes
        assert not any(each.left < box.x < each.right for each in decoder if each.lane != box.lane)


def test_what_stands_in_a_box() -> None:
    nodes = [*FCN[:5], Node("module", "decoder.score", "Conv2d", (1, 8, 8), ("weight", "bias"), [4])]
    nodes.append(node("logits", "logits", 64, 5))
    nodes[4].label = "block2.conv"
    assert [text_lines(nodes, COUNTS, n) for n in (0, 4, 5, 6)] == [
        ["image", "3 x 64 x 64"],
        ["high: block2.conv", "3 x 8 x 8"],
        ["score: Conv2d", "1 x 8 x 8, 1,234 parameters"],
        ["logits", "3 x 64 x 64, resized from 1 x 8 x 8"],
    ]
    nodes[-1].shape = (1, 8, 8)
    assert text_lines(nodes, COUNTS, 6) == ["logits", "1 x 8 x 8"]
    assert text_lines(FCN, COUNTS, 8) == ["add  3 x 16 x 16"]


def test_edges_between_blocks_that_are_not_neighbours() -> None:
    nodes = [*FCN[:2], node("block", "two", 8, 0, 1), node("block", "three", 8, 2, 1)]
    assert skips(nodes, range(4)) == [(0, 2), (1, 3)]


def test_a_length_is_divided_in_proportion() -> None:
    assert spread([1, 2, 1], 10, 8) == [(10, 12), (12, 16), (16, 18)]
