"""What an output must do beyond `OutputContract` if the device itself times what it does.

Trains, levels, limits that the device holds on its own, inputs, and an emergency stop. A plug-in's
tests derive a class and give the fixtures of `DeviceTimedContract` that raise here.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from test_output_contract import PATIENCE_NS, Edges, OutputContract, command, pause

from rtpose.clock import now_ns
from rtpose.errors import OutputError
from rtpose.interfaces import Output
from rtpose.messages import InputEvent

MAX_ON_US = 200_000
LASER = {"pin": 0, "max_on_ms": MAX_ON_US / 1000}
#: A lamp can take levels.
LAMP = {"pin": 1, "max_on_ms": MAX_ON_US / 1000, "levels": True}

#: Longer than any test sends beats for: an order that is to fall by itself must not live so long.
TRAIN: Mapping[str, int] = {"period_us": 3000, "count": 5}
ENDLESS: Mapping[str, int] = {"period_us": 20_000, "count": 3000}

MakeWith = Callable[[Mapping[str, Any]], Output]
Drive = Callable[[bool], None]


class DeviceTimedContract(OutputContract):
    """The suite; lines are looked at from outside, through `edges`."""

    @pytest.fixture
    def make_with(self) -> MakeWith:
        """Return what builds an output with certain lines, under the names laser and lamp."""
        raise NotImplementedError

    @pytest.fixture
    def make_output(self, make_with: MakeWith) -> Callable[[], Output]:
        """Build the output that the general suite looks at."""
        return lambda: make_with({"laser": LASER, "valve": {**LAMP, "levels": False}})

    @pytest.fixture
    def edges(self) -> Callable[[], Edges]:
        """Return what tells how the lines changed so far, as ``(line, high)`` in order."""
        raise NotImplementedError

    @pytest.fixture
    def unplug(self) -> Callable[[], None]:
        """Return what takes the host away from the device, which goes on."""
        raise NotImplementedError

    @pytest.fixture
    def arm_with(self, make_with: MakeWith) -> Iterator[Callable[..., Output]]:
        """Return what builds, opens and arms an output with certain lines."""
        made: list[Output] = []

        def build(**lines: Mapping[str, Any]) -> Output:
            made.append(make_with(lines))
            made[-1].open()
            made[-1].arm()
            return made[-1]

        yield build
        for output in made:
            output.close()

    def settle(self, output: Output, edges: Callable[[], Edges], count: int) -> Edges:
        """Beat until there are that many edges, and a while longer; return what there is."""
        deadline_ns = now_ns() + PATIENCE_NS
        while len(edges()) < count and now_ns() < deadline_ns:
            output.beat()
            output.acks()
            pause(2)
        for _ in range(10):
            output.beat()
            output.acks()
            pause(2)
        return edges()

    def until_taken(self, output: Output, line: str, width_us: int, first_id: int) -> None:
        """Order a pulse again and again until the device takes it."""
        deadline_ns = now_ns() + PATIENCE_NS
        number = first_id
        while self.is_refused(output, command(number, line, "pulse", width_us)):
            assert now_ns() < deadline_ns, "refused for ever"
            number += 1
            pause(5)

    # ------------------------------------------------------------------------------- trains

    def test_a_train_is_that_many_pulses(
        self, arm_with: Callable[..., Output], edges: Callable[[], Edges]
    ) -> None:
        output = arm_with(laser=LASER)
        assert not self.is_refused(output, command(1, "laser", "train", 1000, **TRAIN))
        assert self.settle(output, edges, 10) == [("laser", True), ("laser", False)] * 5
        assert not self.is_refused(output, command(2, "laser", "pulse", 1000))

    def test_a_delayed_train_is_answered_at_once_with_the_time_of_its_first_rise(
        self, arm_with: Callable[..., Output], edges: Callable[[], Edges]
    ) -> None:
        output = arm_with(laser=LASER)
        output.send(command(1, "laser", "off", 0))
        output.send(command(2, "laser", "train", 1000, delay_us=5_000_000, **TRAIN))
        now, later = self.answers(output, 2)
        assert later.ok
        if now.device_us is not None and later.device_us is not None:
            assert later.device_us - now.device_us >= 5_000_000
        assert not self.is_refused(output, command(3, "laser", "off", 0))
        assert not self.is_refused(output, command(4, "laser", "pulse", 1000))
        assert self.settle(output, edges, 2) == [("laser", True), ("laser", False)]

    def test_in_a_train_only_off_is_obeyed(
        self, arm_with: Callable[..., Output], edges: Callable[[], Edges]
    ) -> None:
        output = arm_with(laser=LASER)
        assert not self.is_refused(output, command(1, "laser", "train", 1000, **ENDLESS))
        assert self.is_refused(output, command(2, "laser", "pulse", 1000))
        assert self.is_refused(output, command(3, "laser", "train", 1000, **TRAIN))
        self.settle(output, edges, 4)
        assert not self.is_refused(output, command(4, "laser", "off", 0))
        ended = edges()
        assert self.settle(output, edges, 0) == ended
        assert ended[-1] == ("laser", False)

    @pytest.mark.parametrize("way_out", ["safe", "close"])
    def test_every_way_out_ends_a_train_for_good(
        self, arm_with: Callable[..., Output], edges: Callable[[], Edges], way_out: str
    ) -> None:
        output = arm_with(laser=LASER)
        assert not self.is_refused(output, command(1, "laser", "train", 15_000, **ENDLESS))
        self.settle(output, edges, 3)
        getattr(output, way_out)()
        ended = edges()
        pause(100)
        assert edges() == ended
        assert ended[-1] == ("laser", False)

    def test_unplugged_in_mid_train_it_raises_and_the_device_ends_it(
        self,
        arm_with: Callable[..., Output],
        edges: Callable[[], Edges],
        unplug: Callable[[], None],
    ) -> None:
        output = arm_with(laser=LASER)
        assert not self.is_refused(output, command(1, "laser", "train", 15_000, **ENDLESS))
        self.settle(output, edges, 3)
        unplug()
        with pytest.raises(OutputError):
            self.settle(output, edges, 10_000)
        for call in (output.beat, output.arm):
            with pytest.raises(OutputError):
                call()
        output.safe()
        assert not output.is_safe
        deadline_ns = now_ns() + PATIENCE_NS
        before: Edges = []
        while (now := edges()) != before or now[-1][1]:  # until it stands still, and low
            assert now_ns() < deadline_ns, "the train goes on without a host"
            before = now
            pause(500)

    def test_a_train_beyond_the_limits_of_its_line_is_refused(
        self, arm_with: Callable[..., Output], edges: Callable[[], Edges]
    ) -> None:
        output = arm_with(laser={**LASER, "refractory_ms": 2, "dose_ms": 20})
        too_wide = {"period_us": MAX_ON_US + 5000, "count": 2}
        for number, (width_us, train) in enumerate(
            [
                (MAX_ON_US + 1, too_wide),
                (1000, {"period_us": 2999, "count": 2}),  # low for less than the refractory time
                (1000, {"period_us": 5000, "count": 21}),  # 21 ms
            ]
        ):
            assert self.is_refused(output, command(number, "laser", "train", width_us, **train))
        fits = command(10, "laser", "train", 1000, period_us=3000, count=20)
        assert not self.is_refused(output, fits)
        assert self.settle(output, edges, 40) == [("laser", True), ("laser", False)] * 20

    # ------------------------------------------------------------------------------- levels

    def test_a_level_is_taken_changed_and_ends_as_any_on_does(
        self, arm_with: Callable[..., Output], edges: Callable[[], Edges]
    ) -> None:
        output = arm_with(lamp=LAMP)
        for number, level in enumerate((0.1, 0.5, 0.25, 1.0)):
            order = command(number, "lamp", "on", MAX_ON_US, level=level)
            assert not self.is_refused(output, order)
        assert self.is_refused(output, command(9, "lamp", "pulse", 1000))
        assert self.settle(output, edges, 2) == [("lamp", True), ("lamp", False)]
        assert not self.is_refused(output, command(10, "lamp", "on", 1000, level=0.5))
        assert not self.is_refused(output, command(11, "lamp", "off", 0))
        assert self.is_refused(output, command(12, "lamp", "on", MAX_ON_US + 1, level=0.01))

    @pytest.mark.parametrize("way_out", ["safe", "close"])
    def test_every_way_out_ends_a_level(
        self, arm_with: Callable[..., Output], edges: Callable[[], Edges], way_out: str
    ) -> None:
        output = arm_with(lamp=LAMP)
        assert not self.is_refused(output, command(1, "lamp", "on", MAX_ON_US, level=0.5))
        getattr(output, way_out)()
        pause(MAX_ON_US / 1000 + 20)
        assert edges() == [("lamp", True), ("lamp", False)]

    # ------------------------------------------------- limits that the device holds by itself

    def test_the_refractory_time_is_held_by_the_device(
        self, arm_with: Callable[..., Output]
    ) -> None:
        slow = {"refractory_ms": 60_000, "dose_ms": 1000}
        output = arm_with(laser={**LASER, **slow}, lamp={**LAMP, "levels": False})
        assert not self.is_refused(output, command(1, "laser", "on", MAX_ON_US))
        assert not self.is_refused(output, command(2, "laser", "off", 0))
        assert self.is_refused(output, command(3, "laser", "pulse", 1000))
        output.safe()
        output.arm()
        assert self.is_refused(output, command(4, "laser", "pulse", 1000)), "arming ended it"
        assert not self.is_refused(output, command(5, "lamp", "pulse", 1000))

    def test_after_the_refractory_time_it_may_rise_again(
        self, arm_with: Callable[..., Output]
    ) -> None:
        output = arm_with(laser={**LASER, "refractory_ms": 100})
        assert not self.is_refused(output, command(1, "laser", "pulse", 1000))
        self.until_taken(output, "laser", 1000, 2)

    def test_a_dose_in_a_window_is_held_by_the_device_over_a_new_arming(
        self, arm_with: Callable[..., Output], edges: Callable[[], Edges]
    ) -> None:
        output = arm_with(laser={**LASER, "dose_ms": 100, "dose_window_s": 600})
        assert not self.is_refused(output, command(1, "laser", "pulse", 60_000))
        self.settle(output, edges, 2)
        output.safe()
        output.arm()
        assert self.is_refused(output, command(2, "laser", "pulse", 40_001))
        assert not self.is_refused(output, command(3, "laser", "pulse", 40_000))

    def test_what_off_saves_of_a_dose_is_given_back(self, arm_with: Callable[..., Output]) -> None:
        output = arm_with(laser={**LASER, "dose_ms": 1000, "dose_window_s": 600})
        for number in range(20):  # 4 s if nothing was given back
            assert not self.is_refused(output, command(number, "laser", "on", MAX_ON_US))
            assert not self.is_refused(output, command(number, "laser", "off", 0))

    def test_a_dose_comes_back_after_its_window(
        self, arm_with: Callable[..., Output], edges: Callable[[], Edges]
    ) -> None:
        output = arm_with(laser={**LASER, "dose_ms": 150, "dose_window_s": 2})
        assert not self.is_refused(output, command(1, "laser", "pulse", 150_000))
        self.settle(output, edges, 2)
        assert self.is_refused(output, command(2, "laser", "pulse", 1000))
        self.until_taken(output, "laser", 150_000, 3)

    def test_a_dose_without_a_window_begins_anew_with_each_arming(
        self, arm_with: Callable[..., Output], edges: Callable[[], Edges]
    ) -> None:
        output = arm_with(laser={**LASER, "dose_ms": 20})
        for arming in range(2):
            assert not self.is_refused(output, command(1, "laser", "pulse", 20_000))
            self.settle(output, edges, 2 * arming + 2)
            assert self.is_refused(output, command(2, "laser", "pulse", 1000))
            output.safe()
            output.arm()


class InputContract(OutputContract):
    """What an output with inputs and an emergency stop must do.

    The suite drives an input called lick, which reports both edges, and the stop.
    """

    @pytest.fixture
    def lick(self) -> Drive:
        """Return what makes the input high or low; it starts low."""
        raise NotImplementedError

    @pytest.fixture
    def press(self) -> Drive:
        """Return what presses (True) and releases the emergency stop; it starts released."""
        raise NotImplementedError

    def events(self, output: Output, count: int) -> list[InputEvent]:
        """Wait for that many events, beating meanwhile."""
        events: list[InputEvent] = []
        deadline_ns = now_ns() + PATIENCE_NS
        while len(events) < count and now_ns() < deadline_ns:
            output.beat()
            output.acks()
            events += output.inputs()
            pause(1)
        assert len(events) == count, events
        return events

    @pytest.mark.parametrize("arm", [False, True])
    def test_edges_are_told_in_order_armed_or_not(
        self, output: Output, lick: Drive, arm: bool
    ) -> None:
        output.open()
        if arm:
            output.arm()
        for level in (True, False, True, False):
            lick(level)
            (event,) = self.events(output, 1)
            assert (event.input, event.level, event.stop, event.missed) == ("lick", level, False, 0)
            assert event.arrival_ns <= now_ns()
            if event.time_ns is not None:
                assert event.uncertainty_ns is not None
                # On the host's clock; an emulated device that is held up may be somewhat late.
                assert abs(event.time_ns - event.arrival_ns) < 1_000_000_000
        assert not output.inputs()

    def test_edges_while_it_is_armed_anew_are_not_lost(self, output: Output, lick: Drive) -> None:
        output.open()
        for level in (True, False) * 3:
            lick(level)
            output.arm()
            output.safe()
        events = self.events(output, 6)
        assert [event.level for event in events] == [True, False] * 3

    def test_the_stop_drops_lines_is_told_and_is_no_failure(
        self, output: Output, press: Drive
    ) -> None:
        output.open()
        output.arm()
        assert not self.is_refused(output, command(1, "laser", "on", MAX_ON_US))
        press(True)
        (event,) = self.events(output, 1)
        assert event.stop
        assert self.is_refused(output, command(2, "laser", "on", 1000))
        output.beat()
        assert not output.acks()
        output.safe()
        assert output.is_safe is self.confirms
        with pytest.raises(OutputError, match="stop"):
            output.arm()
        press(False)
        self.arm_when_it_may(output)
        assert not self.is_refused(output, command(3, "laser", "on", 1000))

    def test_it_is_not_armed_while_the_stop_is_pressed(self, output: Output, press: Drive) -> None:
        output.open()
        press(True)
        deadline_ns = now_ns() + PATIENCE_NS
        with pytest.raises(OutputError, match="stop"):
            while now_ns() < deadline_ns:  # the device may not have seen it yet
                output.arm()
                output.safe()
        press(False)
        self.arm_when_it_may(output)

    def arm_when_it_may(self, output: Output) -> None:
        deadline_ns = now_ns() + PATIENCE_NS
        while True:
            try:
                return output.arm()
            except OutputError:
                assert now_ns() < deadline_ns, "it stays stopped"
                output.safe()
                pause(5)
