"""The appliance's own small API: /generate, /tokenize and /detokenize."""
