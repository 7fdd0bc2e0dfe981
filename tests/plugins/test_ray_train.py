"""The page's Python for Ray Train, run as it stands there, beside the same lesson under torchrun."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from apt_model.models.pretrained import save_model

HOME = Path(__file__).parent.parent.parent
LAUNCHED = """
import os
import sys

import torch.distributed as dist

import page

page.get_context = lambda: type("Rank", (), {"get_world_rank": lambda self: int(os.environ["RANK"])})()
page.lesson(dict(zip(("teacher", "data", "student", "device"), sys.argv[1:])))
if dist.is_initialized():
    dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'ray[train]'")
def test_two_workers_of_ray_train_leave_the_student_of_torchrun(teacher: Any, tokenizer: Any, tmp_path: Path) -> None:
    save_model(teacher, tokenizer, tmp_path / "teacher")
    (tmp_path / "book.txt").write_text("人工智能是全球最大的网络。\n医疗教育经济文化\n" * 20, encoding="utf-8")
    page = (HOME / "docs/many-machines.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "page.py").write_text(block, encoding="utf-8")
    (tmp_path / "launched.py").write_text(LAUNCHED, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": f"{HOME}:{tmp_path}", "OMP_NUM_THREADS": "1"}
    env["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "180"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "launched.py"]
    for name, words in (("by_ray", ["page.py"]), ("by_torchrun", torchrun)):
        paths = [str(tmp_path / part) for part in ("teacher", "book.txt", name)]
        subprocess.run([sys.executable, *words, *paths, "cpu"], cwd=tmp_path, env=env, check=True)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("by_ray", "by_torchrun"))
    assert one == two
