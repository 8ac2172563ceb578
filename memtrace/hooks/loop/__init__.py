"""What callbacks mean for steps, phases and scopes."""
