"""What the page of a report shows, a file a view."""
