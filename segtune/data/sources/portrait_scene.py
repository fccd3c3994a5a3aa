"""The parts of a built-in scene: a canvas that draws image and mask together, shapes, and people.

All lengths are relative (image side, or half a head), so that a scene looks the same at every size. Colours are RGB in
0..1. Skin is face, ears, neck, shoulders, arms and hands and, as in masks drawn by hand, what lies within the face:
eyes, brows, mouth, frames of glasses. Hair, beards, dark glasses and clothes are not skin.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from segtune.data.sources.portrait_colours import HAIR_RGB, SHADE_OF_SKIN, Array, any_colour, cloth, noise, skin_tone


class Canvas:
    """An image and its mask, drawn together, larger than needed so that downscaling softens the edges.

    Colours are the first axis, `(3, side, side)`, which is several times faster in NumPy.

    Attributes: `rgb` is `(3, side, side)`, `skin` is `(side, side)` with 0 or 1, `light` points to the light, `mottle`
    and `strands` are the scene's textures of skin and hair, around 1.
    """

    def __init__(self, rgb: Array, rng: np.random.Generator) -> None:
        self.rgb, self.side = rgb, rgb.shape[1]
        self.skin = np.zeros(rgb.shape[1:], np.uint8)
        angle = rng.uniform(0, 2 * np.pi)
        self.light = math.cos(angle), math.sin(angle)
        self.mottle = 1 + 0.03 * noise(rng, self.side, 40, 40) + 0.02 * noise(rng, self.side, 160, 160)
        self.strands = 1 + 0.18 * noise(rng, self.side, 128, 10)

    def fill(
        self, outline: Array, paint: ArrayLike, *, skin: bool = False, relief: float = 0.0, pen: float = 0.0
    ) -> None:
        """Fill `outline` or, with `pen`, draw a line along it.

        Args:
            outline: Corners `(n, 2)` as x, y in pixels.
            paint: A colour `(3,)` or a surface `(3, side, side)`.
            skin: Whether the paint counts as skin.
            relief: 0..1, how round it looks: its far side is darker and it casts a soft shadow.
            pen: Line width in pixels, 0 to fill.
        """
        paint = np.asarray(paint, np.float32)
        low, high = outline.min(0) - pen, outline.max(0) + pen
        reach = int(max(2, 0.22 * min(high - low))) if relief else 0
        x0, y0 = np.maximum(np.floor(low) - 2 * reach, 0).astype(int)
        x1, y1 = np.minimum(np.ceil(high) + 2 * reach + 1, self.side).astype(int)
        if x0 >= x1 or y0 >= y1:
            return
        # The shape is drawn with a margin of `reach`, so that a shifted view of it stays inside.
        shape = np.zeros((y1 - y0 + 2 * reach, x1 - x0 + 2 * reach), np.uint8)
        corners = np.round((outline - (x0 - reach, y0 - reach)) * 16).astype(np.int32)
        if pen:
            cv2.polylines(shape, [corners], False, 1, max(1, round(pen)), shift=4)
        else:
            cv2.fillPoly(shape, [corners], 1, shift=4)

        def moved(frame: Array, steps: float) -> Array:
            """Return the shape moved towards the light by `steps` times `reach`, without the margin."""
            dx, dy = (reach + round(-steps * reach * toward) for toward in self.light)
            return frame[dy : dy + y1 - y0, dx : dx + x1 - x0]

        rgb, inside = self.rgb[:, y0:y1, x0:x1], moved(shape, 0).view(bool)
        colour = paint[:, y0:y1, x0:x1] if paint.ndim == 3 else paint[:, None, None]
        if relief:
            soft = cv2.blur(shape.astype(np.float32), (2 * reach + 1,) * 2, borderType=cv2.BORDER_REPLICATE)
            far = relief * (1 - moved(soft, 1))
            # Light scattered in skin is redder: its shaded side keeps more red.
            colour = colour * (1.08 - (np.multiply.outer(SHADE_OF_SKIN, far) if skin else far))
            rgb *= 1 - 0.4 * relief * moved(soft, -1)
        np.copyto(rgb, colour, where=inside)
        self.skin[y0:y1, x0:x1][inside] = skin


_ROUND = np.linspace(0, 1, 36)


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> Array:
    """Return points `(n, 2)` on an ellipse, by angle in degrees; 0 is right, 90 is down."""
    angle = math.radians(start) + math.radians(stop - start) * _ROUND
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1).astype(np.float32)


def limb(start: tuple[float, float], end: tuple[float, float], r0: float, r1: float) -> Array:
    """Return the outline `(n, 2)` of a stick with round ends that narrows from radius `r0` to `r1`."""
    ends = np.concatenate([ellipse(*start, r0, r0), ellipse(*end, r1, r1)])
    return cv2.convexHull(ends)[:, 0]


def smooth(corners: list[tuple[float, float]]) -> Array:
    """Return a closed outline `(n, 2)` with its corners cut three times (Chaikin's algorithm)."""
    points = np.array(corners, np.float32)
    for _ in range(3):
        after = np.roll(points, -1, 0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1).reshape(-1, 2)
    return points


class Person:
    """A person, drawn back to front; lengths in half heads, the origin in the middle of the face, y down."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator, place: tuple[float, float], scale: float) -> None:
        self.canvas, self.rng, self.scale = canvas, rng, scale
        self.place, self.lean = np.array(place), rng.normal(0, 0.12)
        self.tilt, self.yaw = self.lean + rng.normal(0, 0.15), rng.uniform(-0.7, 0.7)
        self.tone = skin_tone(rng)
        self.skin = self.tone[:, None, None] * canvas.mottle
        self.hair = self._hair_colour()[:, None, None] * canvas.strands
        self.cloth, self.extra = cloth(rng, canvas.side), any_colour(rng)
        self.head_wear = rng.choice(["none", "cap", "brim", "headscarf"], p=[0.8, 0.1, 0.06, 0.04])
        if self.head_wear != "none":
            self.extra = cloth(rng, canvas.side)
        self.sleeve = rng.choice(["long", "short", "none"], p=[0.45, 0.3, 0.25])
        self.wide = rng.uniform(0.7, 0.82)

    def _hair_colour(self) -> Array:
        if self.rng.random() < 0.06:
            return any_colour(self.rng, 0)
        # Fair and red hair are more frequent with light skin, as among people; grey occurs with all.
        weights = np.array([3, 3, 3, 2, 2, 1, 1, 0.6, 1, 0.7])
        weights[4:8] *= 2.5 if self.tone.mean() > 0.6 else 0.3
        natural: Array = self.rng.choice(HAIR_RGB, p=weights / weights.sum())
        return natural

    def _fill(
        self,
        outline: ArrayLike,
        paint: ArrayLike,
        skin: bool = False,
        *,
        head: bool = False,
        relief: float = 0,
        pen: float = 0,
    ) -> None:
        angle = self.tilt if head else self.lean
        c, s = np.cos(angle), np.sin(angle)
        placed = np.asarray(outline) @ np.array([[c, s], [-s, c]]) * self.scale + self.place
        self.canvas.fill(placed, paint, skin=skin, relief=relief, pen=pen * self.scale)

    def draw(self) -> None:
        """Draw the person."""
        style = self.rng.choice(["bald", "short", "long", "round", "bun"], p=[0.12, 0.36, 0.26, 0.16, 0.1])
        if self.head_wear != "headscarf":
            self._hair_behind(style)
        self._body()
        self._head()
        self._features()
        if style != "bald" and self.head_wear in ("none", "brim"):
            self._fill(self._crown(1.08, self.rng.uniform(-0.75, -0.4)), self.hair, head=True, relief=0.25)
        self._worn()
        for flip in (-1, 1):
            if self.rng.random() < 0.5:
                self._arm(flip)

    def _hair_behind(self, style: str) -> None:
        shapes = {
            "long": ellipse(0, self.rng.uniform(0.2, 0.6), self.wide + 0.25, self.rng.uniform(1.4, 1.8)),
            "round": ellipse(0, -0.35, self.wide + self.rng.uniform(0.2, 0.5), self.rng.uniform(0.9, 1.2)),
            "bun": ellipse(0, -1.15, 0.4, 0.35),
        }
        if style in shapes:
            self._fill(shapes[style], self.hair, head=True, relief=0.3)

    def _body(self) -> None:
        """Draw neck and trunk; a bare-shouldered trunk is skin with a top and straps over it."""
        rng, broad, thick = self.rng, self.rng.uniform(1.6, 2.1), self.rng.uniform(0.36, 0.48)
        trunk = smooth([(-0.4, 1.45), (-broad, 1.8), (-broad - 0.2, 2.6), (-1.5, 5), (-1.7, 14), (1.7, 14), (1.5, 5),
                        (broad + 0.2, 2.6), (broad, 1.8), (0.4, 1.45)])  # fmt: skip
        neck = limb((0, 0.6), (0, 1.6), thick, thick + 0.1)
        self.shoulder = broad - 0.15
        if self.sleeve == "none":
            self._fill(trunk, self.skin, True, relief=0.35)
            self._fill(neck, self.skin, True, relief=0.3)
            top = rng.uniform(2.3, 2.8)
            under = trunk[trunk[:, 1] > top]
            self._fill(cv2.convexHull(under)[:, 0], self.cloth, relief=0.3)
            for x in (-0.8, 0.8) if rng.random() < 0.7 else ():
                self._fill(limb((x, 1.62), (x, top + 0.1), 0.14, 0.16), self.cloth)
            return
        self._fill(trunk, self.cloth, relief=0.35)
        opening = ([(-0.6, 1.4), (0.6, 1.4), (0, rng.uniform(1.9, 2.6))] if rng.random() < 0.5
                   else ellipse(0, 1.5, 0.62, rng.uniform(0.25, 0.6)))  # fmt: skip
        self._fill(opening, self.skin, True)
        self._fill(neck, self.skin, True, relief=0.3)

    def _head(self) -> None:
        if self.head_wear == "headscarf":
            self._fill(limb((0, 0), (0, 1.5), self.wide + 0.35, 0.8), self.extra, head=True, relief=0.35)
        else:
            for flip in (-1, 1):
                if flip * self.yaw < 0.35:
                    self._fill(ellipse(flip * self.wide, 0.05, 0.14, 0.24), self.skin, True, head=True, relief=0.25)
        face = ellipse(0, 0, self.wide, 1)
        face[:, 0] *= 1 - self.rng.uniform(0.05, 0.3) * np.clip(face[:, 1], 0, 1) ** 2  # the jaw
        self._fill(face, self.skin, True, head=True, relief=0.4)

    def _features(self) -> None:
        """Draw eyes, brows, nose, beard and mouth, shifted sideways as the head turns."""
        rng, middle = self.rng, 0.3 * self.yaw
        dark, lips = self.tone * 0.62, self.tone * (0.85, 0.55, 0.55) + (0.06, 0, 0.01)
        iris, opened, brow = any_colour(rng, 0.5) * 0.4, rng.uniform(0.05, 0.11), rng.uniform(0.03, 0.07)
        for flip in (-1, 1):
            x = middle + flip * (0.31 - 0.06 * abs(self.yaw))
            self._fill(ellipse(x, -0.12, 0.17, opened + 0.03), dark, True, head=True)
            self._fill(ellipse(x, -0.11, 0.16, opened), (0.93, 0.91, 0.89), True, head=True)
            self._fill(ellipse(x + 0.08 * self.yaw, -0.11, 0.08, min(opened, 0.08)), iris, True, head=True)
            self._fill(ellipse(x + 0.08 * self.yaw, -0.11, 0.04, 0.04), (0.03, 0.03, 0.03), True, head=True)
            self._fill(limb((x - 0.16, -0.33), (x + 0.16, -0.33), brow, brow), self.hair, True, head=True)
        nose = [(middle * 1.1, -0.1), (middle * 1.5 + 0.1, 0.25), (middle * 1.4 - 0.1, 0.25)]
        self._fill(nose, self.tone * 0.86, True, head=True)
        for x in (-0.07, 0.07):
            self._fill(ellipse(middle * 1.4 + x, 0.26, 0.04, 0.025), dark, True, head=True)
        if rng.random() < 0.2:
            jaw = ellipse(0, 0, self.wide * 0.93, 1.06, 10, 170)
            moustache = ellipse(middle, 0.45, 0.45, 0.12, 180, 360)
            self._fill(np.concatenate([jaw, moustache]), self.hair, head=True, relief=0.2)
        width = rng.uniform(0.2, 0.32)
        self._fill(ellipse(middle, 0.56, width, rng.uniform(0.07, 0.11)), lips, True, head=True)
        if rng.random() < 0.5:
            inner = (0.92, 0.9, 0.86) if rng.random() < 0.5 else (0.25, 0.05, 0.06)
            self._fill(ellipse(middle, 0.56, width * 0.8, rng.uniform(0.03, 0.06)), inner, True, head=True)

    def _crown(self, size: float, line: float) -> Array:
        """Return the outline of what covers the head down to the height `line` of the forehead."""
        arc = ellipse(0, 0, self.wide * size, size + 0.02, 172, 368)
        middle, sweep = 0.3 * self.yaw, self.rng.uniform(-0.2, 0.2)
        temples = [(self.wide * 0.82, line + 0.3), (middle + 0.3, line + sweep), (middle - 0.3, line - sweep)]
        return np.concatenate([arc, [*temples, (-self.wide * 0.82, line + 0.3)]])

    def _worn(self) -> None:
        """Draw things that hide part of the head: hat, glasses, face mask, scarf."""
        rng, middle, black = self.rng, 0.3 * self.yaw, (0.08, 0.07, 0.07)
        if self.head_wear in ("cap", "brim"):
            self._fill(self._crown(1.14, -0.6), self.extra, head=True, relief=0.3)
        if self.head_wear == "brim":
            self._fill(ellipse(0, -0.58, 1.35, 0.18), self.extra, head=True, relief=0.3)
        glasses = rng.choice(["none", "clear", "dark"], p=[0.8, 0.12, 0.08])
        for flip in (-1, 1) if glasses != "none" else ():
            lens = ellipse(middle + flip * 0.32, -0.1, 0.27, 0.2)
            clear = glasses == "clear"
            self._fill(lens, black, clear, head=True, pen=0.06 if clear else 0)
            temple = [(middle + flip * 0.06, -0.12), (flip * self.wide, -0.15)]
            self._fill(temple, black, True, head=True, pen=0.05)
        if rng.random() < 0.06:
            mask = smooth([(-self.wide, 0.1), (middle, 0.0), (self.wide, 0.1), (self.wide * 0.8, 0.8), (0, 1.15),
                           (-self.wide * 0.8, 0.8)])  # fmt: skip
            self._fill(mask, any_colour(rng), head=True, relief=0.3)
        if rng.random() < 0.12:
            self._fill(limb((-0.55, 1.25), (0.55, 1.3), 0.3, 0.34), self.extra, relief=0.4)
            self._fill(limb((0.4, 1.4), (0.5, 3), 0.26, 0.34), self.extra, relief=0.4)

    def _arm(self, flip: int) -> None:
        """Draw an arm from the shoulder to a hand beside the head, on the chest or, sometimes, before the face."""
        rng = self.rng
        pose = rng.choice(["beside", "chest", "face"], p=[0.55, 0.35, 0.1])
        spot = {"beside": (2.0, 0.7), "chest": (0.3, 2.9), "face": (0.75, 1.1)}[pose]
        shoulder = (flip * self.shoulder, 2.2)
        elbow = (flip * (self.shoulder + rng.uniform(0.3, 0.8)), rng.uniform(3.4, 4.2))
        wrist = (flip * (spot[0] + rng.uniform(-0.35, 0.35)), spot[1] + rng.uniform(-0.35, 0.35))
        bare, covered = (self.skin, True), (self.cloth, False)
        self._fill(limb(shoulder, elbow, 0.48, 0.4), *(bare if self.sleeve == "none" else covered), relief=0.35)
        self._fill(limb(elbow, wrist, 0.38, 0.24), *(covered if self.sleeve == "long" else bare), relief=0.35)
        self._hand(np.array(wrist), np.arctan2(wrist[1] - elbow[1], wrist[0] - elbow[0]) + rng.normal(0, 0.25), flip)

    def _hand(self, wrist: NDArray[np.float64], angle: float, flip: int) -> None:
        """Draw a hand from `wrist` in the direction `angle`: palm, four fingers and a thumb."""
        rng = self.rng
        spread, length, thumb = rng.uniform(0.05, 0.3), rng.uniform(0.45, 0.85), flip * rng.choice([-1, 1])
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, s], [-s, c]])

        def part(start: tuple[float, float], end: tuple[float, float], r0: float, r1: float) -> None:
            ends = np.array([start, end]) @ turn + wrist
            self._fill(limb(tuple(ends[0]), tuple(ends[1]), r0, r1), self.skin, True, relief=0.3)

        part((0, 0), (0.15, 0), 0.22, 0.26)
        for k, reach in enumerate((0.85, 1.0, 0.97, 0.8)):
            side, fan = 0.2 * (k - 1.5), spread * (k - 1.5)
            tip = (0.6 + reach * length * np.cos(fan), -thumb * (side + reach * length * np.sin(fan)))
            part((0.6, -thumb * side), tip, 0.115, 0.09)
        part((0.25, thumb * 0.2), (0.6, thumb * rng.uniform(0.45, 0.65)), 0.13, 0.1)
        part((0.25, 0), (0.5, 0), 0.3, 0.36)
