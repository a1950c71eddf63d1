"""What outputs on devices without a clock have in common: the host times their pulses.

A subclass says how to reach the device, how to set one line, and how to read its answers if it
gives any. Limits, deadlines, the watchdog over control and the bookkeeping of answers are here.
"""

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar, Final, NamedTuple

from rtpose.clock import now_ns
from rtpose.errors import OutputError, RtposeError
from rtpose.interfaces import Output, OutputInfo, OutputSettings
from rtpose.messages import Ack, Command
from rtpose_hardware.board_orders import misfit
from rtpose_hardware.guard import Guard
from rtpose_hardware.virtual_board import VirtualBoard

_NS_PER_S: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000

#: `Output`: no call blocks for longer than 100 ms.
_ANSWER_TIMEOUT_NS: Final = 90 * _NS_PER_MS
_JOIN_TIMEOUT_S: Final = 1.0
#: How soon to try again to drop a line that could not be dropped.
_AGAIN_S: Final = 0.02

#: Control beats at least every 250 ms.
DEFAULT_WATCHDOG_MS: Final = 1000


class Answer(NamedTuple):
    """What a device says of one of its lines.

    Attributes
    ----------
    pin : int or None
        Which line; None if the answer does not tell.
    high : bool or None
        Its level; None if the answer does not tell.
    text : str
        The answer in words, for the user.
    """

    pin: int | None
    high: bool | None
    text: str


class _Expected(NamedTuple):
    """A line was set, and the device has not answered yet."""

    command: Command | None  #: None if the driver itself let the line fall
    line: str
    high: bool
    sent_ns: int


class HostTimedOutput(Output):
    """Drive a device that only knows "this line high" and "this line low".

    A daemon thread of the driver lets every line fall when its time is up, and all of them when
    control has not called `beat` for `watchdog_ms`: also while control hangs. It is late by as much
    as the operating system and Python's lock make it late. It does nothing in a process that is
    stopped or killed; `OutputInfo.watchdog_ms` is None unless a `Guard` covers that too.

    Its lines keep the same limits as a board's, refractory time and dose too, and know on and off:
    a train or a level is refused.

    Any failure drops what can be dropped, and tries the rest again until it can be. It makes
    `acks`, `beat` and `send` raise `OutputError` until `arm` succeeds; answers that came before are
    returned first.

    Attributes
    ----------
    answers : bool
        Whether the device answers. If not, acks have ``confirmed=False`` and `is_safe` stays False.
    watchdog_ms : int
        After how long without `beat` every line falls.
    ack_timeout_ms : int
        A device that answers, and has not for so long, has failed.
    """

    answers: ClassVar[bool] = False
    watchdog_ms: int = DEFAULT_WATCHDOG_MS
    ack_timeout_ms: int = 500

    def __init__(self, config: OutputSettings) -> None:
        self._lines = config.lines
        # Guards everything below and the device: control and the timing thread take turns.
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None
        self._guard: Guard | None = None
        self._is_safe = False
        self._start_anew()

    def _start_anew(self) -> None:
        self._board = VirtualBoard(self._lines, self.watchdog_ms * _NS_PER_MS)
        self._armed = False
        self._closing = False
        self._fault: str | None = None
        self._acks: list[Ack] = []
        self._expected: deque[_Expected] = deque()
        self._undropped: list[str] = []  # lines that a failure may have left high

    # --------------------------------------------------------------- what a subclass provides

    @abstractmethod
    def _connect(self) -> OutputInfo:
        """Reach the device, with all lines low; raise `OutputError` if it cannot be used."""

    @abstractmethod
    def _set(self, pin: int, high: bool, line: str, width_us: int) -> None:
        """Hand one level to the operating system, without waiting for an answer.

        Parameters
        ----------
        pin, line : int, str
            Which line, by its number and by its name.
        high : bool
        width_us : int
            How long it may stay high from now on; 0 if low.

        Raises
        ------
        OutputError
            If the device is gone.
        """

    @abstractmethod
    def _disconnect(self) -> None:
        """Release the device; must not raise, and may be called after a failed `_connect`."""

    def _receive(self, timeout_s: float) -> Sequence[Answer]:
        """Return the answers that came, waiting at most so long for the first.

        The device answers every `_set`, in order. Raises `OutputError` if it is gone.
        """
        return ()

    def _check_device(self) -> None:
        """Raise `OutputError` if the device is gone; called with every beat."""

    def _check_ready(self) -> None:
        """Raise `OutputError` with the reason if the device cannot be armed now."""

    # ------------------------------------------------------------------------------ Output

    def open(self) -> OutputInfo:
        """Reach the device and leave all its lines low."""
        with self._turn:
            if self._thread is not None:
                raise OutputError("the output is open already")
            self._start_anew()
            try:
                info = self._connect()
                self._let_all_fall()
            except RtposeError:
                self._release()
                raise
            name = f"pulses of {info.device}"
            self._thread = threading.Thread(target=self._keep_time, name=name, daemon=True)
            self._thread.start()
        return info

    def arm(self) -> None:
        """Let `send` reach the lines; raise `OutputError` if the device is not there or ready."""
        with self._turn:
            self._check_open()
            self._fault = None
            self._is_safe = False
            self._give_up("no ack: it was armed anew")
            self._receive(0.0)  # what answers something that was given up
            self._check_ready()
            self._let_all_fall()
            self._undropped = []
            self._board.arm(now_ns())
            if self._guard is not None:
                self._guard.arm()
            self._armed = True

    @classmethod
    def misfit(cls, command: Command) -> str:
        """Say why the host never times a command."""
        return super().misfit(command) or misfit(command)

    def send(self, command: Command) -> int:
        """Set one line now; the thread lets it fall in time."""
        with self._turn:
            self._check_open()
            self._check_fault()
            if command.line not in self._lines:
                known = ", ".join(self._lines)
                raise OutputError(f"the output has no line {command.line!r} (lines: {known})")
            if not self._armed:
                raise OutputError(f"line {command.line!r}: the output is not armed")
            at_ns = now_ns()
            self._end_what_is_due(at_ns)
            self._check_fault()
            if command.action == "train":
                refusal = "trains need a device with a clock of its own"
            else:
                refusal = self._board.execute(command, at_ns)
            if refusal:
                self._acknowledge(command, False, at_ns, refusal)
                return at_ns
            self._board.edges.clear()
            try:
                sent_ns = self._drive(command.line, command.action != "off", command)
            except OutputError as error:
                self._fail(str(error))
                raise
            self._turn.notify()  # of the new deadline
            return sent_ns

    def acks(self) -> Sequence[Ack]:
        """Return the answers since the last call, oldest first."""
        with self._turn:
            self._check_open()
            if self._fault is None:
                self._attempt(self._collect)
            acks, self._acks = self._acks, []
            if not acks:
                self._check_fault()
            return acks

    def beat(self) -> None:
        """Say that control lives."""
        with self._turn:
            self._check_open()
            self._check_fault()
            self._attempt(self._check_device)
            if self._guard is not None:
                self._attempt(self._guard.beat)
            self._check_fault()
            self._board.beat(now_ns())

    def safe(self) -> None:
        """Let every line fall and disarm."""
        with self._turn:
            self._is_safe = False
            self._armed = False
            if self._thread is None:
                return
            self._board.safe(now_ns())
            self._board.edges.clear()
            try:
                self._let_all_fall()
                self._is_safe = self.answers
                if self._guard is not None:
                    self._guard.disarm()
            except OutputError as error:
                self._fault = self._fault or str(error)
                self._give_up(f"no ack: {error}")
                self._undropped = list(self._lines)
                self._turn.notify()

    @property
    def is_safe(self) -> bool:
        """Whether the device answered, since the last `safe`, that all its lines are low."""
        return self._is_safe

    def close(self) -> None:
        """Make safe, end the thread, release the device."""
        self.safe()
        thread = self._thread
        if thread is None:
            return
        with self._turn:
            self._closing = True
            self._turn.notify()
        thread.join(_JOIN_TIMEOUT_S)
        with self._turn:
            self._thread = None
            self._release()

    # ------------------------------------------------------------- with the turn taken, below

    def _release(self) -> None:
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        self._disconnect()

    def _check_open(self) -> None:
        if self._thread is None:
            raise OutputError("the output is not open")

    def _check_fault(self) -> None:
        if self._armed and not self._board.is_armed(now_ns()):
            self._fail(f"no beat of control for {self.watchdog_ms} ms: all lines low, disarmed")
        if self._fault is not None:
            raise OutputError(f"{self._fault}; arm it again")

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except OutputError as error:
            self._fail(str(error))

    def _fail(self, why: str) -> None:
        """Disarm, and drop what can still be dropped."""
        self._fault = self._fault or why
        self._armed = False
        self._board.safe(now_ns())
        self._board.edges.clear()
        self._give_up(f"no ack: {why}")
        self._undropped = list(self._lines)
        self._drop_again()
        self._turn.notify()  # the thread tries again, if need be

    def _drop_again(self) -> None:
        """Drop the lines that a failure may have left high; the fault itself is told elsewhere."""
        remaining = []
        for name in self._undropped:
            try:
                self._drive(name, False, None)
            except OutputError:
                remaining.append(name)
        self._undropped = remaining
        self._expected.clear()

    def _drive(self, name: str, high: bool, command: Command | None) -> int:
        width_us = command.width_us if command is not None else 0
        try:
            self._set(self._lines[name].pin, high, name, width_us)
        except OutputError:
            raise
        except Exception as error:  # a flaw in one driver must not leave another line high
            raise OutputError(f"line {name!r} could not be set: {error!r}") from error
        sent_ns = now_ns()
        if self.answers:
            self._expected.append(_Expected(command, name, high, sent_ns))
        elif command is not None:
            self._acknowledge(command, True, sent_ns, "handed over; nothing answers", sent_ns)
        return sent_ns

    def _let_all_fall(self) -> None:
        """Set every line low; raise `OutputError` if one cannot be, or is not confirmed in time."""
        failures = []
        for name in self._lines:
            try:
                self._drive(name, False, None)
            except OutputError as error:
                failures.append(str(error))
        if failures:
            raise OutputError(failures[0])
        deadline_ns = now_ns() + _ANSWER_TIMEOUT_NS
        while self._expected:
            left_ns = deadline_ns - now_ns()
            if left_ns <= 0:
                raise OutputError("the device did not confirm in time that its lines are low")
            self._take(self._receive(left_ns / _NS_PER_S))

    def _collect(self) -> None:
        self._take(self._receive(0.0))
        if self._expected:
            waited_ns = now_ns() - self._expected[0].sent_ns
            if waited_ns > self.ack_timeout_ms * _NS_PER_MS:
                raise OutputError(f"the device has not answered for {self.ack_timeout_ms} ms")

    def _take(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if not self._expected:
                return  # to something that was given up
            command, name, high, sent_ns = self._expected.popleft()
            agrees = (answer.pin, answer.high) == (self._lines[name].pin, high)
            if command is not None:
                detail = "" if agrees else f"the device answered: {answer.text}"
                self._acknowledge(command, agrees, sent_ns, detail, now_ns(), confirmed=True)
            elif not agrees:
                raise OutputError(f"line {name!r} was set low; the device answered: {answer.text}")

    def _give_up(self, why: str) -> None:
        for expected in self._expected:
            if expected.command is not None:
                self._acknowledge(expected.command, False, expected.sent_ns, why)
        self._expected.clear()

    def _acknowledge(
        self,
        command: Command,
        ok: bool,
        sent_ns: int,
        detail: str,
        ack_ns: int | None = None,
        *,
        confirmed: bool = False,
    ) -> None:
        self._acks.append(
            Ack(
                command_id=command.command_id,
                output=command.output,
                line=command.line,
                ok=ok,
                confirmed=confirmed,
                command_ns=sent_ns,
                ack_ns=now_ns() if ack_ns is None else ack_ns,
                detail=detail,
            )
        )

    # ---------------------------------------------------------------------- the timing thread

    def _keep_time(self) -> None:
        with self._turn:
            while not self._closing:
                fall_ns = self._board.next_edge_ns()
                left_ns = None if fall_ns is None else fall_ns - now_ns()
                if left_ns is not None and left_ns <= 0:
                    self._end_what_is_due(now_ns())
                elif self._undropped:
                    self._turn.wait(_AGAIN_S)
                    self._drop_again()
                else:
                    self._turn.wait(None if left_ns is None else left_ns / _NS_PER_S)

    def _end_what_is_due(self, at_ns: int) -> None:
        self._board.settle(at_ns)
        while self._board.edges:
            name = self._board.edges.popleft().line
            try:
                self._drive(name, False, None)
            except OutputError as error:
                self._fail(str(error))
