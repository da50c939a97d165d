"""Asking again with the returned seed gives the same ids, and ids can be sent back as a prompt."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

MODEL = "pebble"
API = Path(__file__).parents[2] / "docs" / "api.md"
TIMEOUT_S = 60
NUM_NEIGHBOURS = 3
MESSAGES: Any = [{"role": "user", "content": "Tell me a story about a fox."}]
SAMPLED: Any = {"max_tokens": 24, "temperature": 1.3, "extra_body": {"return_token_ids": True}}
Ids = dict[int, list[int]]


@pytest.fixture
def client(live_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def chat(client: openai.OpenAI, **fields: Any) -> tuple[int, Ids]:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, **SAMPLED, **fields)
    extra: Any = answer.model_extra
    return extra["seed"], {choice.index: extra_of(choice)["token_ids"] for choice in answer.choices}


def streamed_chat(client: openai.OpenAI, **fields: Any) -> tuple[int, Ids]:
    return from_chunks(
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, **SAMPLED, **fields
        )
    )


def continued(client: openai.OpenAI, **fields: Any) -> tuple[int, Ids]:
    answer = client.completions.create(model=MODEL, prompt=PROMPTS, **SAMPLED, **fields)
    extra: Any = answer.model_extra
    return extra["seed"], {choice.index: extra_of(choice)["token_ids"] for choice in answer.choices}


def streamed_continued(client: openai.OpenAI, **fields: Any) -> tuple[int, Ids]:
    return from_chunks(
        client.completions.create(model=MODEL, prompt=PROMPTS, stream=True, **SAMPLED, **fields)
    )


PROMPTS = ["Once upon a time", "The fox", "Once upon a time"]
WAYS = [chat, streamed_chat, continued, streamed_continued]


def extra_of(part: Any) -> dict[str, Any]:
    """What the official client read beyond OpenAI's own fields."""
    found: dict[str, Any] = part.model_extra
    return found


def from_chunks(chunks: Any) -> tuple[int, Ids]:
    ids: Ids = {}
    seeds = set()
    for chunk in chunks:
        if "seed" in extra_of(chunk):
            seeds.add(extra_of(chunk)["seed"])
        for choice in chunk.choices:
            ids.setdefault(choice.index, []).extend(extra_of(choice).get("token_ids", []))
    [seed] = seeds
    return seed, ids


@contextmanager
def neighbours(url: str) -> Iterator[None]:
    """Other answers are computed beside ours until this ends."""
    is_over = threading.Event()

    def chatter(number: int) -> None:
        with httpx2.Client(base_url=url, timeout=TIMEOUT_S) as http:
            while not is_over.is_set():
                body = {"prompt": f"Story {number}", "max_new_tokens": 40, "temperature": 1}
                http.post("/generate", json=body).raise_for_status()

    with ThreadPoolExecutor(NUM_NEIGHBOURS) as pool:
        running = [pool.submit(chatter, number) for number in range(NUM_NEIGHBOURS)]
        try:
            yield
        finally:
            is_over.set()
        for neighbour in running:
            neighbour.result()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("ask", WAYS)
def test_the_returned_seed_gives_the_same_ids_alone_and_beside_others(
    client: openai.OpenAI, live_url: str, ask: Any, n: int
) -> None:
    seed, ids = ask(client, n=n)
    assert all(ids.values())
    assert ask(client, n=n, seed=seed) == (seed, ids)
    with neighbours(live_url):
        assert ask(client, n=n, seed=seed) == (seed, ids)
    assert ask(client, n=n, seed=seed + 100)[1] != ids


@pytest.mark.parametrize(("whole", "streamed"), [WAYS[:2], WAYS[2:]])
def test_whole_and_streamed_answers_have_the_same_ids(
    client: openai.OpenAI, whole: Any, streamed: Any
) -> None:
    seed, ids = whole(client, n=2)
    assert streamed(client, n=2, seed=seed) == (seed, ids)


def test_answer_i_is_what_its_own_seed_gives_alone(client: openai.OpenAI) -> None:
    seed, ids = chat(client, n=3)
    assert [chat(client, seed=seed + i)[1][0] for i in range(3)] == [ids[i] for i in range(3)]


def test_every_prompt_of_a_list_begins_with_the_one_seed(client: openai.OpenAI) -> None:
    seed, ids = continued(client, n=2)
    assert ids[0] == ids[4]  # the first prompt is the third, too
    assert ids[1] == ids[5]
    answer = client.completions.create(model=MODEL, prompt=PROMPTS[1], seed=seed + 1, **SAMPLED)
    assert extra_of(answer.choices[0])["token_ids"] == ids[3]


def test_a_seeded_answer_stays_the_same_to_the_letter(live_url: str) -> None:
    """That of the README, from before answers told their seed."""
    body = {"prompt": "Once upon a time", "max_length": 60, "temperature": 0.7, "seed": 4}
    with httpx2.Client(base_url=live_url, timeout=TIMEOUT_S) as http:
        answer = http.post("/generate", json=body).json()
    assert answer["generated_text"] == (
        " a clever boy named Gina lived in a cottage by the sea. Every morning, Gina walked to the"
        " old bridge and sat in the sun. One day, Gina the rabbit was sick and had to stay in bed."
        ' "My nose hurts," said Gina. "I cannot come'
    )


def test_generate_repeats_itself_by_its_seed(live_url: str) -> None:
    body = {"prompt": "Once", "max_new_tokens": 24, "temperature": 1.3, "return_token_ids": True}
    with httpx2.Client(base_url=live_url, timeout=TIMEOUT_S) as http:
        first = http.post("/generate", json=body).json()
        again = http.post("/generate", json=body | {"seed": first["seed"]}).json()
    assert again == first


@pytest.mark.parametrize("stop", [None, ["."], ["fox"]])
def test_ids_sent_back_as_a_prompt_continue_from_where_they_were(
    client: openai.OpenAI, stop: list[str] | None
) -> None:
    greedy: Any = {"model": MODEL, "temperature": 0, "extra_body": {"return_token_ids": True}}
    first = client.completions.create(prompt="Once upon a time", max_tokens=30, stop=stop, **greedy)
    choice = extra_of(first.choices[0])
    assert first.usage is not None
    assert first.usage.completion_tokens == len(choice["token_ids"])
    prompt_ids, token_ids = choice["prompt_token_ids"], choice["token_ids"]
    middle = len(token_ids) // 2
    rest = client.completions.create(
        prompt=prompt_ids + token_ids[:middle], max_tokens=len(token_ids) - middle, **greedy
    )
    assert extra_of(rest.choices[0])["token_ids"] == token_ids[middle:]
    assert extra_of(rest.choices[0])["prompt_token_ids"] == prompt_ids + token_ids[:middle]


def test_the_clients_stream_helper_reads_answers_with_ids(client: openai.OpenAI) -> None:
    hello: Any = [{"role": "user", "content": "Hello!"}]
    with client.chat.completions.stream(
        model=MODEL, messages=hello, temperature=0, extra_body={"return_token_ids": True}
    ) as stream:
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content


EXAMPLES = re.findall(r"^```python\n(.*?)^```", API.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_api_page_run(live_url: str, number: int) -> None:
    setup = (
        f'import openai\nclient = openai.OpenAI(base_url="{live_url}/v1", api_key="none")\n'
        'messages = [{"role": "user", "content": "Hello!"}]\n'
    )
    result = subprocess.run(
        [sys.executable, "-c", setup + EXAMPLES[number]],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
