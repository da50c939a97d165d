"""OpenAI's API as far as one language model can honour it; what it cannot is refused by name."""
