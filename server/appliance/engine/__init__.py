"""Token ids in, token ids out: the engine knows neither HTTP nor text."""
