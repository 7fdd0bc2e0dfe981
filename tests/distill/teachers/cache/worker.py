"""Write a cache, or a part of one, in a process that can be killed; arguments: TEACHER OUT PART PAUSE POSITIONS ROWS.

PAUSE: seconds after each batch. POSITIONS: of a shard. Says "ready" before it begins to write.
"""

import sys
import time

import torch
from transformers import AutoModelForCausalLM

from apt_model.distill.teachers.cache import writer
from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.parts import parse_part


def main(directory: str, out: str, part: str, pause: str, positions: str, rows: str) -> None:
    torch.set_num_threads(1)
    writer.SHARD_POSITIONS = int(positions)
    teacher = AutoModelForCausalLM.from_pretrained(directory)
    dice = torch.Generator().manual_seed(8)
    data = [{"input_ids": torch.randint(4, 64, (20,), generator=dice).tolist()} for _ in range(int(rows))]
    settings = CacheSettings(k=8, temperature=2.0, value_type="log8", max_length=32, packing=False)
    made = writer.CacheWriter(teacher, data, settings=settings)
    print("ready", flush=True)
    made.run(out, lambda done, total: time.sleep(float(pause)), part=parse_part(part))


if __name__ == "__main__":
    main(*sys.argv[1:])
