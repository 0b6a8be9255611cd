"""A click world with known truth: users, items, drift, new items, late and duplicate rows, a poisoned day."""
