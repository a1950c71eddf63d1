"""What is drawn onto a frame: where it must be, and nowhere else."""

from typing import Any

import numpy as np
import pytest

from rtpose.interfaces import Settings
from rtpose.messages import Command, TriggerEvent
from rtpose.overlay import Image, LineLevels, draw_levels, draw_places
from rtpose.plugins import load

RECTANGLE = {"x_px": 20, "y_px": 30, "width_px": 60, "height_px": 40}
CIRCLE = {"x_px": 50, "y_px": 50, "radius_px": 30}
TRIANGLE = [[20, 30], [80, 30], [20, 70]]
SNOUT = {"keypoint": "snout"}


def picture() -> Image:
    return np.zeros((100, 120, 3), np.uint8)


def settings(kind: str, **own: Any) -> dict[str, Any]:
    """Return a trigger's settings as the recorder has them."""
    config: type[Settings] = load("triggers", kind).Config
    return config.model_validate(own).model_dump()


def is_drawn(image: Image, x: int, y: int) -> bool:
    return bool(image[y - 1 : y + 2, x - 1 : x + 2].any())


@pytest.mark.parametrize(
    ("place", "on", "off"),
    [
        ({"rectangle": RECTANGLE}, [(20, 50), (80, 50), (50, 30), (50, 70)], [(50, 50), (90, 50)]),
        ({"circle": CIRCLE}, [(20, 50), (80, 50), (50, 20), (50, 80)], [(50, 50), (90, 50)]),
        ({"polygon": TRIANGLE}, [(20, 50), (50, 30), (50, 50)], [(40, 40), (70, 60)]),
    ],
)
def test_the_border_of_a_region_is_drawn_wherever_it_stands_in_the_settings(
    place: dict[str, Any], on: list[tuple[int, int]], off: list[tuple[int, int]]
) -> None:
    region = {"type": "region", **SNOUT, **place}
    fast = {"type": "speed", **SNOUT, "above_px_s": 10, "window_ms": 10}
    distance = {"type": "distance", **SNOUT, **place}
    for table in (
        settings("region", **SNOUT, **place, when="enter"),
        settings("all", of=[fast, {"type": "not", "of": region}], when="while"),
        settings(
            "any",
            of=[{"type": "count", "of": region, "event": "began", "at_least": 1}],
            when="ends",
        ),
        settings("looking", back="neck", front="snout", **place, within_deg=10, when="while"),
        settings("distance", **SNOUT, **place, below_px=10, when="while"),
        settings("proportional", quantity=distance, from_px=[0, 10]),
    ):
        image = picture()
        draw_places(image, table, active=False)
        assert [is_drawn(image, *spot) for spot in on] == [True] * len(on)
        assert [is_drawn(image, *spot) for spot in off] == [False] * len(off)
        lit = picture()
        draw_places(lit, table, active=True)
        assert (lit[..., 2] > lit[..., 0])[lit.any(axis=2)].mean() > 0.9  # red
        assert not (lit.any(axis=2) ^ image.any(axis=2)).any()


def test_a_point_is_a_cross() -> None:
    image = picture()
    point = {"x_px": 40.0, "y_px": 60.0}
    table = settings("distance", **SNOUT, point=point, below_px=10, when="while")
    draw_places(image, table, active=False)
    assert is_drawn(image, 40, 60)
    assert is_drawn(image, 45, 60)
    assert is_drawn(image, 40, 55)
    assert not is_drawn(image, 45, 55)


def test_settings_without_a_place_draw_nothing() -> None:
    image = picture()
    table = settings("speed", **SNOUT, above_px_s=10, window_ms=10, when="starts")
    draw_places(image, table, active=True)
    assert not image.any()


# ------------------------------------------------------------------------------------------ levels

LASER, LIGHT = "board.laser", "board.light"


def event(
    kind: str,
    action: str | None = None,
    line: str = LIGHT,
    level: float = 1.0,
    *,
    frame_id: int | None = None,
    decide_ns: int = 0,
    trigger: str | None = "light",
    sent: bool = True,
) -> TriggerEvent:
    output, _, name = line.partition(".")
    fields: dict[str, Any] = {"kind": kind, "frame_id": frame_id, "trigger": trigger}
    if action is not None:
        fields["command"] = Command.model_validate(
            {
                "command_id": 1,
                "output": output,
                "line": name,
                "action": action,
                "width_us": 0 if action == "off" else 5,
                "level": level,
            }
        )
        fields["command_ns"] = decide_ns if sent else None
    return TriggerEvent.model_validate({"run": "r", "seq": 0, "decide_ns": decide_ns, **fields})


def followed() -> LineLevels:
    return LineLevels([LIGHT], {"light": LIGHT, "zone": LASER, "sound": "other.tone"})


def test_a_frame_shows_the_levels_after_what_was_decided_on_it() -> None:
    lines = followed()
    lines.take(event("fire", "on", level=0.5, frame_id=3))
    lines.take(event("level-set", "on", level=0.75, frame_id=5))
    lines.take(event("fire", "on", LASER, frame_id=5, trigger="zone"))
    lines.take(event("line-off", "off", LASER, decide_ns=70, trigger=None))
    lines.take(event("line-off", "off", frame_id=8))
    assert lines.at(2, 20) == {LIGHT: 0.0}
    assert lines.at(3, 30) == {LIGHT: 0.5}
    assert lines.holders() == {"light"}
    assert lines.at(4, 40) == {LIGHT: 0.5}
    assert lines.at(6, 60) == {LIGHT: 0.75, LASER: 1.0}
    assert lines.holders() == {"light", "zone"}
    assert lines.at(7, 70) == {LIGHT: 0.75}
    assert lines.at(8, 80) == {LIGHT: 0.0}
    assert lines.holders() == set()


@pytest.mark.parametrize("kind", ["disarmed", "estop", "output-failed", "stopped"])
def test_whatever_makes_outputs_safe_ends_every_level(kind: str) -> None:
    lines = followed()
    for line, trigger in ((LIGHT, "light"), (LASER, "zone"), ("other.tone", "sound")):
        lines.take(event("fire", "on", line, frame_id=1, trigger=trigger))
    assert set(lines.at(1, 10).values()) == {1.0}
    lines.take(event(kind, decide_ns=20, trigger=None))
    assert lines.at(2, 20) == {LIGHT: 0.0}


def test_a_trigger_that_fails_ends_the_levels_of_its_output_only() -> None:
    lines = followed()
    lines.take(event("fire", "on", LASER, frame_id=1, trigger="zone"))
    lines.take(event("fire", "on", "other.tone", frame_id=1, trigger="sound"))
    lines.take(event("trigger-failed", frame_id=2, trigger="light"))
    assert lines.at(2, 20) == {LIGHT: 0.0, "other.tone": 1.0}


def test_what_was_withheld_or_refused_or_is_a_pulse_is_no_level() -> None:
    lines = followed()
    lines.take(event("withheld", "on", frame_id=1, sent=False))
    lines.take(event("refused", frame_id=1))
    lines.take(event("fire", "pulse", LASER, frame_id=1, trigger="zone"))
    assert lines.at(1, 10) == {LIGHT: 0.0}


def test_a_bar_is_as_long_as_its_level() -> None:
    lengths = []
    for level in (0.0, 0.25, 1.0):
        image = np.full((60, 300, 3), 90, np.uint8)
        draw_levels(image, {LIGHT: level})
        red = (image[..., 2] > 200) & (image[..., 1] < 100)
        lengths.append(int(red.any(axis=0).sum()))
    assert lengths[0] == 0
    assert lengths[1] == pytest.approx(25, abs=2)
    assert lengths[2] == pytest.approx(100, abs=2)


def test_without_levels_nothing_is_drawn() -> None:
    image = picture()
    draw_levels(image, {})
    assert not image.any()
