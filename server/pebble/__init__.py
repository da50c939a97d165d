"""Makes the embedded model: corpus generator, tokenizer, trainer and export."""
