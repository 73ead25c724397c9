"""The exception that the command line reports as one clear line instead of a traceback."""


class UserError(Exception):
    """Report a problem that the user can fix: a file, a key or a value.

    The message says what was found and where, what was expected, and what to do. The exception takes exactly one argument, so
    that a data worker process can pickle it; the main process would hang on an exception that it cannot unpickle.
    """
