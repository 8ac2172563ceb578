"""torch's own CUDA build on a machine without a GPU: stub libraries that answer like one and run no kernel.

`environment()` gives the variables under which a child Python finds them. Everything else of CUDA is torch's own: its
dispatch, autograd, caching allocator and recorder. What the stubs cannot do is in docs/driverless.md.
"""
