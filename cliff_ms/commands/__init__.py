"""The commands: what they take, what they check, and what they print."""
