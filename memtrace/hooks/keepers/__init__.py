"""Who keeps a tensor beyond its step: from the program's variables to the storage, and from there back."""
