"""The error every room raises for a mistake that the user can mend."""


class LeanRecError(Exception):
    """Bad input, said so that it can be mended: the cause, the consequence, the fix.

    The command line prints it without a traceback and exits with 2.
    """

    def __init__(self, cause: str, consequence: str = "", fix: str = "") -> None:
        self.cause, self.consequence, self.fix = cause, consequence, fix
        super().__init__(" ".join(part for part in (cause, consequence, fix) if part))
