"""What accelerate does with a state directory that has been tampered with."""

import pickle
from pathlib import Path
from typing import Any

from tests.acceptance.peers.toys import attempt, toy


class Code:
    """Unpickled, it writes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


def accelerate_pickle(out: Path) -> str:
    """9: a state directory whose pickle has code in it."""
    from accelerate import Accelerator

    one = Accelerator(cpu=True)
    one.prepare(toy())
    one.save_state(str(out / "state"))
    (out / "state" / "random_states_0.pkl").write_bytes(pickle.dumps(Code(str(out / "executed"))))
    ended = attempt(lambda: one.load_state(str(out / "state")))
    return f"{ended}; code in the checkpoint was executed: {(out / 'executed').exists()}"


def accelerate_no_generators(out: Path) -> str:
    """8: the file of the generators taken away."""
    from accelerate import Accelerator

    one = Accelerator(cpu=True)
    one.prepare(toy())
    one.save_state(str(out / "state"))
    (out / "state" / "random_states_0.pkl").unlink()
    return attempt(lambda: one.load_state(str(out / "state")))
