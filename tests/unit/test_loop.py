"""What the processes of a rig share."""

import pytest

from rtpose.errors import OutputError, RecordingError
from rtpose.loop import in_words


def test_an_error_while_clearing_up_does_not_hide_the_first() -> None:
    with pytest.raises(RecordingError) as raised:
        try:
            try:
                raise OutputError("the board is gone")
            finally:
                raise RecordingError("3 events lost")
        finally:
            raise RecordingError("7 poses lost")
    assert in_words(raised.value) == "the board is gone\n3 events lost\n7 poses lost"


def test_an_error_that_names_its_cause_says_it_alone() -> None:
    with pytest.raises(RecordingError) as raised:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RecordingError(f"cannot write: {error.strerror}") from error
    assert in_words(raised.value) == "cannot write: No space left on device"


def test_what_is_not_an_error_of_rtpose_is_said_with_its_type() -> None:
    assert in_words(ZeroDivisionError("by the animal")) == "ZeroDivisionError: by the animal"
