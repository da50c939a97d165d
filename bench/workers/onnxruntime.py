"""onnxruntime-genai, one sequence at a time."""

from __future__ import annotations

import time

import onnxruntime_genai

from bench.workers.timing import Generate, Task, run


def load(task: Task) -> Generate:
    model = onnxruntime_genai.Model(task.model)

    def generate(prompts: list[list[int]], new_tokens: int) -> list[list[float]]:
        [prompt] = prompts
        params = onnxruntime_genai.GeneratorParams(model)
        length = len(prompt) + new_tokens
        params.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = onnxruntime_genai.Generator(model, params)
        generator.append_tokens(prompt)
        times: list[float] = []
        while len(times) < new_tokens:
            generator.generate_next_token()
            times.append(time.perf_counter())
        return [times]

    return generate


if __name__ == "__main__":
    run(load)
