"""How models were made with kiku. Outside the wheel: run from the root of the repository."""
