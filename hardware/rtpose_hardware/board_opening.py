"""The first words with a TTL board: at which speed it talks, which firmware, which settings."""

from collections.abc import Sequence

from rtpose.clock import now_ns
from rtpose.errors import BoardVersionError, OutputError
from rtpose_hardware import protocol
from rtpose_hardware.answers import Hello, SelfTest, lines_of
from rtpose_hardware.board_link import FRESH_START, BoardLink
from rtpose_hardware.board_settings import BoardSettings
from rtpose_hardware.protocol import Fault, InputMode, Request

_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000

#: For the first speed that is tried and for the other one. The first leaves time for the boot
#: loader, up to 1.6 s after the reset that opening the port causes.
_HELLO_TIMEOUTS_NS = (2500 * _NS_PER_MS, 1000 * _NS_PER_MS)
_HELLO_REPEAT_NS = 150 * _NS_PER_MS

#: A request, and what follows its number.
Setting = tuple[Request, bytes]


def meet(link: BoardLink, baud: int) -> tuple[Hello, int]:
    """Wait until the board says what it is, at either speed.

    Returns
    -------
    Hello
        What it says.
    int
        The speed at which it did.

    Raises
    ------
    OutputError
        If it says nothing.
    BoardVersionError
        If it has another firmware than this host may drive.
    """
    other = 115_200 if baud == 1_000_000 else 1_000_000
    timeouts_ns = iter(_HELLO_TIMEOUTS_NS)
    for speed in (baud, other):
        if not link.set_baud(speed):
            continue
        deadline_ns = now_ns() + next(timeouts_ns)
        while now_ns() < deadline_ns:
            hello = _ask_hello(link)
            if hello is not None:
                _check_version(hello, link.name)
                return hello, speed
    raise OutputError(
        f"nothing on {link.name} answers like a TTL board (tried {baud} and {other} baud): is "
        "it the right port, and is the firmware flashed (rtpose flash)?"
    )


def _ask_hello(link: BoardLink) -> Hello | None:
    link.write(FRESH_START + protocol.request(Request.HELLO, 0))
    deadline_ns = now_ns() + _HELLO_REPEAT_NS
    while (item := link.receive((deadline_ns - now_ns()) / _NS_PER_S)) is not None:
        if isinstance(item[0], Hello):
            # What it says at boot is no answer: it may have missed this request. Ask again.
            return None if item[0].booted else item[0]
    link.check()
    return None


def _check_version(hello: Hello, port: str) -> None:
    if hello.version == protocol.PROTOCOL_VERSION and hello.hash == protocol.PROTOCOL_HASH:
        return
    name = f" {hello.firmware!r}" if hello.firmware else ""
    raise BoardVersionError(
        f"the board on {port} has firmware{name} with protocol version "
        f"{hello.version} ({hello.hash:08x}); this rtpose has protocol version "
        f"{protocol.PROTOCOL_VERSION} ({protocol.PROTOCOL_HASH:08x}): flash the firmware of this "
        "rtpose version (rtpose flash)"
    )


def check_self_test(found: SelfTest, port: str) -> None:
    """Raise `OutputError`, in words, if the board's self-test found a fault."""
    if not found.faults:
        return
    words = [text for fault, text in protocol.FAULTS.items() if found.faults & fault]
    if found.faults & Fault.PIN:
        high = ", ".join(map(str, lines_of(found.levels)))
        words.append(f"look for a short circuit of pin {high} to another supply")
    if found.faults & Fault.FLASH:
        words.append("flash it again (rtpose flash)")
    raise OutputError(f"the board on {port} failed its self-test: {'; '.join(words)}")


def settings_of(settings: BoardSettings) -> Sequence[Setting]:
    """Return what a board is told before each arming: watchdog, inputs, stop input.

    Telling it the same again changes nothing; after a reset, even one that nobody heard of, it
    knows nothing.
    """
    inputs = {
        number: protocol.input_data(number, InputMode.OFF) for number in range(protocol.INPUTS)
    }
    inputs |= {item.number: item.request for item in settings.inputs.values()}
    return [
        (Request.WATCHDOG, protocol.watchdog_data(settings.watchdog_ms)),
        *((Request.INPUT, data) for data in inputs.values()),
        (Request.STOP_INPUT, settings.stop_request),
    ]


def limits_of(settings: BoardSettings) -> Sequence[Setting]:
    """Return the limits of all lines, which a board is told before each arming too.

    Telling it the same limit again changes nothing, so that doses and refractory times go on over a
    new arming. Only a dose without a window begins anew, by being left out once.
    """
    limits = [protocol.limit_data(number, 0) for number in range(protocol.LINES)]
    anew = []
    for line in settings.lines.values():
        limits[line.pin] = line.limit()
        if line.dose_ms is not None and line.dose_window_s is None:
            anew.append(line.limit(dose=False))
    return [(Request.LIMIT, data) for data in (*anew, *limits)]
