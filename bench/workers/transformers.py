"""transformers' generate(): one static batch, bfloat16 as stored."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, StoppingCriteriaList

from bench.workers.timing import Generate, Task, run


def load(task: Task) -> Generate:
    torch.set_num_threads(task.num_threads)
    model: Any = AutoModelForCausalLM.from_pretrained(task.model, dtype=torch.bfloat16)
    model.eval()

    def generate(prompts: list[list[int]], new_tokens: int) -> list[list[float]]:
        times: list[float] = []

        def note_time(input_ids: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
            times.append(time.perf_counter())
            return torch.zeros(len(input_ids), dtype=torch.bool)

        ids = torch.tensor(prompts)
        with torch.inference_mode():
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([note_time]),
            )
        return [times for _ in prompts]

    return generate


if __name__ == "__main__":
    run(load)
