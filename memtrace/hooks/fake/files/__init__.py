"""Where the files of a predicted program go, so that the user's are safe."""
