"""The one exception that the command line turns into a clear line instead of a traceback."""


class UserError(Exception):
    """Report something that the user can put right: a file, a key or a value.

    The message says what was found and where, what was expected, and what to do. It takes exactly one argument, so that
    it survives the trip from a data worker process (an exception that cannot be unpickled hangs its reader).
    """
