"""One planted fault."""

from __future__ import annotations

from pathlib import Path

import msgspec

#: where the tests of the rooms lie
STORE = "tests/shared/store"
POOL = "tests/worker/pool"
TURNS = "tests/worker/pool/turns"
AGENT = "tests/worker/agent"


class Fault(msgspec.Struct, frozen=True):
    """A change of one place in one file that some test has to notice."""

    #: what is wrong with the code once the fault is in, as a reader of the table understands it
    name: str
    #: the file, from the root of the project
    file: str
    #: the text that is replaced; it stands exactly once in the file
    before: str
    #: what stands there instead
    after: str
    #: the tests that should fail, as pytest's command line takes them
    tests: tuple[str, ...]

    def plant(self, root: Path) -> None:
        """Put the fault into the copy under ``root``. Raises ValueError if its place is not there exactly once."""
        path = root / self.file
        text = path.read_text("utf-8")
        found = text.count(self.before)
        if found != 1:
            raise ValueError(f"{self.name}: its place is {found} times in {self.file}, and has to be there once")
        path.write_text(text.replace(self.before, self.after), "utf-8")

    def remove(self, root: Path, original: Path) -> None:
        """Put the file back as it is under ``original``."""
        (root / self.file).write_bytes((original / self.file).read_bytes())
