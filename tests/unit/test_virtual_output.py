"""The virtual output: its lines obey widths, maximum, arming and watchdog to the nanosecond."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rtpose.errors import OutputError
from rtpose.interfaces import LineConfig
from rtpose.messages import Command
from rtpose_hardware.virtual import VirtualOutput, VirtualSettings
from rtpose_hardware.virtual_board import Edge, VirtualBoard

US = 1_000
LINES = ("laser", "valve")


def command(
    action: str, width_us: int = 0, line: str = "laser", command_id: int = 1, **more: Any
) -> Command:
    return Command.model_validate(
        {
            "command_id": command_id,
            "output": "virtual",
            "line": line,
            "action": action,
            "width_us": width_us,
            **more,
        }
    )


def train(
    width_us: int, count: int, period_us: int, delay_us: int = 0, line: str = "laser"
) -> Command:
    more = {"count": count, "period_us": period_us, "delay_us": delay_us}
    return command("train", width_us, line, **more)


def board(max_on_us: int = 100, watchdog_us: int = 10_000, **limits: Any) -> VirtualBoard:
    lines = {
        name: LineConfig(pin=pin, max_on_ms=max_on_us / 1000, **limits)
        for pin, name in enumerate(LINES)
    }
    return VirtualBoard(lines, watchdog_us * US)


def rises_and_falls(it: VirtualBoard) -> list[float]:
    """Return when the laser changed, in us, beginning with a rise."""
    edges = [edge for edge in it.edges if edge.line == "laser"]
    assert [edge.high for edge in edges] == [index % 2 == 0 for index in range(len(edges))]
    return [edge.at_ns / US for edge in edges]


def test_a_pulse_has_exactly_its_width_whenever_somebody_looks() -> None:
    it = board()
    it.arm(0)
    assert it.execute(command("pulse", 40), 7) == ""
    assert it.levels(7 + 40 * US - 1) == {"laser": True, "valve": False}
    assert it.levels(9_000 * US) == {"laser": False, "valve": False}
    assert list(it.edges) == [Edge(7, "laser", True), Edge(7 + 40 * US, "laser", False)]


def test_on_moves_the_deadline_without_an_edge_up_to_the_longest_on_time() -> None:
    it = board(max_on_us=100)
    it.arm(0)
    it.execute(command("on", 50), 0)
    it.execute(command("on", 80), 10 * US)
    it.execute(command("on", 20), 30 * US)
    it.settle(60 * US)
    assert list(it.edges) == [Edge(0, "laser", True), Edge(50 * US, "laser", False)]
    for at_us in (100, 150, 180):
        it.execute(command("on", 100), at_us * US)
    it.settle(1_000 * US)
    assert list(it.edges)[2:] == [Edge(100 * US, "laser", True), Edge(200 * US, "laser", False)]


def test_a_pulse_on_a_high_line_is_refused() -> None:
    it = board()
    it.arm(0)
    it.execute(command("pulse", 50), 0)
    assert "is high" in it.execute(command("pulse", 50), 10 * US)
    it.settle(1_000 * US)
    assert list(it.edges) == [Edge(0, "laser", True), Edge(50 * US, "laser", False)]


def test_off_drops_the_line_at_once() -> None:
    it = board()
    it.arm(0)
    it.execute(command("on", 50), 0)
    assert it.execute(command("off"), 20 * US) == ""
    assert it.execute(command("off"), 21 * US) == ""
    assert list(it.edges) == [Edge(0, "laser", True), Edge(20 * US, "laser", False)]


@pytest.mark.parametrize("width_us", [1, 19, 101])
def test_a_width_outside_the_limits_is_refused_and_moves_nothing(width_us: int) -> None:
    it = board(max_on_us=100)
    it.arm(0)
    for action in ("on", "pulse"):
        assert f"{width_us} us, allowed: 20 to 100 us" in it.execute(command(action, width_us), 0)
    assert not it.edges
    assert it.execute(command("pulse", 100), 0) == ""
    assert "allowed" in it.execute(command("on", width_us), 10)
    it.settle(1_000 * US)
    assert list(it.edges) == [Edge(0, "laser", True), Edge(100 * US, "laser", False)]


def test_a_silent_host_drops_the_lines_when_the_watchdog_is_due_and_disarms() -> None:
    it = board(max_on_us=50_000, watchdog_us=1_000)
    it.arm(0)
    it.beat(600 * US)
    it.execute(command("on", 40_000), 700 * US)
    it.execute(command("pulse", 100, "valve"), 800 * US)  # a command is a sign of life too
    assert it.execute(command("on", 20), 5_000 * US) == "not armed"
    assert list(it.edges) == [
        Edge(700 * US, "laser", True),
        Edge(800 * US, "valve", True),
        Edge(900 * US, "valve", False),
        Edge(1_800 * US, "laser", False),
    ]
    it.beat(5_100 * US)
    assert it.execute(command("on", 20), 5_200 * US) != "", "a late beat does not arm again"
    it.arm(5_300 * US)
    assert it.execute(command("on", 20), 5_400 * US) == ""


def test_safe_drops_everything_and_refuses_until_armed() -> None:
    it = board()
    assert it.execute(command("on", 20), 0) == "not armed"
    it.arm(1)
    it.execute(command("on", 50, "valve"), 2)
    it.execute(command("on", 50, "laser"), 3)
    it.safe(4)
    assert list(it.edges)[2:] == [Edge(4, "laser", False), Edge(4, "valve", False)]
    assert it.execute(command("on", 20), 5) == "not armed"


def test_a_train_is_that_many_pulses_after_its_delay() -> None:
    it = board()
    it.arm(0)
    assert it.execute(train(30, 3, 70, delay_us=50), 10 * US) == ""
    assert it.levels(40 * US)["laser"] == 0
    it.settle(1_000 * US)
    assert rises_and_falls(it) == [60, 90, 130, 160, 200, 230]
    assert it.execute(command("pulse", 20), 1_000 * US) == ""


def test_in_a_train_only_off_is_obeyed_and_ends_it() -> None:
    it = board()
    it.arm(0)
    it.execute(train(30, 1000, 70), 0)
    for at_us in (10, 40):  # while it is high, and while it is low
        for order in (command("on", 20), command("pulse", 20), train(20, 2, 50)):
            assert "a train is under way" in it.execute(order, at_us * US)
    assert it.execute(command("off"), 50 * US) == ""
    it.settle(1_000 * US)
    assert rises_and_falls(it) == [0, 30]


@pytest.mark.parametrize("way_out", ["safe", "watchdog"])
def test_a_train_ends_with_everything_else(way_out: str) -> None:
    it = board(watchdog_us=200)
    it.arm(0)
    it.execute(train(30, 1000, 70), 0)
    if way_out == "safe":
        it.safe(150 * US)
    it.settle(10_000 * US)
    assert rises_and_falls(it) == [0, 30, 70, 100, 140, 150 if way_out == "safe" else 170]
    it.arm(20_000 * US)
    it.settle(20_100 * US)
    assert len(it.edges) == 6


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (train(101, 2, 300), "101 us, allowed: 20 to 100 us"),
        (train(19, 2, 300), "19 us, allowed: 20 to 100 us"),
        (train(30, 2, 49), "19 us between the pulses of a train, allowed: at least 20 us"),
        (train(30, 2, 300, delay_us=19), "a delay of 19 us, allowed: 0, or at least 20 us"),
        (command("on", 20, level=0.5), "do not say levels = true"),
    ],
)
def test_what_a_line_never_does_is_refused_with_what_it_does(order: Command, words: str) -> None:
    it = board(max_on_us=100)
    it.arm(0)
    assert words in it.execute(order, 0)
    it.settle(1_000 * US)
    assert not it.edges


def test_a_level_is_an_on_of_another_strength() -> None:
    it = board(levels=True)
    it.arm(0)
    assert it.execute(command("on", 100, level=0.25), 0) == ""
    assert it.levels(10 * US)["laser"] == 0.25
    assert it.execute(command("on", 100, level=0.75), 50 * US) == ""
    assert it.levels(60 * US)["laser"] == 0.75
    assert it.levels(100 * US)["laser"] == 0, "its longest on-time counts from the rise"
    assert rises_and_falls(it) == [0, 100]


def test_refractory_time_counts_from_the_fall_whatever_made_it_fall() -> None:
    it = board(watchdog_us=1_000, refractory_ms=0.05)
    it.arm(0)
    it.execute(command("on", 100), 0)
    it.execute(command("off"), 30 * US)
    for at_us in (31, 79):
        assert "within refractory_ms = 0.05" in it.execute(command("pulse", 20), at_us * US)
    assert it.execute(train(20, 1, 0, delay_us=21), 60 * US) == "", "it rises late enough"
    it.safe(90 * US)
    it.arm(100 * US)
    assert "within refractory_ms" in it.execute(command("pulse", 20), 139 * US)
    assert it.execute(command("pulse", 20), 140 * US) == ""


def test_a_dose_without_a_window_counts_from_arming() -> None:
    it = board(max_on_us=100, dose_ms=0.15)
    it.arm(0)
    it.execute(command("pulse", 100), 0)
    assert "more than dose_ms = 0.15" in it.execute(command("pulse", 51), 5_000 * US)
    it.arm(6_000 * US)  # it is armed already
    assert "more than dose_ms" in it.execute(command("pulse", 51), 6_001 * US)
    it.safe(7_000 * US)
    it.arm(7_001 * US)
    assert it.execute(command("pulse", 100), 7_002 * US) == ""


def test_what_is_left_of_a_dose_bounds_a_level_and_what_off_saves_is_given_back() -> None:
    it = board(max_on_us=100, dose_ms=0.1)
    it.arm(0)
    it.execute(command("on", 100), 0)
    it.execute(command("off"), 40 * US)
    assert it.execute(command("on", 100), 200 * US) == ""
    assert it.execute(command("on", 100), 230 * US) == "", "more than once"
    it.settle(1_000 * US)
    assert rises_and_falls(it) == [0, 40, 200, 260]
    assert "more than dose_ms" in it.execute(command("on", 100), 1_000 * US)


class TickingLine:
    """One line, slowly: what it was in every tick so far, and what it is to be in those to come."""

    def __init__(self, max_on: int, refractory: int, dose: int | None, window: int | None) -> None:
        self.limits = max_on, refractory, dose, window
        self.past: list[bool] = []
        self.plan: list[bool] = []
        self.train = False
        self.armed_at = self.rose_at = self.longest = 0

    @property
    def high(self) -> bool:
        return bool(self.plan) and self.plan[0]

    @property
    def room(self) -> int:
        _, _, dose, window = self.limits
        if dose is None:
            return 1000
        first = self.armed_at if window is None else max(0, len(self.past) - window)
        return dose - sum(self.past[first:])

    def tick(self) -> None:
        self.past.append(self.high)
        self.plan = self.plan[1:]

    def order(self, action: str, width: int, gap: int = 0, count: int = 1, delay: int = 0) -> bool:
        now = len(self.past)
        max_on, refractory, _, _ = self.limits
        if not 2 <= width <= max_on or delay == 1:
            return False
        if action == "train" and count > 1 and gap < max(2, refractory):
            return False
        if self.plan:
            if self.train or action != "on":
                return False
            self.plan = [True] * min(width, self.rose_at + self.longest - now)
            return True
        lows = 0
        while lows < now and not self.past[-1 - lows]:
            lows += 1
        if lows < now and lows + delay < refractory:
            return False
        if (2 if action == "on" else width * count) > self.room:
            return False
        self.rose_at, self.longest = now, min(max_on, self.room)
        self.train = action == "train"
        width = min(width, self.longest)
        self.plan = [False] * delay + ([True] * width + [False] * gap) * (count - 1)
        self.plan += [True] * width
        return True


class TickingBoard:
    """The same rules, slowly: a clock that ticks every ten microseconds."""

    def __init__(self, watchdog: int, *limits: Any) -> None:
        self.watchdog = watchdog
        self.now = 0
        self.lines = {name: TickingLine(*limits) for name in LINES}
        self.silence: int | None = None
        self.edges: list[Edge] = []
        self.was = dict.fromkeys(LINES, False)

    def look(self) -> None:
        for name in sorted(LINES):
            if self.lines[name].high != self.was[name]:
                self.was[name] = not self.was[name]
                self.edges.append(Edge(self.now * 10 * US, name, self.was[name]))

    def tick(self) -> None:
        self.now += 1
        for line in self.lines.values():
            line.tick()
        if self.silence is not None:
            self.silence += 1
        if self.silence == self.watchdog:
            self.safe()
        self.look()

    def safe(self) -> None:
        self.silence = None
        for line in self.lines.values():
            line.plan = []

    def obey(self, action: str, line: str, *numbers: int) -> bool:
        """Carry out one action and return whether it was taken."""
        if action == "arm" and self.silence is None:
            for one in self.lines.values():
                one.armed_at = self.now
        if action == "arm" or self.silence is not None:
            self.silence = 0
        if action == "safe":
            self.safe()
        taken = self.silence is not None
        if action == "off" and taken:
            self.lines[line].plan = []
        elif action in ("on", "pulse", "train") and taken:
            taken = self.lines[line].order(action, *numbers)
        self.look()
        return taken


actions = st.one_of(
    st.tuples(st.sampled_from(["arm", "beat", "safe"]), st.just("")),
    st.tuples(st.just("off"), st.sampled_from(LINES)),
    st.tuples(st.sampled_from(["on", "pulse"]), st.sampled_from(LINES), st.integers(1, 12)),
    st.tuples(
        st.just("train"),
        st.sampled_from(LINES),
        st.integers(1, 12),
        st.integers(1, 8),
        st.integers(1, 4),
        st.integers(0, 4),
    ),
)
doses = st.one_of(
    st.just((None, None)),
    st.tuples(st.integers(2, 30), st.none()),
    st.integers(2, 30).flatmap(lambda n: st.tuples(st.just(n), st.integers(n, 60))),
)


Limits = tuple[int, int | None, int | None]  # refractory time, dose and its window, in ticks


def limited_board(watchdog: int, limits: Limits) -> VirtualBoard:
    refractory, dose, window = limits
    more = {
        "refractory_ms": refractory / 100,
        "dose_ms": None if dose is None else dose / 100,
        "dose_window_s": None if window is None else window / 100_000,
    }
    return board(max_on_us=100, watchdog_us=watchdog * 10, **more)


def told(it: VirtualBoard, at_ns: int, action: str, line: str, *ticks: int) -> bool:
    """Let the board do the same as the slow one; return whether it was taken."""
    if action in ("arm", "beat", "safe"):
        getattr(it, action)(at_ns)
        return True
    if action == "train":
        width, gap, count, delay = ticks
        order = train(10 * width, count, 10 * (width + gap), 10 * delay, line)
    else:
        order = command(action, 10 * sum(ticks), line)
    return it.execute(order, at_ns) == ""


@given(
    st.lists(st.tuples(st.integers(0, 15), st.booleans(), actions), max_size=40),
    st.integers(1, 40),
    st.integers(0, 6),
    doses,
)
def test_against_a_board_that_counts_ticks(
    script: list[tuple[int, bool, tuple[Any, ...]]],
    watchdog: int,
    refractory: int,
    dose: tuple[int | None, int | None],
) -> None:
    it = limited_board(watchdog, (refractory, *dose))
    slow = TickingBoard(watchdog, 10, refractory, *dose)
    for wait, look, action in [(0, False, ("arm", "")), *script]:
        for _ in range(wait):
            slow.tick()
        at_ns = slow.now * 10 * US
        if look:
            assert it.levels(at_ns) == {name: slow.lines[name].high for name in LINES}
        taken = slow.obey(*action)
        assert told(it, at_ns, *action) == taken or action[0] in ("arm", "beat", "safe")
    for _ in range(60):
        slow.tick()
    it.settle(slow.now * 10 * US)
    assert list(it.edges) == slow.edges
    most, window = dose
    for past in (slow.lines[name].past for name in LINES):
        if most is not None and window is not None:
            assert all(sum(past[i : i + window]) <= most for i in range(len(past)))


def settings(**values: Any) -> dict[str, Any]:
    lines = {name: {"pin": pin, "max_on_ms": 50} for pin, name in enumerate(LINES)}
    return {"lines": lines, **values}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves by 1.5 us whenever it is read."""
    ticks = itertools.count(1_000_000, 1_500)
    monkeypatch.setattr("rtpose_hardware.virtual.now_ns", lambda: next(ticks))


def test_edges_carry_the_times_of_the_commands_that_made_them() -> None:
    output = VirtualOutput(VirtualSettings.model_validate(settings()))
    output.open()
    output.arm()
    on_ns = output.send(command("on", 50_000))
    assert output.levels() == {"laser": True, "valve": False}
    off_ns = output.send(command("off", command_id=2))
    assert output.edges() == [Edge(on_ns, "laser", True), Edge(off_ns, "laser", False)]
    # The board counts whole microseconds since it was opened, at 1000 us.
    assert [ack.device_us for ack in output.acks()] == [
        (at_ns - 1_000_000) // US for at_ns in (on_ns, off_ns)
    ]
    output.close()
    with pytest.raises(OutputError, match="not open"):
        output.acks()


def test_after_the_watchdog_it_raises_until_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    output = VirtualOutput(VirtualSettings.model_validate(settings(watchdog_ms=20)))
    output.open()
    output.arm()
    on_ns = output.send(command("on", 50_000))
    monkeypatch.setattr("rtpose_hardware.virtual.now_ns", lambda: on_ns + 30_000 * US)
    assert len(output.acks()) == 1, "what came before is not lost"
    for call in (output.acks, output.beat, lambda: output.send(command("off"))):
        with pytest.raises(OutputError, match="no heartbeat for 20 ms; arm it again"):
            call()
    assert output.edges()[-1] == Edge(on_ns + 20_000 * US, "laser", False)
    output.arm()
    output.beat()
    output.send(command("off"))
    output.close()


def test_a_refused_command_is_no_edge_and_its_ack_says_why() -> None:
    output = VirtualOutput(VirtualSettings.model_validate(settings()))
    output.open()
    output.arm()
    output.send(command("on", 50_001))
    (ack,) = output.acks()
    assert (ack.ok, ack.device_us) == (False, None)
    assert ack.detail == "50001 us, allowed: 20 to 50000 us"
    assert output.edges() == []
    output.close()


@pytest.mark.parametrize("watchdog_ms", [0, -1, 19, 50.5, math.inf, 1_001, "100", None])
def test_a_watchdog_that_would_not_watch_is_refused(watchdog_ms: object) -> None:
    with pytest.raises(ValidationError, match="watchdog_ms"):
        VirtualSettings.model_validate(settings(watchdog_ms=watchdog_ms))


def test_a_train_is_acknowledged_at_once_with_the_time_of_its_first_rise() -> None:
    output = VirtualOutput(VirtualSettings.model_validate(settings()))
    output.open()
    output.arm()
    sent_ns = output.send(train(1_000, 3, 2_000, delay_us=40_000))
    (ack,) = output.acks()
    assert (ack.ok, ack.device_us) == (True, (sent_ns - 1_000_000) // US + 40_000)
    output.close()


@pytest.mark.parametrize("max_on_ms", [0, -1, math.nan, math.inf, 60_001])
def test_a_line_without_a_limit_is_refused(max_on_ms: float) -> None:
    lines = {"laser": {"pin": 0, "max_on_ms": max_on_ms}}
    with pytest.raises(ValidationError, match="max_on_ms"):
        VirtualSettings.model_validate({"lines": lines})
