"""Commands to the TTL board as frames, and its answers to them in words. Touches no port."""

from collections.abc import Mapping

from rtpose.errors import OutputError
from rtpose.messages import Command
from rtpose_hardware import protocol
from rtpose_hardware.answers import Done
from rtpose_hardware.board_settings import BoardLine
from rtpose_hardware.protocol import Reason, Request

_SIMPLE: Mapping[str, Request] = {"on": Request.ON, "off": Request.OFF, "pulse": Request.PULSE}


def frame_of(command: Command, line: BoardLine, sequence: int) -> bytes:
    """Return the frame that orders a command from a line.

    Raises
    ------
    OutputError
        If it asks for a level on a line that is not set up for levels.
    """
    if command.action == "train":
        return protocol.train_order(
            sequence,
            line.pin,
            delay_us=command.delay_us,
            width_us=command.width_us,
            period_us=command.period_us,
            count=command.count,
        )
    if command.level < 1:
        if not line.levels:
            raise OutputError(
                f"line {command.line!r} is to have the level {command.level:g}, but its settings "
                "do not say levels = true"
            )
        return protocol.level_order(sequence, line.pin, duty_of(command.level), command.width_us)
    return protocol.order(_SIMPLE[command.action], sequence, line.pin, command.width_us)


def misfit(command: Command) -> str:
    """Say why no board ever takes a command, as `rtpose.interfaces.Output.misfit` does."""
    if command.width_us < protocol.MIN_WIDTH_US:
        return (
            f"cannot be high for {command.width_us} us, but for {protocol.MIN_WIDTH_US} us or more"
        )
    if command.action != "train":
        return ""
    if 0 < command.delay_us < protocol.MIN_DELAY_US:
        return (
            f"take no delay of {command.delay_us} us, but 0 or {protocol.MIN_DELAY_US} us or more"
        )
    if max(command.delay_us, command.period_us) > protocol.MAX_WIDTH_US:
        longest_s = protocol.MAX_WIDTH_US / 1e6
        return f"take no delay and no period above {longest_s:g} s"
    if command.count == 1:
        return ""
    low_us = command.period_us - command.width_us
    if low_us < protocol.MIN_WIDTH_US:
        return f"cannot be low for {low_us} us between pulses, but for {protocol.MIN_WIDTH_US} us"
    if protocol.MAX_TRAIN_EDGES_HZ * command.period_us < 2_000_000:
        least_us = 2_000_000 // protocol.MAX_TRAIN_EDGES_HZ
        return f"take no period of {command.period_us} us, but of {least_us} us or more"
    return ""


def duty_of(level: float) -> int:
    """Return the duty whose share, (duty + 1) / 256, is nearest to a level below 1."""
    return min(max(round(level * 256) - 1, 1), 255)


def detail_of(done: Done, command: Command, line: BoardLine) -> str:
    """Say why the board refused a command, or what about its answer is worth knowing."""
    if done.reason == Reason.WIDTH:
        return (
            f"{command.width_us} us is not between {protocol.MIN_WIDTH_US} us and the line's "
            f"longest on-time, {line.max_on_ms:g} ms"
        )
    if done.reason == Reason.REFRACTORY:
        between = " or between its pulses" if command.action == "train" else ""
        return f"low for less than refractory_ms = {line.refractory_ms:g} before it{between}"
    if done.reason == Reason.DOSE:
        window = f" in {line.dose_window_s:g} s" if line.dose_window_s is not None else ""
        return f"it would be on for more than dose_ms = {line.dose_ms or 0:g}{window}"
    if done.reason == Reason.VALUE and command.action == "train":
        return (
            f"a train's delay is 0 or {protocol.MIN_DELAY_US} to {protocol.MAX_WIDTH_US} us; its "
            f"period is at most {protocol.MAX_WIDTH_US} us, at least {protocol.MIN_WIDTH_US} of "
            "them low"
        )
    if done.reason is not None:
        return protocol.REFUSALS.get(done.reason, f"the board refused, reason {done.reason}")
    if not done.moved:
        return f"no edge: the line was {'low' if command.action == 'off' else 'high'} already"
    return ""
