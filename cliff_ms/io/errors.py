"""The one exception for a user's mistake."""


class InputError(ValueError):
    """Bad input from the user: one sentence that says what, where, what was expected and what to do.

    The command-line verbs print it and leave with exit code 2; any other exception is a failure of ours.
    """
