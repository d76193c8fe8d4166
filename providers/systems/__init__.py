"""The company systems on our database: each file implements one protocol that a room of `models/` declares."""
