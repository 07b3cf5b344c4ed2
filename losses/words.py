"""Settings that are words: checked where they are set, so that a typo does not wait for the first step."""

from typing import Any, get_args


def word(name: str, value: Any, words: Any) -> Any:
    """`value`, if it is one of the Literal `words`.

    Raises: ValueError naming the setting `name`, its value and the words.
    """
    if value not in get_args(words):
        raise ValueError(f"{name} is '{value}', not one of {', '.join(get_args(words))}")
    return value
