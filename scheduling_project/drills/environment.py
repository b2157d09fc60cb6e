"""The environment variables by which a drill's processes know what they are part of. No setting reads them."""

from __future__ import annotations

from typing import Final

#: Set for the process that is the drill itself, which runs on servers made for it.
INSIDE: Final = "SCHEDULING_DRILL_SERVERS"
#: The socket file over which the keeper of those servers takes orders.
CONTROL: Final = "SCHEDULING_DRILL_CONTROL"
#: Names the file whose presence makes every writing statement fail as on a full disk.
DISK_FULL: Final = "DRILL_DISK_FULL"
#: Names the safeguard to be taken away.
SABOTAGE: Final = "SCHEDULING_DRILL_SABOTAGE"
