"""Divide the shards of a cache among processes, on any machines, each of which writes a part of them.

Knows numbers; knows nothing of files or teachers.
"""

import re
from dataclasses import dataclass

from apt_model.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """Part `number` (from 1 on) of `count`: every count-th shard.

    Nothing on disk tells of parts, so a cache may be divided otherwise when it is continued.
    """

    number: int = 1
    count: int = 1

    def has(self, shard: int) -> bool:
        """Whether it writes the shard with this number, from 0 on."""
        return shard % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, rank: int, size: int) -> "Part":
        """One rank's share of this part, where several processes write it together."""
        return Part(self.number + rank * self.count, self.count * size)


def parse_part(text: str) -> Part:
    """The part that "2/4" names.

    Raises:
        ConfigError: it names none.
    """
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found and 1 <= int(found[1]) <= int(found[2]):
        return Part(int(found[1]), int(found[2]))
    raise ConfigError("part is not one of n", got=text, expected="i/n with i from 1 to n, such as 2/4")
