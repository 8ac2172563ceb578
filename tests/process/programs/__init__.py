"""Programs that do to their process what programs do: each is run bare and recorded."""
