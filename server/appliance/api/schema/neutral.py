"""Parameters of other servers: accepted with values that ask for nothing, refused with others.

Routers, libraries and benchmarks write them into every request. One table for all faces; a name
that a face honours itself is never looked up here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue


@dataclass(frozen=True, slots=True)
class Neutral:
    """Accepts `values`, and null; refuses others, with the reason `why`."""

    why: str
    values: tuple[JsonValue, ...] = ()
    takes_any: bool = False  # tunes what only another parameter of this table would turn on

    def accepts(self, value: JsonValue) -> bool:
        if value is None or self.takes_any:
            return True
        return any(is_same(value, known) for known in self.values)

    def refusal(self, name: str) -> str:
        """Say why a value is refused and which would not be."""
        if not self.values:
            return f"`{name}` is not supported: {self.why}."
        accepted = " or ".join(json.dumps(value) for value in self.values)
        return f"`{name}` is not supported with this value: {self.why}. Accepted: {accepted}."


def is_same(value: JsonValue, known: JsonValue) -> bool:
    """Compare as JSON does: 1 is 1.0, true is not 1."""
    return isinstance(value, bool) == isinstance(known, bool) and value == known


ENDS = "an answer ends where the model ends it"
STOPS = "the text ends before a stop string"
BEAMS = "there is no beam search; use n, or temperature 0"
IDS = "use return_token_ids"
SCHEMA = "use response_format of type json_schema on /v1/chat/completions"
TEXT_ONLY = "this model reads and writes text only"
TEMPLATE = "the template is part of the model"
CACHE = "what stays cached is the server's choice"
NO_ROUTING = "one process computes the whole answer"
NO_ADAPTERS = "adapters are not served; name one of the models of /v1/models"
REASONING = "the text is never searched for reasoning: what a model writes stays in it"
NO_REASONING = "this server does not control reasoning"
WATERMARK = "answers carry no watermark"
SAMPLERS = "the sampling parameters are temperature, top_k, top_p, min_p and penalties"
TUNES = "it tunes a sampler that is off"
CHAT_ONLY = "it is a parameter of /v1/chat/completions"
TEXT_LOGPROBS = "use echo and logprobs on /v1/completions"
LIMIT = "use max_tokens, or max_new_tokens on /generate"
NO_DETAILS = "answers tell finish_reason and usage; for more use return_token_ids or logprobs"

OPENAI: Mapping[str, Neutral] = {
    "audio": Neutral(TEXT_ONLY),
    "best_of": Neutral("ask for n answers and choose among them", (1,)),
    "frequency_penalty": Neutral("use /v1/completions", (0,)),
    "function_call": Neutral("it is OpenAI's old name; use tool_choice"),
    "functions": Neutral("it is OpenAI's old name; use tools"),
    "logit_bias": Neutral("use /v1/completions", ({},)),
    "logprobs": Neutral("use /v1/completions", (False,)),
    "max_completion_tokens": Neutral(LIMIT),
    "max_tokens": Neutral("use max_new_tokens"),
    "messages": Neutral("send prompt, or use /v1/chat/completions"),
    "modalities": Neutral("this model writes text only", (["text"],)),
    "moderation": Neutral("this server does not moderate"),
    "n": Neutral("use /v1/completions", (1,)),
    "parallel_tool_calls": Neutral(CHAT_ONLY, (True, False)),
    "prediction": Neutral("answers are not predicted"),
    "presence_penalty": Neutral("use /v1/completions", (0,)),
    "prompt": Neutral("send messages, or use /v1/completions"),
    "prompt_cache_options": Neutral(CACHE),
    "prompt_cache_retention": Neutral(CACHE, ("in_memory", "in-memory")),
    "reasoning_effort": Neutral("this model has no reasoning mode"),
    "response_format": Neutral(CHAT_ONLY, ({"type": "text"},)),
    "service_tier": Neutral("there is one tier", ("auto", "default")),
    "store": Neutral("answers are never stored", (False,)),
    "stream_options": Neutral(
        "the last event has the usage",
        ({}, {"include_usage": True}, {"include_usage": False}),
    ),
    "suffix": Neutral("this model continues text, it does not fill gaps", ("",)),
    "tool_choice": Neutral(CHAT_ONLY, ("auto", "none")),
    "tools": Neutral(CHAT_ONLY, ([],)),
    "top_logprobs": Neutral("use logprobs with a number on /v1/completions", (0,)),
    "verbosity": Neutral(
        "say in a message how long the answer should be, or limit its tokens", ("medium",)
    ),
    "web_search_options": Neutral("this server reaches no network"),
}

VLLM: Mapping[str, Neutral] = {
    "add_generation_prompt": Neutral("an answer always begins as the template has it", (True,)),
    "allowed_token_ids": Neutral("use logit_bias"),
    "bad_words": Neutral("use logit_bias", ([],)),
    "beam_search": Neutral(BEAMS, (False,)),
    "cache_salt": Neutral(
        "computed prompts are shared only between requests with the same API key"
    ),
    "chat_template": Neutral(TEMPLATE),
    "chat_template_kwargs": Neutral(TEMPLATE, ({},)),
    "continue_final_message": Neutral("use /v1/completions to continue a text", (False,)),
    "documents": Neutral("write them into messages", ([],)),
    "early_stopping": Neutral(BEAMS, (False,)),
    "ec_transfer_params": Neutral(NO_ROUTING, ({},)),
    "echo": Neutral(
        "on /v1/completions the answer may begin with the prompt, on /generate with"
        " return_full_text",
        (False,),
    ),
    "guided_choice": Neutral(SCHEMA),
    "guided_decoding_backend": Neutral(SCHEMA),
    "guided_grammar": Neutral(SCHEMA),
    "guided_json": Neutral(SCHEMA),
    "guided_regex": Neutral(SCHEMA + " and a pattern"),
    "guided_whitespace_pattern": Neutral(SCHEMA),
    "ignore_eos": Neutral(ENDS, (False,)),
    "include_reasoning": Neutral(REASONING, (True,)),
    "include_stop_str_in_output": Neutral(STOPS, (False,)),
    "kv_transfer_params": Neutral(NO_ROUTING, ({},)),
    "length_penalty": Neutral(BEAMS, (1.0,)),
    "logprob_token_ids": Neutral("use logprobs, which tells the likeliest"),
    "media_io_kwargs": Neutral(TEXT_ONLY, ({},)),
    "min_tokens": Neutral(ENDS, (0,)),
    "mm_processor_kwargs": Neutral(TEXT_ONLY, ({},)),
    "priority": Neutral("the server sets priorities, not a request", (0,)),
    "prompt_embeds": Neutral("send text or token ids"),
    "prompt_logprobs": Neutral(TEXT_LOGPROBS),
    "repetition_detection": Neutral("use repetition_penalty"),
    "request_id": Neutral("send the header X-Request-Id"),
    "return_mm_kwargs": Neutral(TEXT_ONLY, (True, False)),
    "return_prompt_text": Neutral("use /tokenize and /detokenize", (False,)),
    "return_token_offsets": Neutral("use logprobs on /v1/completions", (False,)),
    "return_tokens_as_token_ids": Neutral(IDS, (False,)),
    "routed_experts_prompt_start": Neutral(NO_DETAILS, (0,)),
    "session_id": Neutral("prompts are cached by content; leave it out"),
    "skip_special_tokens": Neutral(
        "stop tokens are never text; return_token_ids has their ids", (True,)
    ),
    "spaces_between_special_tokens": Neutral("text is what its tokens say", (True, False)),
    "stop_token_ids": Neutral("use stop with strings", ([],)),
    "stream_interval": Neutral("an event comes with every token", (1,)),
    "structured_outputs": Neutral(SCHEMA),
    "thinking_token_budget": Neutral(NO_REASONING, (-1,)),
    "truncate_prompt_tokens": Neutral("shorten the prompt"),
    "truncation_side": Neutral("prompts are never cut", takes_any=True),
    "use_beam_search": Neutral(BEAMS, (False,)),
    "vllm_xargs": Neutral("there are no extensions", ({},)),
    "watermarking": Neutral(WATERMARK, (False,)),
}

SGLANG: Mapping[str, Neutral] = {
    "bootstrap_host": Neutral(NO_ROUTING),
    "bootstrap_port": Neutral(NO_ROUTING),
    "bootstrap_room": Neutral(NO_ROUTING),
    "custom_labels": Neutral("metrics have the server's labels", ({},)),
    "custom_logit_processor": Neutral(SAMPLERS),
    "custom_params": Neutral(SAMPLERS, ({},)),
    "data_parallel_rank": Neutral(NO_ROUTING),
    "disagg_prefill_dp_rank": Neutral(NO_ROUTING),
    "ebnf": Neutral(SCHEMA),
    "extra_key": Neutral(CACHE),
    "images_config": Neutral(TEXT_ONLY, ({},)),
    "input_ids": Neutral("send ids as prompt to /v1/completions"),
    "json_schema": Neutral(SCHEMA),
    "lora_path": Neutral(NO_ADAPTERS),
    "max_dynamic_patch": Neutral(TEXT_ONLY),
    "min_dynamic_patch": Neutral(TEXT_ONLY),
    "no_stop_trim": Neutral(STOPS, (False,)),
    "regex": Neutral(SCHEMA + " and a pattern"),
    "return_cached_tokens_details": Neutral(NO_DETAILS, (False,)),
    "return_hidden_states": Neutral("use /v1/embeddings", (False,)),
    "return_meta_info": Neutral(NO_DETAILS, (False,)),
    "return_prompt_token_ids": Neutral(IDS, (False,)),
    "return_routed_experts": Neutral(NO_DETAILS, (False,)),
    "rid": Neutral("send the header X-Request-Id"),
    "routed_dp_rank": Neutral(NO_ROUTING),
    "routed_experts_start_len": Neutral(NO_DETAILS, (0,)),
    "sampling_params": Neutral("write its members beside the prompt", ({},)),
    "sampling_seed": Neutral("use seed"),
    "separate_reasoning": Neutral(REASONING, (True, False)),
    "session_params": Neutral("every request has its whole prompt", ({},)),
    "stop_regex": Neutral("use stop with strings", ([],)),
    "stream_reasoning": Neutral(REASONING, (True, False)),
    "use_audio_in_video": Neutral(TEXT_ONLY, (False,)),
}

HUGGING_FACE: Mapping[str, Neutral] = {
    "adapter_id": Neutral(NO_ADAPTERS),
    "decoder_input_details": Neutral(TEXT_LOGPROBS, (False,)),
    "details": Neutral(NO_DETAILS, (False,)),
    "do_sample": Neutral("for the likeliest token use temperature 0", (True,)),
    "inputs": Neutral("send prompt"),
    "max_length": Neutral("use max_tokens, which counts new tokens"),
    "max_new_tokens": Neutral("use max_tokens"),
    "min_length": Neutral(ENDS, (0,)),
    "min_new_tokens": Neutral(ENDS, (0,)),
    "no_repeat_ngram_size": Neutral("use repetition_penalty", (0,)),
    "num_beams": Neutral(BEAMS, (1,)),
    "num_return_sequences": Neutral("use n on /v1/completions", (1,)),
    "parameters": Neutral("write its members beside the prompt", ({},)),
    "return_full_text": Neutral("use echo on /v1/completions", (False,)),
    "stop_sequences": Neutral("use stop", ([],)),
    "top_n_tokens": Neutral("use logprobs on /v1/completions", (0,)),
    "truncate": Neutral("shorten the prompt"),
    "typical_p": Neutral(SAMPLERS, (1.0,)),
    "watermark": Neutral(WATERMARK, (False,)),
}

LLAMA_CPP: Mapping[str, Neutral] = {
    "adaptive_decay": Neutral(TUNES, takes_any=True),
    "adaptive_target": Neutral(SAMPLERS, (-1,)),
    "backend_sampling": Neutral(SAMPLERS, (False,)),
    "cache_prompt": Neutral(CACHE, (True,)),
    "dry_allowed_length": Neutral(TUNES, takes_any=True),
    "dry_base": Neutral(TUNES, takes_any=True),
    "dry_multiplier": Neutral("use repetition_penalty", (0,)),
    "dry_penalty_last_n": Neutral(TUNES, takes_any=True),
    "dry_sequence_breakers": Neutral(TUNES, takes_any=True),
    "dynatemp_exponent": Neutral(TUNES, takes_any=True),
    "dynatemp_range": Neutral(SAMPLERS, (0,)),
    "grammar": Neutral(SCHEMA, ("",)),
    "id_slot": Neutral(CACHE, (-1,)),
    "lora": Neutral(NO_ADAPTERS, ([],)),
    "min_keep": Neutral(SAMPLERS, (0,)),
    "mirostat": Neutral(SAMPLERS, (0,)),
    "mirostat_eta": Neutral(TUNES, takes_any=True),
    "mirostat_tau": Neutral(TUNES, takes_any=True),
    "n_cache_reuse": Neutral(CACHE, (0,)),
    "n_discard": Neutral("prompts are never cut", (0,)),
    "n_indent": Neutral("text is what its tokens say", (0,)),
    "n_keep": Neutral("prompts are never cut", (0, -1)),
    "n_predict": Neutral(LIMIT),
    "n_probs": Neutral("use logprobs", (0,)),
    "post_sampling_probs": Neutral("log-probabilities are those before sampling", (False,)),
    "reasoning_format": Neutral(REASONING, ("none", "auto")),
    "repeat_last_n": Neutral(TUNES, takes_any=True),
    "repeat_penalty": Neutral("use repetition_penalty", (1.0,)),
    "response_fields": Neutral("answers always have all their fields", ([],)),
    "return_progress": Neutral("events are pieces of the answer", (False,)),
    "return_tokens": Neutral(IDS, (False,)),
    "samplers": Neutral(SAMPLERS),
    "t_max_predict_ms": Neutral(LIMIT, (0, -1)),
    "timings_per_token": Neutral("see /metrics", (False,)),
    "top_n_sigma": Neutral(SAMPLERS, (-1,)),
    "verbose": Neutral(NO_DETAILS, (False,)),
    "xtc_probability": Neutral(SAMPLERS, (0,)),
    "xtc_threshold": Neutral(TUNES, takes_any=True),
}

OTHERS: Mapping[str, Neutral] = {
    "nvext": Neutral("there are no extensions", ({},)),  # NVIDIA's benchmarks and Dynamo
    "top_a": Neutral(SAMPLERS, (0,)),  # OpenRouter
    "tfs_z": Neutral(SAMPLERS, (1.0,)),  # Ollama and older llama.cpp
}

EVERYWHERE: Mapping[str, Neutral] = {
    **OPENAI, **VLLM, **SGLANG, **HUGGING_FACE, **LLAMA_CPP, **OTHERS
}  # fmt: skip

# What happens anyway differs in one place: a template writes its own special tokens.
OF_CHAT: Mapping[str, Neutral] = {
    **EVERYWHERE,
    "add_special_tokens": Neutral("the template writes the special tokens", (False,)),
}
OF_TEXT: Mapping[str, Neutral] = {
    **EVERYWHERE,
    "add_special_tokens": Neutral("send token ids to /v1/completions to have none added", (True,)),
}

# Members of messages that other servers answered with, and that clients send back.
OF_MESSAGES: Mapping[str, Neutral] = {
    "reasoning": Neutral("reasoning is not read back; leave it out", ("",)),
    "reasoning_content": Neutral("reasoning is not read back; leave it out", ("",)),
}
