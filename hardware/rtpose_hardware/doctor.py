"""What `rtpose doctor` says of TTL boards: serial ports, what answers on them, and flashing."""

from collections.abc import Iterator, Sequence

from rtpose.clock import now_ns
from rtpose.errors import BoardVersionError, MissingExtraError, OutputError, PortInUseError
from rtpose.finding import Finding, Grade
from rtpose_hardware import boards, firmware_build, protocol
from rtpose_hardware.answers import SelfTest
from rtpose_hardware.board_link import FRESH_START, BoardLink
from rtpose_hardware.board_opening import check_self_test, meet
from rtpose_hardware.boards import Port
from rtpose_hardware.protocol import RESETS, Fault, Request, Reset

_ANSWER_TIMEOUT_NS = 1_000_000_000


def look(named: Sequence[str]) -> list[Finding]:
    """Look at serial ports and at the tools for flashing.

    Opening a port resets an Arduino, which drops a board's lines, so only those are opened that are
    an Arduino Uno for certain, or were named.

    Parameters
    ----------
    named : sequence of str
        Ports to open whatever they look like.
    """
    try:
        found = boards.list_ports()
    except MissingExtraError as error:
        grade: Grade = "problem" if named else "warning"
        return [Finding("serial ports", grade, "cannot be looked at", str(error)), tools()]
    return [*_ports(found, named), tools()]


def _ports(found: Sequence[Port], named: Sequence[str]) -> Iterator[Finding]:
    known = {port.name: port for port in found}
    opened = [port for port in found if port.is_uno and port.name not in named]
    opened += [known.get(name, Port(name, "named with --port", is_uno=False)) for name in named]
    for port in opened:
        yield board(port)
    for port in found:
        if port not in opened:
            advice = f"if it is a board: rtpose doctor --port {port.name} (opening resets it)"
            yield Finding("serial port", "good", f"{port}: not opened", advice)
    if not opened and not found:
        yield Finding("serial ports", "good", "no USB serial port: no TTL board is plugged in")


def board(port: Port) -> Finding:
    """Open a port, which resets an Arduino, and return what answers there."""
    topic = f"board on {port.name}"
    facts: dict[str, object] = {"port": port.name, "description": port.description}
    try:
        with boards.opened(port.name) as link:
            return _examine(link, port, facts)
    except PortInUseError as error:
        return Finding(topic, "warning", str(error), facts=facts)  # a rig that runs is no problem
    except OutputError as error:
        return Finding(topic, "problem", str(error), facts=facts)


def _examine(link: BoardLink, port: Port, facts: dict[str, object]) -> Finding:
    """Ask a board what it is, and let it test itself."""
    topic = f"board on {port.name}"
    flash = f"rtpose flash --port {port.name}"
    try:
        hello, baud = meet(link, boards.USUAL_BAUD)
    except BoardVersionError as error:
        return Finding(topic, "problem", str(error), f"type: {flash}", facts)
    except OutputError as error:
        advice = f"if it is a board, put the firmware onto it: {flash}"
        # An Uno may do something else in this lab; a port that was named is meant to be a board.
        return Finding(topic, "warning" if port.is_uno else "problem", str(error), advice, facts)
    facts |= {
        "firmware": hello.firmware,
        "protocol_version": hello.version,
        "protocol_hash": hello.hash,
        "baud": baud,
        "last_reset": RESETS.get(hello.reset_cause, "unknown"),
    }
    test = _self_test(link)
    facts |= {
        "faults": [fault.name for fault in test.faults],
        "firmware_checksum": test.flash_checksum,
        "free_stack_bytes": test.free_stack_bytes,
    }
    try:
        check_self_test(test, port.name)
    except OutputError as error:
        advice = f"type: {flash}" if Fault.FLASH in test.faults else ""
        return Finding(topic, "problem", str(error), advice, facts)
    text = f"{hello.firmware}, matches this rtpose, {baud} baud, tested itself (and was reset)"
    if hello.reset_cause == Reset.BROWN_OUT:
        advice = "give the board and what it drives a supply of their own"
        return Finding(topic, "warning", f"{text}; its supply voltage was too low", advice, facts)
    return Finding(topic, "good", text, facts=facts)


def _self_test(link: BoardLink) -> SelfTest:
    """Let a board test itself, which moves no line; raise `OutputError` if it does not answer."""
    link.write(FRESH_START + protocol.request(Request.SELF_TEST, 1))
    deadline_ns = now_ns() + _ANSWER_TIMEOUT_NS
    while (item := link.receive((deadline_ns - now_ns()) / 1e9)) is not None:
        if isinstance(item[0], SelfTest):
            return item[0]
    link.check()
    raise OutputError(f"the board on {link.name} does not answer when it is to test itself")


def tools() -> Finding:
    """Return whether this machine can flash a board."""
    missing = [*firmware_build.missing_build_tools(), *firmware_build.missing_upload_tools()]
    facts = {"missing": missing}
    if not missing:
        return Finding("flashing", "good", "avr-gcc and avrdude are here", facts=facts)
    advice = f"only to flash boards here: {firmware_build.how_to_install(missing)}"
    return Finding("flashing", "warning", f"missing: {', '.join(missing)}", advice, facts)
