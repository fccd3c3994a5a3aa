"""Settings: the schema, the commands' settings, and how plain values are parsed into them."""

from segtune.errors import UserError as UserError
