"""What one fault run is: the rig, the faults and when they strike, all drawn from one seed."""

import random
from dataclasses import dataclass
from typing import Final

from fault_kinds import KINDS, SECOND, Kind

#: Of the runs, so many have a second fault within a moment of the first.
_SECOND_FAULT: Final = 0.2

_RIG: Final = """
[cameras.arena]
type = "fault_plugins:CueCamera"
width_px = 320
height_px = 240
rate_hz = {rate_hz}
seed = {seed}
max_silence_ms = 1000.0
cue = "camera.cue"
then = "{camera}"

[model]
path = "demo"

[latency]
budget_ms = {budget_ms}
max_pose_gap_ms = {gap_ms}

[recording]
folder = "{runs}"
{bad_output}
[outputs.board]
type = "ttl"
port = "{port}"
watchdog_ms = {watchdog_ms}
stop_input = "closed-is-well"
lines.laser = {{ pin = 0, max_on_ms = {laser_ms} }}
lines.led = {{ pin = 3, max_on_ms = {led_ms} }}
lines.dimmer = {{ pin = 1, max_on_ms = {led_ms}, levels = true }}
lines.shutter = {{ pin = 5, max_on_ms = 50.0, dose_ms = {dose_ms}, dose_window_s = 0.5 }}
lines.valve = {{ pin = 6, max_on_ms = {valve_ms}, refractory_ms = 5.0 }}
lines.spare = {{ pin = 7, max_on_ms = 2000.0 }}

[triggers.everywhere]
type = "region"
keypoint = "tailbase"
polygon = [[-9000, -9000], [9000, -9000], [9000, 9000], [-9000, 9000]]
when = "inside"
output = "board.laser"

[triggers.blink]
type = "fault_plugins:Blink"
on = {blink_on}
off = {blink_off}
output = "board.led"

[triggers.tick]
type = "fault_plugins:Blink"
on = {tick}
pulse_ms = {pulse_ms}
output = "board.valve"

[triggers.burst]
type = "fault_plugins:Blink"
on = {burst}
pulse_ms = {burst_ms}
train = {{ count = 4, period_ms = {burst_period_ms} }}
output = "board.shutter"

[triggers.fade]
type = "fault_plugins:Fade"
on = {blink_off}
off = {blink_on}
output = "board.dimmer"
{bad_trigger}"""
_BAD_TRIGGER: Final = """
[triggers.bad]
type = "fault_plugins:Blink"
on = 2
off = 2
cue = "trigger.cue"
then = "{trigger}"
output = "board.spare"
"""
_BAD_OUTPUT: Final = """
[outputs.bad]
type = "fault_plugins:CueOutput"
cue = "output.cue"
then = "{then}"
where = "{where}"
watchdog_ms = 1000
lines.lamp = {{ pin = 0, max_on_ms = 500.0 }}
"""
_ITS_TRIGGER: Final = """
[triggers.bad]
type = "fault_plugins:Blink"
on = 2
off = 2
output = "bad.lamp"
"""

#: The lines of the rig's board, and those of them that levels hold, not pulses.
PINS: Final = {"laser": 0, "dimmer": 1, "led": 3, "shutter": 5, "valve": 6, "spare": 7}
LEVELS: Final = frozenset({0, 1, 3, 7})
#: Index of the keypoint that holds the laser: the model's "tailbase".
TRACKED: Final = 4


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes
    ----------
    kinds : tuple of Kind
        The faults, in the order in which they strike.
    delays_s : tuple of float
        From the laser's first rise to the first fault, and from fault to fault.
    """

    seed: int
    kinds: tuple[Kind, ...]
    delays_s: tuple[float, ...]
    watchdog_ms: int
    budget_ms: int
    gap_ms: int
    rate_hz: float
    laser_ms: int
    led_ms: int
    valve_ms: int
    blink_on: int
    blink_off: int
    tick: int
    pulse_ms: float
    burst: int
    burst_ms: float
    burst_period_ms: float
    dose_ms: float
    spare_ms: int = 2000

    @property
    def name(self) -> str:
        """What the run is called: its seed and its faults."""
        return f"{self.seed}-{'+'.join(kind.name for kind in self.kinds)}"

    @property
    def seconds(self) -> float:
        """How long the rig runs if nothing ends it."""
        return max(kind.seconds for kind in self.kinds)

    @property
    def longest_ms(self) -> dict[int, float]:
        """The longest on-time of each pin."""
        return {
            0: self.laser_ms,
            1: self.led_ms,
            3: self.led_ms,
            5: 50.0,
            6: self.valve_ms,
            7: self.spare_ms,
        }

    def needs(self, what: str) -> bool:
        """Return whether one of the faults needs something of the rig."""
        return any(need.endswith(what) for kind in self.kinds for need in kind.needs)

    def rig_toml(self, port: str, runs: str) -> str:
        """Return the rig file, without its ``[stream]``."""
        setup = {part: how for kind in self.kinds for part, how in kind.setup.items()}
        bad_output = bad_trigger = ""
        if "trigger" in setup:
            bad_trigger = _BAD_TRIGGER.format(trigger=setup["trigger"])
        elif "output" in setup:
            then, where = setup["output"].split()
            # In front of the board: what it does comes first, in every turn and at the end.
            bad_output = _BAD_OUTPUT.format(then=then, where=where)
            bad_trigger = _ITS_TRIGGER
        return _RIG.format(
            camera=setup.get("camera", "black"),
            port=port,
            runs=runs,
            bad_output=bad_output,
            bad_trigger=bad_trigger,
            **vars(self),
        )


def make_plan(seed: int, name: str | None = None) -> Plan:
    """Draw the run of a seed; with `name`, of that kind of fault and no second one."""
    draw = random.Random(seed)
    names = sorted(KINDS)
    first = KINDS[names[seed % len(names)] if name is None else name]
    kinds: tuple[Kind, ...] = (first,)
    second = draw.choice(SECOND)
    if draw.random() < _SECOND_FAULT and name is None and first.allows(KINDS[second]):
        kinds = (first, KINDS[second])
    watchdog_ms = draw.randint(50, 500)
    valve_ms = draw.randint(5, 100)
    return Plan(
        seed=seed,
        kinds=kinds,
        delays_s=(draw.uniform(0.0, 0.8), draw.uniform(0.0, 0.3)),
        watchdog_ms=watchdog_ms,
        budget_ms=draw.randint(100, 1000),
        gap_ms=draw.randint(60, 500),
        rate_hz=float(draw.choice((50, 100))),
        laser_ms=draw.choice((300, 60_000, 60_000, 60_000)),
        led_ms=draw.randint(20, 500),
        valve_ms=valve_ms,
        blink_on=draw.randint(1, 20),
        blink_off=draw.randint(1, 20),
        tick=draw.randint(1, 8),
        pulse_ms=round(draw.uniform(0.1, valve_ms), 3),
        burst=draw.randint(5, 30),
        burst_ms=round(draw.uniform(0.1, 10.0), 3),
        burst_period_ms=round(draw.uniform(10.1, 100.0), 3),
        dose_ms=round(draw.uniform(45.0, 200.0), 3),
    )
