"""OpenVINO GenAI's continuous batching, stepped by hand in this process."""

from __future__ import annotations

import time

import numpy as np
import openvino
import openvino_genai

from bench.workers.timing import Generate, Task, run


def load(task: Task) -> Generate:
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_batched_tokens = 512  # as our own default
    scheduler.enable_prefix_caching = False
    properties = {"INFERENCE_NUM_THREADS": task.num_threads}
    pipeline = openvino_genai.ContinuousBatchingPipeline(
        task.model, scheduler, "CPU", properties, {}
    )
    count = 0

    def generate(prompts: list[list[int]], new_tokens: int) -> list[list[float]]:
        nonlocal count
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new_tokens
        config.ignore_eos = True
        config.do_sample = False
        handles = []
        for prompt in prompts:
            ids = openvino.Tensor(np.array([prompt], np.int64))
            handles.append(pipeline.add_request(count, ids, config))
            count += 1
        times: list[list[float]] = [[] for _ in prompts]
        while pipeline.has_non_finished_requests():
            pipeline.step()
            now_s = time.perf_counter()
            for handle, arrived in zip(handles, times, strict=True):
                while handle.can_read():
                    for output in handle.read().values():
                        arrived.extend([now_s] * len(output.generated_ids))
        return times

    return generate


if __name__ == "__main__":
    run(load)
