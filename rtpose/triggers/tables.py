"""Tables in rig.toml whose ``type`` says what the other keys are."""

import difflib
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from rtpose.interfaces import Settings

S = TypeVar("S", bound=Settings)

_UNKNOWN_KEY: Final = "unknown_key"


def read_table(model: type[S], table: Mapping[str, Any], context: Any) -> S:
    """Return the settings in a table.

    Raised inside of a pydantic validator, the errors keep their places below that of the table. A
    reader of the file cannot know which keys belong to the chosen type, so that an unknown one is
    said here together with those that are allowed.

    Raises
    ------
    ValidationError
        With every problem in the table.
    """
    known = {key: value for key, value in table.items() if key in model.model_fields}
    problems = [_unknown(model, key, table[key]) for key in table if key not in known]
    try:
        settings = model.model_validate(known, context=context)
    except ValidationError as error:
        problems += [_again(detail) for detail in error.errors()]
    if problems:
        raise ValidationError.from_exception_data(model.__name__, problems)
    return settings


def _unknown(model: type[Settings], key: str, value: object) -> InitErrorDetails:
    close = difflib.get_close_matches(key, model.model_fields, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    why = f"unknown key ({hint}allowed: {', '.join(model.model_fields)})"
    return InitErrorDetails(type=_custom(why), loc=(key,), input=value)


def _again(detail: Any) -> InitErrorDetails:
    kind = detail["type"]
    return InitErrorDetails(
        type=_custom(detail["msg"]) if kind == _UNKNOWN_KEY else kind,
        loc=detail["loc"],
        input=detail["input"],
        ctx=detail.get("ctx", {}),
    )


def _custom(why: str) -> PydanticCustomError:
    return PydanticCustomError(_UNKNOWN_KEY, "{why}", {"why": why})
