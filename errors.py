"""The exceptions that are shown to a user without a traceback."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line: what came, what was wanted, and the key or file to change. Entry files print it to
    standard error and exit with code 1; every other exception is a bug of ours and keeps its traceback.
    """


class Diverged(UserError):
    """A loss or a gradient left what is still training. Every rank raises it, with one message, which one rank tells.

    Attributes: step, counted from 1; values of the losses and gradient norms of that step by name, on the rank that
    had the first bad one.
    """

    def __init__(self, message: str, step: int, values: dict[str, float]) -> None:
        super().__init__(message)
        self.step, self.values = step, values
