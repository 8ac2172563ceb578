"""What terminal, pages and answers share: colours, escaping, rows of tables."""
