"""What a rank exchanges with others."""
