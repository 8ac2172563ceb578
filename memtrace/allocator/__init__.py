"""torch's caching allocator as a model: its settings, its rules, the replay of a recording, and what-if."""
