"""The virtual output: its lines obey widths, maximum, arming and watchdog to the nanosecond."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rtpose.errors import OutputError
from rtpose.messages import Command
from rtpose_hardware.virtual import Edge, VirtualBoard, VirtualOutput, VirtualSettings

US = 1_000
LINES = ("laser", "valve")


def command(action: str, width_us: int = 0, line: str = "laser", command_id: int = 1) -> Command:
    return Command.model_validate(
        {
            "command_id": command_id,
            "output": "virtual",
            "line": line,
            "action": action,
            "width_us": width_us,
        }
    )


def board(max_on_us: int = 100, watchdog_us: int = 10_000) -> VirtualBoard:
    return VirtualBoard(dict.fromkeys(LINES, max_on_us * US), watchdog_us * US)


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


class TickingBoard:
    """The same rules, slowly: a clock that ticks every ten microseconds."""

    def __init__(self, max_on: int, watchdog: int) -> None:
        self.max_on, self.watchdog = max_on, watchdog
        self.now = 0
        self.high: dict[str, int] = {}  # how long it has been so
        self.left: dict[str, int] = {}  # how long it will be
        self.silence: int | None = None
        self.edges: list[Edge] = []

    def tick(self) -> None:
        self.now += 1
        self.left = {line: left - 1 for line, left in self.left.items()}
        self.high = {line: ticks + 1 for line, ticks in self.high.items()}
        if self.silence is not None:
            self.silence += 1
        overdue = self.silence == self.watchdog
        late = [n for n in LINES if n in self.left and (self.left[n] == 0 or self.used_up(n))]
        self.drop(list(LINES) if overdue else late)
        self.silence = None if overdue else self.silence

    def used_up(self, line: str) -> bool:
        return self.high[line] == self.max_on

    def drop(self, lines: list[str]) -> None:
        for line in sorted(set(lines) & set(self.left)):
            del self.left[line], self.high[line]
            self.edges.append(Edge(self.now * 10 * US, line, False))

    def obey(self, action: str, width: int, line: str) -> bool:
        """Carry out one action and return whether it was taken."""
        if action == "arm" or self.silence is not None:
            self.silence = 0
        if action in ("arm", "beat"):
            return True
        if action == "safe":
            self.drop(list(LINES))
            self.silence = None
            return True
        if self.silence is None or (action != "off" and not 2 <= width <= self.max_on):
            return False
        if action == "off":
            self.drop([line])
            return True
        if action == "pulse" and line in self.left:
            return False
        if line not in self.left:
            self.edges.append(Edge(self.now * 10 * US, line, True))
        self.high.setdefault(line, 0)
        self.left[line] = width
        return True


actions = st.one_of(
    st.tuples(st.sampled_from(["arm", "beat", "safe"]), st.just(0), st.just("")),
    st.tuples(st.just("off"), st.just(0), st.sampled_from(LINES)),
    st.tuples(st.sampled_from(["on", "pulse"]), st.integers(1, 12), st.sampled_from(LINES)),
)


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans(), actions)), st.integers(1, 20))
def test_against_a_board_that_counts_ticks(
    script: list[tuple[int, bool, tuple[str, int, str]]], watchdog: int
) -> None:
    it, slow = board(max_on_us=100, watchdog_us=watchdog * 10), TickingBoard(10, watchdog)
    script = [(0, False, ("arm", 0, "")), *script]
    for wait, look, (action, width, line) in script:
        for _ in range(wait):
            slow.tick()
        at_ns = slow.now * 10 * US
        if look:
            assert it.levels(at_ns) == {name: name in slow.left for name in LINES}
        taken = slow.obey(action, width, line)
        if action in ("arm", "beat", "safe"):
            getattr(it, action)(at_ns)
        else:
            assert (it.execute(command(action, width * 10, line), at_ns) == "") == taken
    it.settle(slow.now * 10 * US)
    assert list(it.edges) == slow.edges


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


@pytest.mark.parametrize("max_on_ms", [0, -1, math.nan, math.inf, 60_001])
def test_a_line_without_a_limit_is_refused(max_on_ms: float) -> None:
    lines = {"laser": {"pin": 0, "max_on_ms": max_on_ms}}
    with pytest.raises(ValidationError, match="max_on_ms"):
        VirtualSettings.model_validate({"lines": lines})
