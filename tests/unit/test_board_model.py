"""The portable core of the TTL board's firmware, compared with a slow model of what it promises."""

import itertools
from dataclasses import dataclass, field

from core_rig import LIMIT_US, SESSION, WATCHDOG_US, Core
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpose_hardware import protocol
from rtpose_hardware.answers import Done
from rtpose_hardware.protocol import Reason, Request, StopMode


@dataclass
class Use:
    """An order that was carried out: when it is on, and whether it was cut."""

    rise_us: int
    width_us: int
    period_us: int
    count: int
    is_train: bool
    cut_us: int = 2**63

    @property
    def planned_end_us(self) -> int:
        return self.rise_us + self.width_us + (self.count - 1) * self.period_us

    def spans(self) -> list[tuple[int, int]]:
        rises = [self.rise_us + number * self.period_us for number in range(self.count)]
        return [(r, min(r + self.width_us, self.cut_us)) for r in rises if r <= self.cut_us]


@dataclass
class Line:
    """What a line may do, and has done."""

    longest_us: int
    refractory_us: int = 0
    dose_us: int = 0
    window_us: int = 0
    uses: list[Use] = field(default_factory=list)

    def running(self, now_us: int) -> Use | None:
        for use in self.uses:
            if now_us < min(use.planned_end_us, use.cut_us):
                return use
        return None

    def spans(self) -> list[tuple[int, int]]:
        return [span for use in self.uses for span in use.spans()]

    def last_fall_us(self, now_us: int) -> int:
        return max((fall for _, fall in self.spans() if fall <= now_us), default=-(2**63))

    def charged_us(self, since_us: int) -> int:
        """On-time of the uses that ended, by themselves or cut, after a time."""
        return sum(
            fall - rise
            for use in self.uses
            if not self.window_us or min(use.planned_end_us, use.cut_us) > since_us
            for rise, fall in use.spans()
        )

    def on_us(self, since_us: int) -> int:
        """On-time of the uses that were on after a time."""
        uses = [use.spans() for use in self.uses]
        return sum(
            fall - rise
            for spans in uses
            if spans and (not self.window_us or spans[-1][1] > since_us)
            for rise, fall in spans
        )

    def drop(self, now_us: int) -> bool:
        use = self.running(now_us)
        if use is not None:
            use.cut_us = now_us
        return use is not None


class Model:
    """What the board promises, without any of its economies."""

    def __init__(
        self, lines: list[Line], watchdog_us: int = WATCHDOG_US, start_us: int = 0
    ) -> None:
        self.now_us = self.heard_us = start_us
        self.armed = True
        self.well = True
        self.lines = lines
        self.watchdog_us = watchdog_us

    def pass_time(self, us: int) -> None:
        self.now_us += us
        if self.armed and self.now_us - self.heard_us >= self.watchdog_us:
            self.disarm(self.heard_us + self.watchdog_us)

    def disarm(self, at_us: int) -> None:
        self.armed = False
        for line in self.lines:
            line.drop(at_us)

    @property
    def high(self) -> int:
        now_us = self.now_us
        return sum(
            1 << number
            for number, line in enumerate(self.lines)
            if any(rise <= now_us < fall for rise, fall in line.spans())
        )

    def refusals(self, line: Line, delay_us: int, on_us: int) -> set[int | None]:
        """What the board may answer: None is yes. It may give dose back a quarter late."""
        if self.now_us + delay_us - line.last_fall_us(self.now_us) < line.refractory_us:
            return {Reason.REFRACTORY}
        if not line.dose_us:
            return {None}
        window_us = line.window_us
        may = line.on_us(self.now_us - window_us) + on_us <= line.dose_us
        late_us = window_us + window_us // 4 + 1
        must = line.charged_us(self.now_us - late_us) + on_us <= line.dose_us
        return {None} if must else {Reason.DOSE, None} if may else {Reason.DOSE}

    def on(self, kind: Request, number: int, width_us: int, done: Done) -> None:
        line = self.lines[number]
        use = line.running(self.now_us)
        if not self.armed:
            assert done.reason == Reason.DISARMED
        elif not protocol.MIN_WIDTH_US <= width_us <= line.longest_us:
            assert done.reason == Reason.WIDTH
        elif use and (use.is_train or kind == Request.PULSE):
            assert done.reason == Reason.BUSY
        elif use:
            assert (done.moved, done.reason) == (False, None)
            longest_us = line.longest_us
            if line.dose_us:
                spent_us = line.charged_us(0) - use.width_us
                longest_us = min(longest_us, line.dose_us - spent_us)
            elapsed_us = self.now_us - use.rise_us
            if elapsed_us + protocol.MIN_DELAY_US <= longest_us:
                new_us = elapsed_us + max(width_us, protocol.MIN_DELAY_US)
                use.width_us = min(new_us, longest_us)
        else:
            assert done.reason in self.refusals(line, 0, width_us)
            if done.moved:
                line.uses.append(Use(self.now_us, width_us, 0, 1, False))

    def train(self, number: int, figures: tuple[int, int, int, int], done: Done) -> None:
        delay_us, width_us, period_us, count = figures
        line = self.lines[number]
        if not self.armed:
            assert done.reason == Reason.DISARMED
        elif count > 1 and period_us - width_us < max(line.refractory_us, protocol.MIN_WIDTH_US):
            assert done.reason in (Reason.VALUE, Reason.REFRACTORY)
        elif line.running(self.now_us):
            assert done.reason == Reason.BUSY
        elif done.reason != Reason.RATE:
            assert done.reason in self.refusals(line, delay_us, width_us * count)
            if done.moved:
                use = Use(self.now_us + delay_us, width_us, period_us, count, True)
                assert done.time_us == use.rise_us % 2**32
                line.uses.append(use)


#: Steps (what is asked, of which line or input, with which figures), each with a pause after it.
Script = list[tuple[tuple[Request, int | None, object], int]]

#: Beginnings shortly before the chip's counter of cycles, and the protocol's of us, wrap.
starts_us = st.sampled_from([0, 2**28 - 40_000, 2**32 - 60_000, 2**32 - 500])

numbers = st.integers(0, 3)
widths_us = st.one_of(
    st.integers(protocol.MIN_WIDTH_US, LIMIT_US),
    st.sampled_from([1, protocol.MIN_WIDTH_US, LIMIT_US, LIMIT_US + 1, 2 * LIMIT_US]),
)
trains = st.tuples(
    st.sampled_from([0, 100, 4000]),
    st.integers(20, 4000),
    st.integers(1000, 9000),
    st.integers(1, 8),
)
steps = st.one_of(
    st.tuples(st.sampled_from([Request.ON, Request.PULSE, Request.LEVEL]), numbers, widths_us),
    st.tuples(st.just(Request.TRAIN), numbers, trains),
    st.tuples(st.just(Request.OFF), numbers, st.none()),
    st.tuples(
        st.sampled_from([Request.BEAT, Request.SAFE, Request.ARM, Request.ARM]),
        st.none(),
        st.none(),
    ),
    st.tuples(st.just(Request.STOP_INPUT), st.booleans(), st.none()),
    st.tuples(st.just(Request.LIMIT), numbers, st.none()),
)
pauses_us = st.one_of(
    st.integers(0, LIMIT_US // 2), st.integers(0, WATCHDOG_US * 3 // 2), st.sampled_from([0, 3000])
)


def start_like(model: Model, core: Core) -> None:
    core.reset()
    for _ in range(20):  # all at once would be more than the core takes
        core.advance_us(model.now_us // 20)
    core.advance_us(model.now_us % 20)
    for number, line in enumerate(model.lines):
        core.ask(Request.LIMIT, limit_of(number, line))
    core.ask(Request.STOP_INPUT, protocol.stop_input_data(StopMode.HIGH))
    core.ask(Request.WATCHDOG, protocol.watchdog_data(model.watchdog_us // 1000))
    core.ask(Request.ARM, protocol.arm_data(SESSION))


def limit_of(number: int, line: Line) -> bytes:
    return protocol.limit_data(
        number, line.longest_us, line.refractory_us, line.dose_us, line.window_us
    )


def do(model: Model, core: Core, kind: Request, what: int | None, figures: object) -> None:
    """Do one step on the board and on the model, and compare the answers."""
    if kind == Request.STOP_INPUT:
        model.well = bool(what)
        core.stop(well=model.well)
        core.advance_us(0)
        if model.armed and not model.well:
            model.disarm(model.now_us)
        return
    if kind == Request.ARM:
        answer = core.ask(kind, protocol.arm_data(SESSION))
        assert isinstance(answer, Done)
        assert answer.moved == model.well
        model.armed = model.armed or model.well
    elif kind == Request.SAFE:
        core.ask(kind)
        model.disarm(model.now_us)
    elif kind == Request.BEAT:
        core.ask(kind)
    elif what is not None:
        order(model, core, kind, what, figures)
    model.heard_us = model.now_us


def order(model: Model, core: Core, kind: Request, number: int, figures: object) -> None:
    line = model.lines[number]
    if kind == Request.OFF:
        assert core.order(kind, number).moved == line.drop(model.now_us)
    elif kind == Request.LIMIT:  # the same limit once more, while disarmed: nothing changes
        core.ask(kind, limit_of(number, line))
    elif isinstance(figures, tuple):
        model.train(number, figures, core.train(number, *figures))
    elif isinstance(figures, int):
        running = line.running(model.now_us)
        if line.window_us and running and not running.is_train and kind != Request.PULSE:
            return  # how far it may be extended depends on what is given back by then
        if kind == Request.LEVEL and number in (1, 2):
            model.on(kind, number, figures, core.level(number, 50, figures))
        elif kind != Request.LEVEL:
            model.on(kind, number, figures, core.order(kind, number, figures))


def most_on_us(spans: list[tuple[int, int]], window_us: int) -> int:
    """The on-time in the worst window: it may be taken to begin or end at an edge."""
    starts = [rise for rise, _ in spans] + [fall - window_us for _, fall in spans]
    return max(
        (
            sum(max(0, min(fall, start + window_us) - max(rise, start)) for rise, fall in spans)
            for start in starts
        ),
        default=0,
    )


def run(model: Model, core: Core, script: Script) -> None:
    """Do all steps on the board and on the model, and compare every edge."""
    start_like(model, core)
    for (kind, what, figures), pause_us in script:
        do(model, core, kind, what, figures)
        assert core.high == model.high
        core.advance_us(pause_us)
        model.pass_time(pause_us)
        assert core.high == model.high
    core.advance_us(2 * model.watchdog_us)
    model.pass_time(2 * model.watchdog_us)
    for number, line in enumerate(model.lines):
        spans = core.spans_us(number)
        assert spans == [span for span in line.spans() if span[0] < span[1]]
        for (_, fall), (rise, _) in itertools.pairwise(spans):
            assert rise - fall >= line.refractory_us
        assert all(fall - rise <= line.longest_us for rise, fall in spans)
        if line.dose_us:
            assert most_on_us(spans, line.window_us or 2**62) <= line.dose_us


@settings(max_examples=250, deadline=None)
@given(st.lists(st.tuples(steps, pauses_us), max_size=40), starts_us)
def test_the_lines_do_what_was_ordered_within_every_limit(
    core: Core, script: Script, start_us: int
) -> None:
    """Whatever is ordered whenever, compare the board with a model of what it promises."""
    lines = [
        Line(LIMIT_US),
        Line(LIMIT_US, refractory_us=3000),
        Line(LIMIT_US, refractory_us=100, dose_us=30_000, window_us=100_000),
        Line(LIMIT_US, dose_us=60_000),
    ]
    run(Model(lines, start_us=start_us), core, script)


#: Around the borders of `near_limits`, where a wrong unit or comparison shows.
near_widths_us = st.sampled_from([20, 500, 999, 1000, 2000, 3999, 4000, 4001])
near_pauses_us = st.sampled_from([0, 1, 499, 500, 501, 1000, 1999, 2000, 2001, 4000, 7999, 8000])
near_steps = st.one_of(
    st.tuples(st.just(Request.PULSE), st.just(0), near_widths_us),
    st.tuples(st.just(Request.ON), st.just(0), near_widths_us),
    st.tuples(
        st.just(Request.TRAIN),
        st.just(0),
        st.tuples(
            st.sampled_from([0, 100, 499, 500, 8000]),
            st.sampled_from([100, 500, 2000]),
            st.sampled_from([1000, 2500, 10_000]),
            st.integers(1, 5),
        ),
    ),
    st.tuples(st.just(Request.OFF), st.just(0), st.none()),
)
near_limits = st.sampled_from(
    [(500, 0, 0), (0, 4000, 8000), (0, 4001, 8002), (0, 20_000, 0), (500, 4000, 8000)]
)


@settings(max_examples=500, deadline=None)
@given(
    near_limits,
    st.lists(st.tuples(near_steps, near_pauses_us), min_size=5, max_size=40),
    starts_us,
)
def test_refractory_time_and_dose_hold_to_the_microsecond(
    core: Core,
    limit: tuple[int, int, int],
    script: Script,
    start_us: int,
) -> None:
    run(Model([Line(LIMIT_US, *limit)], 1_000_000, start_us), core, script)
