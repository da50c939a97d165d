"""Strings to token ids and back: tokenizer, chat template, detokenizer, grammar; no torch."""
