"""What every output must do; third-party ones too.

A plug-in's own tests derive a class from `OutputContract`, name the plug-in, and give the settings
that it needs beside its lines. With ``tests/contract`` on pytest's ``pythonpath`` (the examples
show how)::

    from test_output_contract import OutputContract

    class TestMyOutput(OutputContract):
        plugin = MyOutput
        settings = {"port": "/dev/ttyACM0"}

`HostTimedContract` has more for an output whose pulses the host times, and
`device_timed_contract.py` for one that times trains, levels and limits itself.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from rtpose.clock import now_ns
from rtpose.errors import OutputError
from rtpose.interfaces import Output, OutputInfo
from rtpose.messages import Ack, Command, InputEvent, Status, decode, encode
from rtpose_hardware.virtual import VirtualOutput

LINES = {"laser": {"pin": 0, "max_on_ms": 200}, "valve": {"pin": 1, "max_on_ms": 200}}
MAX_ON_US = 200_000
#: A device that says nothing for so long is broken; nothing is measured by it.
PATIENCE_NS = 10_000_000_000

Order = tuple[str, str, int]


def command(command_id: int, line: str, action: str, width_us: int, **more: Any) -> Command:
    return Command.model_validate(
        {
            "command_id": command_id,
            "output": "rig",
            "line": line,
            "action": action,
            "width_us": width_us,
            **more,
        }
    )


def pause(ms: float) -> None:
    """Let a device's own time pass."""
    threading.Event().wait(ms / 1000)


class OutputContract:
    """The suite. Every test gets an `output` that is not opened yet, and closes it.

    Attributes
    ----------
    plugin, settings
        The output, and the settings that it needs beside its lines.
    confirms
        Whether the device answers that its lines are low; one that cannot may never say `is_safe`.
    acknowledges
        Whether the device answers commands; where it does not, every ack must say so.
    """

    plugin: ClassVar[type[Output]]
    settings: ClassVar[Mapping[str, Any]] = {}
    confirms: ClassVar[bool] = True
    acknowledges: ClassVar[bool] = True

    @pytest.fixture
    def make_output(self) -> Callable[[], Output]:
        """Build outputs with the suite's lines; override it where `settings` is not enough."""
        config = self.plugin.Config.model_validate({"lines": LINES, **self.settings})
        build: Callable[..., Output] = self.plugin
        return lambda: build(config)

    @pytest.fixture
    def output(self, make_output: Callable[[], Output]) -> Iterator[Output]:
        output = make_output()
        yield output
        output.close()

    @pytest.fixture
    def armed(self, output: Output) -> Output:
        output.open()
        output.arm()
        return output

    def answers(self, output: Output, count: int) -> list[Ack]:
        """Wait for that many acknowledgements, beating meanwhile."""
        acks: list[Ack] = []
        deadline_ns = now_ns() + PATIENCE_NS
        while len(acks) < count and now_ns() < deadline_ns:
            output.beat()
            acks += output.acks()
            pause(1)
        assert len(acks) == count, f"{len(acks)} answers to {count} commands"
        return acks

    def is_refused(self, output: Output, order: Command) -> bool:
        """Send, and return whether the driver (by raising) or the device (by answer) refused."""
        try:
            output.send(order)
        except OutputError:
            return True
        (ack,) = self.answers(output, 1)
        assert ack.command_id == order.command_id
        assert ack.ok or ack.detail, "a refusal says why"
        return not ack.ok

    def test_unknown_settings_are_refused(self) -> None:
        settings = {"lines": LINES, **self.settings, "no_such_setting": 1}
        with pytest.raises(ValidationError, match="no_such_setting"):
            self.plugin.Config.model_validate(settings)

    def test_no_lines_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="lines"):
            self.plugin.Config.model_validate({**self.settings, "lines": {}})

    def test_it_says_what_it_is_and_how_long_it_waits_for_the_host(self, output: Output) -> None:
        info = output.open()
        assert isinstance(info, OutputInfo)
        assert info.device
        assert info.watchdog_ms is None or info.watchdog_ms > 0

    def test_nothing_is_sent_before_it_is_open(self, output: Output) -> None:
        with pytest.raises(OutputError):
            output.send(command(1, "laser", "pulse", 1000))

    def test_it_is_inert_until_armed(self, output: Output) -> None:
        output.open()
        for number, action in enumerate(("on", "pulse")):
            assert self.is_refused(output, command(number, "laser", action, 1000))

    def test_every_command_is_answered_once_and_in_order(self, armed: Output) -> None:
        orders: list[Order] = [
            ("laser", "on", MAX_ON_US),
            ("valve", "on", 1000),
            ("laser", "off", 0),
            ("valve", "off", 0),
            ("laser", "pulse", MAX_ON_US),
            ("laser", "off", 0),
            ("valve", "off", 0),
        ]
        command_id = 7
        for _ in range(3):
            sent = []
            for line, action, width_us in orders:
                before_ns = now_ns()
                command_ns = armed.send(command(command_id, line, action, width_us))
                assert before_ns <= command_ns <= now_ns()
                sent.append((command_id, "rig", line, True, command_ns))
                command_id += 1
            acks = self.answers(armed, len(orders))
            got = [(a.command_id, a.output, a.line, a.ok, a.command_ns) for a in acks]
            assert got == sent, [a.detail for a in acks]
            assert all(a.command_ns <= a.ack_ns <= now_ns() for a in acks)
            assert all(a.confirmed is self.acknowledges for a in acks)
            clock = [a.device_us for a in acks if a.device_us is not None]
            assert clock == sorted(clock)
        assert not armed.acks()

    def test_a_line_that_does_not_exist_is_refused_and_harms_nothing(self, armed: Output) -> None:
        with pytest.raises(OutputError, match="lazer"):
            armed.send(command(1, "lazer", "pulse", 1000))
        assert not self.is_refused(armed, command(2, "laser", "pulse", 1000))

    def test_a_train_is_taken_or_refused_but_never_something_else(self, armed: Output) -> None:
        train = command(1, "laser", "train", 1000, period_us=2000, count=3)
        assert self.is_refused(armed, train) is not self.plugin.takes_trains
        assert not self.is_refused(armed, command(2, "laser", "off", 0))

    @pytest.mark.parametrize(
        "order",
        [
            command(1, "laser", "pulse", 1),
            command(1, "laser", "pulse", 19),
            command(1, "laser", "pulse", 20),
            command(1, "laser", "train", 100, count=1),
            command(1, "laser", "train", 100, count=1, delay_us=99),
            command(1, "laser", "train", 100, count=1, delay_us=100),
            command(1, "laser", "train", 100, count=1, delay_us=60_000_001),
            command(1, "laser", "train", 481, count=2, period_us=500),
            command(1, "laser", "train", 480, count=2, period_us=500),
            command(1, "laser", "train", 100, count=2, period_us=499),
            command(1, "laser", "train", 100, count=2, period_us=60_000_001),
        ],
        ids=lambda c: f"{c.action}-{c.width_us}-{c.delay_us}-{c.period_us}",
    )
    def test_what_it_never_takes_is_said_before_the_run(
        self, armed: Output, order: Command
    ) -> None:
        assert self.is_refused(armed, order) is bool(self.plugin.misfit(order))

    def test_a_level_on_a_line_without_levels_is_refused(self, armed: Output) -> None:
        assert self.is_refused(armed, command(1, "laser", "on", 1000, level=0.5))
        assert not self.is_refused(armed, command(2, "laser", "on", 1000, level=1.0))

    def test_inputs_and_facts_never_wait_and_can_be_published(self, output: Output) -> None:
        assert isinstance(output.facts(), Mapping)
        output.open()
        output.arm()
        assert not self.is_refused(output, command(1, "laser", "pulse", 1000))
        assert all(isinstance(event, InputEvent) for event in output.inputs())
        info = {"facts": {"rig": dict(output.facts())}}
        status = Status(run="r", process="control", state="armed", sent_ns=now_ns(), info=info)
        assert decode(encode(status)) == status
        output.close()
        assert isinstance(output.facts(), Mapping)

    @pytest.mark.parametrize("action", ["on", "pulse"])
    def test_longer_than_a_line_may_be_on_is_refused(self, armed: Output, action: str) -> None:
        assert self.is_refused(armed, command(1, "laser", action, MAX_ON_US + 1))
        assert not self.is_refused(armed, command(2, "laser", action, MAX_ON_US))

    def test_after_safe_nothing_moves_until_it_is_armed_again(self, armed: Output) -> None:
        assert not self.is_refused(armed, command(1, "laser", "on", MAX_ON_US))
        assert not armed.is_safe, "safe is what was confirmed after the last safe()"
        armed.safe()
        assert armed.is_safe is self.confirms
        assert self.is_refused(armed, command(2, "laser", "on", 1000))
        armed.arm()
        assert not self.is_refused(armed, command(3, "laser", "on", 1000))

    def test_safe_and_close_never_raise(self, output: Output) -> None:
        output.safe()
        assert not output.is_safe, "nothing was confirmed by a device that was never open"
        output.open()
        output.safe()
        output.safe()
        assert output.is_safe is self.confirms
        output.arm()
        output.close()
        output.close()
        output.safe()

    def test_a_closed_output_sends_nothing(self, armed: Output) -> None:
        armed.close()
        with pytest.raises(OutputError):
            armed.send(command(1, "laser", "pulse", 1000))
        with pytest.raises(OutputError):
            armed.arm()

    def test_beats_keep_it_armed_and_silence_disarms_it(self, output: Output) -> None:
        watchdog_ms = output.open().watchdog_ms
        if watchdog_ms is None:
            pytest.skip("this output has no watchdog, which arming reports")
        output.arm()
        for _ in range(8):  # longer than the watchdog time
            output.beat()
            pause(watchdog_ms / 6)
        output.beat()
        assert not self.is_refused(output, command(1, "laser", "off", 0))
        for number in range(1, 8):  # its clock may be slower than ours
            pause(watchdog_ms * 2**number)
            if self.is_refused(output, command(1 + number, "laser", "on", 1000)):
                break
        else:
            pytest.fail(f"still armed long after its watchdog time of {watchdog_ms} ms")
        output.arm()
        assert not self.is_refused(output, command(100, "laser", "on", 1000))


Edges = list[tuple[str, bool]]


class HostTimedContract(OutputContract):
    """What an output must do beyond that if the host times its pulses.

    The lines are looked at from outside, through `edges`.
    """

    @pytest.fixture
    def edges(self) -> Callable[[], Edges]:
        """Return what tells how the lines changed so far, as ``(line, high)`` in order."""
        raise NotImplementedError

    @pytest.fixture
    def unplug(self) -> Callable[[], None]:
        """Return what takes the device away."""
        raise NotImplementedError

    def wait_for(self, edges: Callable[[], Edges], wanted: Edges) -> None:
        deadline_ns = now_ns() + PATIENCE_NS
        while edges() != wanted and now_ns() < deadline_ns:
            pause(2)
        assert edges() == wanted

    def test_a_pulse_ends_though_nobody_calls(
        self, armed: Output, edges: Callable[[], Edges]
    ) -> None:
        armed.send(command(1, "laser", "pulse", 20_000))
        armed.send(command(2, "valve", "on", 40_000))
        wanted = [("laser", True), ("valve", True), ("laser", False), ("valve", False)]
        self.wait_for(edges, wanted)

    def test_a_line_that_is_asked_for_again_and_again_falls_at_its_longest_on_time(
        self, armed: Output, edges: Callable[[], Edges]
    ) -> None:
        started_ns = now_ns()
        number = 0
        while len(edges()) < 2 and now_ns() < started_ns + PATIENCE_NS:
            number += 1
            armed.send(command(number, "laser", "on", MAX_ON_US))
            armed.beat()
            pause(10)
        assert edges()[:2] == [("laser", True), ("laser", False)]
        assert now_ns() - started_ns >= MAX_ON_US * 1000

    def test_a_pulse_on_a_high_line_is_refused(
        self, armed: Output, edges: Callable[[], Edges]
    ) -> None:
        assert not self.is_refused(armed, command(1, "laser", "on", MAX_ON_US))
        assert self.is_refused(armed, command(2, "laser", "pulse", 1000))
        assert not self.is_refused(armed, command(3, "laser", "off", 0))
        assert not self.is_refused(armed, command(4, "laser", "pulse", 1000))
        self.wait_for(edges, [("laser", True), ("laser", False)] * 2)

    @pytest.mark.parametrize("way_out", ["safe", "close"])
    def test_every_way_out_lets_a_line_fall_at_once_and_for_good(
        self, armed: Output, edges: Callable[[], Edges], way_out: str
    ) -> None:
        armed.send(command(1, "laser", "on", MAX_ON_US))
        getattr(armed, way_out)()
        wanted = [("laser", True), ("laser", False)]
        self.wait_for(edges, wanted)
        pause(MAX_ON_US / 1000 + 20)
        assert edges() == wanted, "an old deadline came to life"

    def test_unplugged_in_mid_command_it_raises_until_it_is_back(
        self, armed: Output, unplug: Callable[[], None]
    ) -> None:
        armed.send(command(1, "laser", "on", MAX_ON_US))
        unplug()
        deadline_ns = now_ns() + PATIENCE_NS
        with pytest.raises(OutputError):
            while now_ns() < deadline_ns:
                armed.acks()
                armed.beat()
                armed.send(command(2, "valve", "off", 0))
                pause(1)
        for call in (armed.beat, armed.arm):
            with pytest.raises(OutputError):
                call()
        with pytest.raises(OutputError):
            armed.send(command(3, "laser", "pulse", 1000))
        armed.safe()
        assert not armed.is_safe
        armed.close()


class TestVirtual(OutputContract):
    plugin = VirtualOutput
    settings: ClassVar[Mapping[str, Any]] = {"watchdog_ms": 1000}
