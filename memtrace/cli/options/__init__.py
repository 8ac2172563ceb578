"""Options that several commands share: numbers with their range, and what names a model."""
