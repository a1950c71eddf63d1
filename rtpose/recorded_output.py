"""Outputs of a recorded run: what is sent to them is answered as it was then."""

from collections import deque
from collections.abc import Iterable, Sequence
from statistics import median

from rtpose.errors import OutputError
from rtpose.interfaces import Output, OutputInfo, OutputSettings
from rtpose.messages import Ack, AnyMessage, Command, TriggerEvent


def usual_ns(times_ns: Iterable[int]) -> int:
    """Return the median of times, 0 if there are none."""
    return round(median([*times_ns] or [0]))


class RecordedAnswers:
    """What the outputs answered in the record, by when, and to which line, it was sent.

    Attributes
    ----------
    now_ns : int
        The time that the engine was told last.
    arm_failure : str
        Why an output did not arm, ``output '<name>': ...``; empty if all did.
    pending : deque of Ack
        Answers to commands that the record does not have, in the order of time.
    invented : int
        How many commands those were.
    usual_ack_ns : int
        Median time from a command to its answer.
    """

    def __init__(self, messages: Sequence[AnyMessage], *, breaks: bool) -> None:
        sent = {
            (event.decide_ns, *_target(event.command)): (event.command.command_id, event.command_ns)
            for event in messages
            if isinstance(event, TriggerEvent)
            and event.command is not None
            and event.command_ns is not None
        }
        acks = [ack for ack in messages if isinstance(ack, Ack)]
        self._sent = sent
        self._last_ns = max((key[0] for key in sent), default=0)
        self._breaks = breaks
        self._ids: dict[int, int] = {}
        self._usual_command_ns = usual_ns(at_ns - key[0] for key, (_, at_ns) in sent.items())
        self._device_ns = [a.device_ns - a.command_ns for a in acks if a.device_ns is not None]
        self._confirmed = all(ack.confirmed for ack in acks)
        self.now_ns = 0
        self.arm_failure = ""
        self.pending: deque[Ack] = deque()
        self.invented = 0
        self.usual_ack_ns = usual_ns(ack.ack_ns - ack.command_ns for ack in acks)

    def send(self, command: Command) -> int:
        """Return when a command was handed over in the record, or would have been."""
        recorded = self._sent.get((self.now_ns, *_target(command)))
        if recorded is not None:
            self._ids[recorded[0]] = command.command_id
            return recorded[1]
        if self._breaks and self.now_ns >= self._last_ns:
            raise OutputError("failed in the record")
        self.invented += 1
        command_ns = self.now_ns + self._usual_command_ns
        self.pending.append(
            Ack(
                command_id=command.command_id,
                output=command.output,
                line=command.line,
                ok=True,
                confirmed=self._confirmed,
                command_ns=command_ns,
                ack_ns=command_ns + self.usual_ack_ns,
                device_ns=command_ns + usual_ns(self._device_ns) if self._device_ns else None,
            )
        )
        return command_ns

    def known(self, ack: Ack) -> Ack | None:
        """Return a recorded answer for the replay's own command, if that was sent here too."""
        command_id = self._ids.get(ack.command_id)
        return None if command_id is None else ack.model_copy(update={"command_id": command_id})


def _target(command: Command) -> tuple[str, str, str]:
    return command.output, command.line, command.action


class RecordedOutput(Output):
    """An output that answers as the record says; only the answers themselves come from there too.

    Parameters
    ----------
    name : str
        Of the output in the rig.
    answers : RecordedAnswers
    """

    Config = OutputSettings
    takes_trains = True

    def __init__(self, name: str, answers: RecordedAnswers) -> None:
        self._name = name
        self._answers = answers

    def open(self) -> OutputInfo:
        """Say that there is no device."""
        return OutputInfo("a record, no hardware", None)

    def arm(self) -> None:
        """Arm, or fail as in the record."""
        mine = f"output {self._name!r}: "
        if self._answers.arm_failure.startswith(mine):
            raise OutputError(self._answers.arm_failure.removeprefix(mine))

    def send(self, command: Command) -> int:
        """Return when it was handed over in the record, or would have been."""
        return self._answers.send(command)

    def acks(self) -> Sequence[Ack]:
        """Return nothing: the record says when control took the answers."""
        return ()

    def beat(self) -> None:
        """Need no sign of life."""

    def safe(self) -> None:
        """Have no lines to drop."""

    @property
    def is_safe(self) -> bool:
        """There is nothing to confirm."""
        return True

    def close(self) -> None:
        """Have nothing open."""
