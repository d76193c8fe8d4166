"""The OpenAI-compatible surface `/v1`: engines, embedder, moderation, and the assistant as the model `rapport`."""
