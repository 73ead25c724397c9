"""What several tests share."""

from support import typecheck  # the run-time checker finds it as an attribute of this package

__all__ = ["typecheck"]
