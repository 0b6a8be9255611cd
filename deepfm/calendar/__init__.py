"""The calendar: for every day, what was delivered, judged, prepared, trained and decided, and what is stale by now."""
