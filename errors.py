"""The one exception that is shown to a user without a traceback."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line: what came, what was wanted, and the key or file to change. Entry files print it to
    standard error and exit with code 1; every other exception is a bug of ours and keeps its traceback.
    """
