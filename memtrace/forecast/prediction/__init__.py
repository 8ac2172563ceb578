"""A predicted run: placed by the allocator model, judged against a GPU, with its doubts."""
