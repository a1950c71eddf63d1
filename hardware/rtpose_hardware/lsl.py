"""``lsl``: markers in a Lab Streaming Layer stream, beside everything else that LSL records.

Every change of a line is one marker, ``laser on`` or ``laser off``, stamped when it was handed
over. Nothing answers, so this marks; it does not switch. Poses go to LSL with
``examples/clients/lsl_poses.py``.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from rtpose.clock import now_ns
from rtpose.errors import InputError, MissingExtraError, OutputError
from rtpose.interfaces import OutputInfo, OutputSettings
from rtpose_hardware.host_timed import HostTimedOutput

if TYPE_CHECKING:
    import pylsl

Scope = Literal["machine", "link", "site"]

_NEEDED_FOR: Final = "Lab Streaming Layer"

#: More than a marker needs to leave this process.
_SENDING_NS: Final = 500_000_000

#: liblsl reads its configuration once per process.
_scope_in_use: list[Scope] = []


def load(scope: Scope) -> Any:
    """Import pylsl, configured so that streams are found within a scope.

    Parameters
    ----------
    scope : {'machine', 'link', 'site'}
        Where a stream can be discovered: on this machine, in the local network, or beyond its
        routers. It does not limit who can connect: liblsl listens on every interface.

    Raises
    ------
    MissingExtraError
        If pylsl is not installed or does not find liblsl.
    InputError
        If this process already uses LSL with another scope.
    """
    try:
        import pylsl
    except (ImportError, RuntimeError, OSError) as error:  # the last two: no liblsl
        raise MissingExtraError("pylsl", "lsl", _NEEDED_FOR) from error
    if not _scope_in_use:
        listen = "ListenAddress = 127.0.0.1\n" if scope == "machine" else ""
        pylsl.set_config_content(
            "[ports]\nIPv6 = disable\n"
            f"[multicast]\nResolveScope = {scope}\n{listen}"
            "[log]\nlevel = -2\n"  # errors; it would tell on standard error whatever it does
        )
        _scope_in_use.append(scope)
    if _scope_in_use != [scope]:
        raise InputError(
            f"LSL is in use with scope = {_scope_in_use[0]!r} in this process, not {scope!r}: "
            "give all LSL streams of a rig the same"
        )
    return pylsl


def lsl_time(stamp_ns: int, local_clock: Callable[[], float]) -> float:
    """Return a stamp of `clock.now_ns` in seconds of LSL's clock.

    Nothing is assumed of how the two are related: LSL's clock is read between two readings of
    ours, three times, and the closest pair counts. Half their distance, about a microsecond, is
    the error.
    """
    _, middle_ns, lsl_s = min(_read_both(local_clock) for _ in range(3))
    return lsl_s - (middle_ns - stamp_ns) / 1e9


def _read_both(local_clock: Callable[[], float]) -> tuple[int, float, float]:
    before_ns = now_ns()
    lsl_s = local_clock()
    after_ns = now_ns()
    return after_ns - before_ns, (before_ns + after_ns) / 2, lsl_s


class LslSettings(OutputSettings):
    """``[outputs.<name>]`` with ``type = "lsl"``; ``pin`` of a line has no meaning here.

    Attributes
    ----------
    stream : str
        Name of the stream; its type is ``Markers``.
    scope : {'machine', 'link', 'site'}
        Where the stream can be discovered.
    insecure : bool
        Must be true: liblsl listens on every network interface and knows no password.
    require_inlet : bool
        Refuse to arm while no program receives the markers.
    """

    stream: Annotated[str, Field(min_length=1, max_length=128)] = "rtpose"
    scope: Scope = "machine"
    insecure: bool = False
    require_inlet: bool = False

    @model_validator(mode="after")
    def _known_to_be_open(self) -> Self:
        if not self.insecure:
            raise ValueError(
                "LSL listens on every network interface, without a password, whatever its scope: "
                "write insecure = true if that is all right here"
            )
        return self


class LslOutput(HostTimedOutput):
    """Mark every change of a line in an LSL stream.

    Acks have ``confirmed=False``: LSL does not tell whether a marker arrived.

    Examples
    --------
    In rig.toml::

        [outputs.markers]
        type = "lsl"
        insecure = true
        lines.reward = { pin = 0, max_on_ms = 100 }
    """

    Config: ClassVar[type[OutputSettings]] = LslSettings

    def __init__(self, config: LslSettings) -> None:
        super().__init__(config)
        self._settings = config
        self._pylsl: Any = None
        self._outlet: pylsl.StreamOutlet | None = None
        self._levels: dict[str, bool] = {}
        self._pushed_ns = -_SENDING_NS  # when the last marker was handed over

    def _connect(self) -> OutputInfo:
        settings = self._settings
        self._levels = dict.fromkeys(self._lines, False)
        self._pylsl = load(settings.scope)
        # A recorder finds the stream again under the same source when the rig is started anew.
        info = self._pylsl.StreamInfo(
            settings.stream,
            "Markers",
            1,
            self._pylsl.IRREGULAR_RATE,
            self._pylsl.cf_string,
            f"rtpose-markers-{settings.stream}",
        )
        try:
            self._outlet = self._pylsl.StreamOutlet(info)
        except RuntimeError as error:
            raise OutputError(f"LSL cannot make the stream {settings.stream!r}: {error}") from error
        return OutputInfo(
            device=f"LSL stream {settings.stream!r}, timed by the host, unconfirmed",
            watchdog_ms=None,
            facts={"stream": settings.stream, "scope": settings.scope},
        )

    def _check_ready(self) -> None:
        if self._settings.require_inlet and not self._opened().have_consumers():
            raise OutputError(
                f"no program receives the LSL stream {self._settings.stream!r}: start recording"
            )

    def _set(self, pin: int, high: bool, line: str, width_us: int) -> None:
        if self._levels[line] == high:
            return  # a marker is a change
        stamp = lsl_time(now_ns(), self._pylsl.local_clock)
        try:
            self._opened().push_sample([f"{line} {'on' if high else 'off'}"], stamp)
        except RuntimeError as error:
            raise OutputError(f"LSL did not take a marker: {error}") from error
        self._pushed_ns = now_ns()
        self._levels[line] = high

    def _disconnect(self) -> None:
        # liblsl sends in the background, and forgets what is not sent when the stream ends.
        left_ns = self._pushed_ns + _SENDING_NS - now_ns()
        if self._outlet is not None and left_ns > 0:
            threading.Event().wait(left_ns / 1e9)
        self._outlet = None  # which ends the stream

    def _opened(self) -> "pylsl.StreamOutlet":
        if self._outlet is None:
            raise OutputError("the output is not open")
        return self._outlet
