"""Settings: their schema, those of each command, and the parser."""

from segtune.errors import UserError as UserError
